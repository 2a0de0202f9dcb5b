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

from cookfire.metrics import clustering as clustering
from cookfire.metrics import fairness
from cookfire.metrics import gan as gan
from cookfire.metrics import regression as regression
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
from cookfire.metrics._errors import MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError
from cookfire.metrics._external import ExternalMetric
from cookfire.metrics._fbeta import Fbeta
from cookfire.metrics._frequency import Frequency
from cookfire.metrics._gpu_info import GpuInfo
from cookfire.metrics._images import PSNR, SSIM
from cookfire.metrics._information import (
    Entropy,
    JSDivergence,
    KLDivergence,
    MutualInformation,
)
from cookfire.metrics._kernels import HSIC, MaximumMeanDiscrepancy
from cookfire.metrics._loss import Loss
from cookfire.metrics._metric_group import MetricGroup
from cookfire.metrics._metrics_lambda import MetricsLambda
from cookfire.metrics._multilabel_confusion_matrix import MultiLabelConfusionMatrix
from cookfire.metrics._precision_recall import Precision, Recall
from cookfire.metrics._roc import ROC_AUC, RocCurve
from cookfire.metrics._running_average import RunningAverage
from cookfire.metrics._vectors import CosineSimilarity, MeanPairwiseDistance
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
from cookfire.metrics.gan import FID, InceptionScore
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
from cookfire.metrics.nlp import (
    Bleu,
    CharacterErrorRate,
    Perplexity,
    Rouge,
    RougeL,
    RougeN,
)
from cookfire.metrics.rec_sys import NDCG, HitRate
from cookfire.metrics.vision import (
    CommonObjectDetectionMetrics,
    ObjectDetectionAvgPrecisionRecall,
    coco_tensor_list_to_dict_list,
)

__all__ = [
    "FID",
    "HSIC",
    "NDCG",
    "PSNR",
    "ROC_AUC",
    "SSIM",
    "Accuracy",
    "Average",
    "AveragePrecision",
    "BatchFiltered",
    "BatchWise",
    "Bleu",
    "CalibrationError",
    "CharacterErrorRate",
    "ClassificationReport",
    "CohenKappa",
    "CommonObjectDetectionMetrics",
    "ConfusionMatrix",
    "CosineSimilarity",
    "DiceCoefficient",
    "Entropy",
    "EpochMetric",
    "EpochMetricWarning",
    "EpochWise",
    "ExternalMetric",
    "Fbeta",
    "Frequency",
    "GeometricAverage",
    "GpuInfo",
    "HitRate",
    "InceptionScore",
    "IoU",
    "JSDivergence",
    "JaccardIndex",
    "KLDivergence",
    "Loss",
    "MatthewsCorrCoef",
    "MaximumMeanDiscrepancy",
    "MeanAbsoluteError",
    "MeanAveragePrecision",
    "MeanPairwiseDistance",
    "MeanSquaredError",
    "Metric",
    "MetricGroup",
    "MetricState",
    "MetricUsage",
    "MetricsLambda",
    "MultiLabelConfusionMatrix",
    "MutualInformation",
    "ObjectDetectionAvgPrecisionRecall",
    "Perplexity",
    "Precision",
    "PrecisionRecallCurve",
    "Recall",
    "RocCurve",
    "RootMeanSquaredError",
    "Rouge",
    "RougeL",
    "RougeN",
    "RunningAverage",
    "RunningBatchWise",
    "RunningEpochWise",
    "SingleEpochRunningBatchWise",
    "TopKCategoricalAccuracy",
    "VariableAccumulation",
    "cmAccuracy",
    "cmPrecision",
    "cmRecall",
    "coco_tensor_list_to_dict_list",
    "fairness",
    "mIoU",
]
