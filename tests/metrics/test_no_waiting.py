"""An update never waits for the device, which would cost more than the update itself.

On a CPU nothing waits. But what waits elsewhere is known: reading a tensor's value, and operations
whose result's shape depends on values. A mode in which these fail stands in for a device.
"""

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from cookfire.engine import Engine
from cookfire.metrics import (
    FID,
    HSIC,
    PSNR,
    ROC_AUC,
    SSIM,
    Accuracy,
    Average,
    AveragePrecision,
    BatchFiltered,
    CalibrationError,
    ClassificationReport,
    CohenKappa,
    ConfusionMatrix,
    CosineSimilarity,
    Entropy,
    EpochMetric,
    Fbeta,
    GeometricAverage,
    InceptionScore,
    JSDivergence,
    KLDivergence,
    Loss,
    MatthewsCorrCoef,
    MaximumMeanDiscrepancy,
    MeanAbsoluteError,
    MeanAveragePrecision,
    MeanPairwiseDistance,
    MeanSquaredError,
    MetricGroup,
    MultiLabelConfusionMatrix,
    MutualInformation,
    Precision,
    Recall,
    RunningAverage,
    TopKCategoricalAccuracy,
    clustering,
    fairness,
    mIoU,
    regression,
)
from cookfire.metrics._state import Pieces

WAITING = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::index.Tensor",
    "aten::_unique2",
    "aten::bincount",
    "aten::_to_copy",
    "aten::_assert_async",
}


class NoWaiting(TorchDispatchMode):
    """Fails where a device would be waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        kwargs = kwargs or {}
        copies = name == "aten::_to_copy" and kwargs.get("device") is not None
        if name in WAITING and (name != "aten::_to_copy" or copies):
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **kwargs)


def test_the_mode_notices_what_waits():
    x = torch.tensor([1, 0])
    for wait in (x.sum().item, x.nonzero, lambda: x[x > 0], lambda: bool(x.sum() > 0)):
        with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
            wait()


def multiclass(classes, *rest):
    return torch.rand(8, classes, *rest), torch.randint(0, classes, (8, *rest))


def binary(*shape, dtype=torch.int64):
    return torch.randint(0, 2, shape).to(dtype), torch.randint(0, 2, shape).to(dtype)


def pair(*shape):
    return torch.rand(shape), torch.rand(shape) + 1


clusters = torch.rand(8, 2), torch.arange(8) % 3

CASES = {
    "accuracy": (Accuracy, multiclass(3)),
    "accuracy of images": (Accuracy, multiclass(3, 70, 70)),
    "accuracy binary": (Accuracy, binary(8, dtype=torch.float32)),
    "accuracy multilabel": (lambda: Accuracy(is_multilabel=True), binary(8, 4)),
    "precision": (Precision, multiclass(3)),
    "recall of many classes": (lambda: Recall(average=True), multiclass(100)),
    "precision binary": (Precision, binary(8, dtype=torch.float32)),
    "precision multilabel": (lambda: Precision(is_multilabel=True), binary(8, 4)),
    "samples": (lambda: Recall(is_multilabel=True, average="samples"), binary(8, 4)),
    "f1": (lambda: Fbeta(1.0), multiclass(3)),
    "confusion matrix": (lambda: ConfusionMatrix(3), multiclass(3)),
    "miou": (lambda: mIoU(ConfusionMatrix(3)), multiclass(3, 70, 70)),
    "loss": (lambda: Loss(cross_entropy), multiclass(3)),
    "top k": (lambda: TopKCategoricalAccuracy(2), multiclass(3)),
    "average": (Average, torch.rand(3)),
    "geometric average": (GeometricAverage, torch.rand(3)),
    "running average": (
        lambda: RunningAverage(output_transform=lambda output: output),
        torch.tensor(0.5),
    ),
    "running average of accuracy": (lambda: RunningAverage(Accuracy()), multiclass(3)),
    "running average of a loss": (lambda: RunningAverage(Loss(cross_entropy)), multiclass(3)),
    "history": (lambda: EpochMetric(torch.dist, check_compute_fn=False), (torch.rand(3),) * 2),
    "accuracy with padding": (lambda: Accuracy(ignore_index=0), multiclass(3, 5)),
    "precision with padding": (lambda: Precision(ignore_index=0), multiclass(3, 5)),
    "recall of many with padding": (lambda: Recall(ignore_index=0), multiclass(100)),
    "binary with padding": (lambda: Precision(ignore_index=2), binary(8)),
    "multilabel with padding": (
        lambda: Precision(is_multilabel=True, ignore_index=2),
        binary(8, 4),
    ),
    "matrix with padding": (lambda: ConfusionMatrix(3, ignore_index=0), multiclass(3, 5)),
    "top k with padding": (lambda: TopKCategoricalAccuracy(2, ignore_index=0), multiclass(3)),
    "kappa": (CohenKappa, multiclass(3)),
    "kappa of labels": (CohenKappa, binary(8)),
    "kappa of so many labels": (lambda: CohenKappa(num_classes=3), binary(8)),
    "matthews": (MatthewsCorrCoef, multiclass(3)),
    "multilabel matrix": (lambda: MultiLabelConfusionMatrix(4), binary(8, 4)),
    "report": (lambda: ClassificationReport(output_dict=True), multiclass(3)),
    "calibration": (
        lambda: CalibrationError(ignore_index=0),
        (torch.rand(8, 3).softmax(1), torch.arange(8) % 3),
    ),
    "roc auc": (ROC_AUC, (torch.rand(4), torch.tensor([0, 1, 1, 0]))),
    "average precision": (AveragePrecision, (torch.rand(4), torch.tensor([0, 1, 1, 0]))),
    "mean average precision": (MeanAveragePrecision, multiclass(3, 5)),
    "groups": (
        lambda: fairness.DemographicParityDifference([0, 1]),
        (*multiclass(3), torch.arange(8) % 2),
    ),
    "group": (lambda: MetricGroup({"a": Accuracy(), "p": Precision()}), multiclass(3)),
    **{name: (getattr(regression, name), pair(8)) for name in regression.__all__},
    **{name: (getattr(clustering, name), clusters) for name in clustering.__all__},
    "absolute error": (MeanAbsoluteError, pair(8, 3)),
    "squared error": (MeanSquaredError, pair(8, 3)),
    "pairwise distance": (MeanPairwiseDistance, pair(8, 3)),
    "cosine": (CosineSimilarity, pair(8, 3)),
    "psnr": (lambda: PSNR(1.0), pair(2, 3, 12, 12)),
    "ssim": (lambda: SSIM(1.0), pair(2, 3, 12, 12)),
    "entropy": (Entropy, pair(8, 3)),
    "mutual information": (MutualInformation, pair(8, 3)),
    "kl": (KLDivergence, pair(8, 3)),
    "js": (JSDivergence, pair(8, 3)),
    "discrepancy": (MaximumMeanDiscrepancy, pair(8, 3)),
    "independence": (HSIC, pair(8, 3)),
    "frechet": (lambda: FID(num_features=3), pair(8, 3)),
    "inception score": (lambda: InceptionScore(num_features=3), torch.rand(8, 3).softmax(1)),
}


@pytest.mark.parametrize("case", CASES)
def test_updates_do_not_wait(case, monkeypatch):
    # What a CPU does at once is done in another way where one would wait.
    monkeypatch.setattr("cookfire.metrics._counting.counts_at_once", lambda tensor: False)
    monkeypatch.setattr("cookfire.metrics._running_average.is_at_hand", lambda tensor: False)
    monkeypatch.setattr("cookfire.metrics._counting.raises_at_once", lambda tensor: False)
    monkeypatch.setattr("cookfire.metrics._classification.has_nan", lambda scores: False)
    make, output = CASES[case]
    engine = Engine(lambda engine, batch: batch)
    metric = make()
    metric.attach(engine, case)
    attached = next(engine.handlers()).__self__
    engine.state.output = output
    attached.started(engine)
    with NoWaiting():
        for _ in range(3):
            attached.iteration_completed(engine)
            if isinstance(metric, RunningAverage):
                attached.completed(engine)
    attached.completed(engine)
    assert case in engine.state.metrics


@pytest.mark.parametrize("case", CASES)
def test_state_lives_where_the_data_do(case):
    # Tensors without data have shapes and a device, and nothing that could be waited for.
    make, output = CASES[case]
    output = tuple(x.to("meta") for x in output) if isinstance(output, tuple) else output.to("meta")
    engine = Engine(lambda engine, batch: batch)
    metric = make()
    metric.attach(engine, case)
    attached = next(engine.handlers()).__self__
    engine.state.output = output
    for _ in range(2):
        attached.iteration_completed(engine)
    held = [value for part in metric._family() for value in part._store.local.values.values()]
    held = list(itertools.chain(*(value if isinstance(value, list) else [value] for value in held)))
    held = [value.to_tensor() if isinstance(value, Pieces) else value for value in held]
    tensors = [value for value in held if isinstance(value, torch.Tensor)]
    assert tensors
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_filtered_updates_do_not_wait():
    engine = Engine(lambda engine, batch: batch)
    metric = Accuracy()
    metric.attach(engine, "accuracy", BatchFiltered(every=2))
    data = [multiclass(3) for _ in range(4)]
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        engine.run(data)  # computing does, at the epoch's end
    assert engine.state.iteration == 4
