"""Metrics that stay on the device and synchronise once.

A metric is updated batch by batch, and computed at the end::

    from cookfire.metrics import Accuracy

    accuracy = Accuracy()
    accuracy.update((y_pred, y))
    accuracy.compute()

or attached to an engine, which does so: ``accuracy.attach(evaluator, "accuracy")`` puts the value
into ``evaluator.state.metrics["accuracy"]`` after each epoch. Metrics compose:
``error = 100 * (1 - accuracy)``. How to write one is told by :class:`Metric`.
"""

from cookfire.metrics import fairness
from cookfire.metrics._accumulation import Average, GeometricAverage, VariableAccumulation
from cookfire.metrics._accuracy import Accuracy, TopKCategoricalAccuracy
from cookfire.metrics._agreement import CohenKappa, MatthewsCorrCoef
from cookfire.metrics._average_precision import (
    AveragePrecision,
    MeanAveragePrecision,
    PrecisionRecallCurve,
)
from cookfire.metrics._calibration import CalibrationError
from cookfire.metrics._classification_report import ClassificationReport
from cookfire.metrics._epoch_metric import EpochMetric, EpochMetricWarning
from cookfire.metrics._external import ExternalMetric
from cookfire.metrics._fbeta import Fbeta
from cookfire.metrics._loss import Loss
from cookfire.metrics._metric_group import MetricGroup
from cookfire.metrics._metrics_lambda import MetricsLambda
from cookfire.metrics._multilabel_confusion_matrix import MultiLabelConfusionMatrix
from cookfire.metrics._precision_recall import Precision, Recall
from cookfire.metrics._roc import ROC_AUC, RocCurve
from cookfire.metrics._running_average import RunningAverage
from cookfire.metrics.confusion_matrix import (
    ConfusionMatrix,
    DiceCoefficient,
    IoU,
    JaccardIndex,
    cmAccuracy,
    cmPrecision,
    cmRecall,
    mIoU,
)
from cookfire.metrics.metric import (
    BatchFiltered,
    BatchWise,
    EpochWise,
    Metric,
    MetricState,
    MetricUsage,
    RunningBatchWise,
    RunningEpochWise,
    SingleEpochRunningBatchWise,
)

__all__ = [
    "ROC_AUC",
    "Accuracy",
    "Average",
    "AveragePrecision",
    "BatchFiltered",
    "BatchWise",
    "CalibrationError",
    "ClassificationReport",
    "CohenKappa",
    "ConfusionMatrix",
    "DiceCoefficient",
    "EpochMetric",
    "EpochMetricWarning",
    "EpochWise",
    "ExternalMetric",
    "Fbeta",
    "GeometricAverage",
    "IoU",
    "JaccardIndex",
    "Loss",
    "MatthewsCorrCoef",
    "MeanAveragePrecision",
    "Metric",
    "MetricGroup",
    "MetricState",
    "MetricUsage",
    "MetricsLambda",
    "MultiLabelConfusionMatrix",
    "Precision",
    "PrecisionRecallCurve",
    "Recall",
    "RocCurve",
    "RunningAverage",
    "RunningBatchWise",
    "RunningEpochWise",
    "SingleEpochRunningBatchWise",
    "TopKCategoricalAccuracy",
    "VariableAccumulation",
    "cmAccuracy",
    "cmPrecision",
    "cmRecall",
    "fairness",
    "mIoU",
]
