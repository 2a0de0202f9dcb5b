"""What holds for every public metric; ignite's names and signatures among it."""

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn import Identity, Softmax
from torch.nn.functional import cross_entropy

import cookfire.metrics as m
from cookfire.metrics import Metric

SUBMODULES = ["clustering", "fairness", "gan", "nlp", "rec_sys", "regression", "vision"]

# Where ignite's default is of no use: it refuses the lists that it does not unroll.
OTHER_DEFAULTS = {("ConfusionMatrix", "skip_unrolling")}
# These keep every example, or something of it; all others a few numbers.
WHOLE_HISTORY = {
    "AveragePrecision",
    "CohenKappa",
    "CommonObjectDetectionMetrics",
    "EpochMetric",
    "MatthewsCorrCoef",
    "MeanAveragePrecision",
    "ObjectDetectionAvgPrecisionRecall",
    "PrecisionRecallCurve",
    "ROC_AUC",
    "RocCurve",
    "clustering.CalinskiHarabaszScore",
    "clustering.DaviesBouldinScore",
    "clustering.SilhouetteScore",
    "regression.GeometricMeanRelativeAbsoluteError",
    "regression.KendallRankCorrelation",
    "regression.MedianAbsoluteError",
    "regression.MedianAbsolutePercentageError",
    "regression.MedianRelativeAbsoluteError",
    "regression.SpearmanRankCorrelation",
}
# It needs an NVIDIA device; its own tests have a stand-in.
NEEDS_A_DEVICE = {"GpuInfo"}
# Its value is a rate over time, not over examples.
ALWAYS_COMPUTABLE = {"Frequency"}


def exists(path):
    try:
        find(path)
    except (AttributeError, ModuleNotFoundError):
        return False
    return True


def find(path):
    """Return what has a name below cookfire.metrics."""
    module, _, name = f"cookfire.metrics.{path}".rpartition(".")
    return getattr(import_module(module), name)


def public_names(root):
    """Names that a module exports; for ignite's that have no list, those that are defined below."""
    module = import_module(root)
    return getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(root)
    ]


def public_paths(root):
    """Names that a package of metrics exports, submodules' with their paths."""
    paths = list(public_names(root))
    for module in SUBMODULES:
        if find_spec(f"{root}.{module}"):
            paths += [f"{module}.{name}" for name in public_names(f"{root}.{module}")]
    return paths


IGNITES = public_paths("ignite.metrics")
OURS = public_paths("cookfire.metrics")


class Case(NamedTuple):
    make: Callable[[], Any]
    batch: Callable[[], Any]
    """Another one at each call."""


def scores(batch=8, classes=3):
    return torch.rand(batch, classes), torch.arange(batch) % classes


def labels(*shape):
    shape = shape or (8,)
    return torch.randint(0, 2, shape), torch.arange(torch.Size(shape).numel()).reshape(shape) % 2


def probabilities():
    scores = torch.rand(8, 3)
    return scores / scores.sum(1, keepdim=True), torch.arange(8) % 3


def ranked():
    return torch.rand(8), torch.arange(8) % 2


def numbers():
    return torch.rand(8) + 0.5, torch.rand(8) + 0.5


def vectors():
    return torch.rand(8, 3) + 0.5, torch.rand(8, 3) + 0.5


def images():
    return torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)


def values():
    return torch.rand(4, 3) + 0.5


def add_rows(total, x):
    return total + x.sum(0)


def rankings():
    return torch.rand(4, 3), torch.randint(0, 2, (4, 3)) + 1


def features():
    return torch.rand(8, 3), torch.arange(8) % 2


def groups():
    return *scores(), torch.arange(8) % 2


def texts():
    return [["a", "cat", "sat"], ["a", "b"]], [[["the", "cat", "sat"]], [["a", "b"], ["a"]]]


def boxes():
    corners = torch.rand(3, 4) * 20
    corners[:, 2:] += corners[:, :2]
    target = {"bbox": corners, "labels": torch.tensor([0, 1, 1])}
    return [target | {"scores": torch.rand(3)}], [target]


def largest_error(y_pred, y):
    return (y_pred - y).abs().max()


def output(output):
    return output


def double(value):
    return 2 * value


class Total:
    """A metric of another library."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.total = torch.zeros(())

    def update(self, y_pred, y):
        self.total = self.total + y.sum()

    def compute(self):
        return self.total


def matrix():
    return m.ConfusionMatrix(3)


CASES = {
    "Accuracy": Case(lambda: m.Accuracy(), scores),
    "Average": Case(lambda: m.Average(), values),
    "AveragePrecision": Case(lambda: m.AveragePrecision(), ranked),
    "Bleu": Case(lambda: m.Bleu(2), texts),
    "CalibrationError": Case(lambda: m.CalibrationError(), probabilities),
    "CharacterErrorRate": Case(
        lambda: m.CharacterErrorRate(), lambda: (["a cat", "dog"], ["a hat", "god"])
    ),
    "ClassificationReport": Case(lambda: m.ClassificationReport(output_dict=True), scores),
    "CohenKappa": Case(lambda: m.CohenKappa(), labels),
    "CommonObjectDetectionMetrics": Case(lambda: m.CommonObjectDetectionMetrics(2), boxes),
    "ConfusionMatrix": Case(matrix, scores),
    "CosineSimilarity": Case(lambda: m.CosineSimilarity(), vectors),
    "DiceCoefficient": Case(lambda: m.DiceCoefficient(matrix()), scores),
    "Entropy": Case(lambda: m.Entropy(), scores),
    "EpochMetric": Case(lambda: m.EpochMetric(largest_error), numbers),
    "ExternalMetric": Case(lambda: m.ExternalMetric(Total()), numbers),
    "FID": Case(lambda: m.FID(3, Identity()), vectors),
    "Fbeta": Case(lambda: m.Fbeta(1.0), scores),
    "Frequency": Case(lambda: m.Frequency(), lambda: 4),
    "GeometricAverage": Case(lambda: m.GeometricAverage(), values),
    "HSIC": Case(lambda: m.HSIC(), vectors),
    "HitRate": Case(lambda: m.HitRate([1, 2]), rankings),
    "InceptionScore": Case(lambda: m.InceptionScore(3, Softmax(1)), lambda: scores()[0]),
    "IoU": Case(lambda: m.IoU(matrix()), scores),
    "JSDivergence": Case(lambda: m.JSDivergence(), vectors),
    "JaccardIndex": Case(lambda: m.JaccardIndex(matrix()), scores),
    "KLDivergence": Case(lambda: m.KLDivergence(), vectors),
    "Loss": Case(lambda: m.Loss(cross_entropy), scores),
    "MatthewsCorrCoef": Case(lambda: m.MatthewsCorrCoef(), labels),
    "MaximumMeanDiscrepancy": Case(lambda: m.MaximumMeanDiscrepancy(), vectors),
    "MeanAbsoluteError": Case(lambda: m.MeanAbsoluteError(), numbers),
    "MeanAveragePrecision": Case(lambda: m.MeanAveragePrecision(), scores),
    "MeanPairwiseDistance": Case(lambda: m.MeanPairwiseDistance(), vectors),
    "MeanSquaredError": Case(lambda: m.MeanSquaredError(), numbers),
    "MetricGroup": Case(lambda: m.MetricGroup({"a": m.Accuracy(), "r": m.Recall()}), scores),
    "MetricsLambda": Case(lambda: m.MetricsLambda(double, m.Accuracy()), scores),
    "MultiLabelConfusionMatrix": Case(lambda: m.MultiLabelConfusionMatrix(3), lambda: labels(8, 3)),
    "MutualInformation": Case(lambda: m.MutualInformation(), scores),
    "NDCG": Case(lambda: m.NDCG([1, 2]), rankings),
    "ObjectDetectionAvgPrecisionRecall": Case(
        lambda: m.ObjectDetectionAvgPrecisionRecall(num_classes=2), boxes
    ),
    "PSNR": Case(lambda: m.PSNR(1.0), images),
    "Perplexity": Case(lambda: m.Perplexity(), scores),
    "Precision": Case(lambda: m.Precision(), scores),
    "PrecisionRecallCurve": Case(lambda: m.PrecisionRecallCurve(), ranked),
    "ROC_AUC": Case(lambda: m.ROC_AUC(), ranked),
    "Recall": Case(lambda: m.Recall(), scores),
    "RocCurve": Case(lambda: m.RocCurve(), ranked),
    "RootMeanSquaredError": Case(lambda: m.RootMeanSquaredError(), numbers),
    "Rouge": Case(lambda: m.Rouge(), texts),
    "RougeL": Case(lambda: m.RougeL(), texts),
    "RougeN": Case(lambda: m.RougeN(2), texts),
    "RunningAverage": Case(
        lambda: m.RunningAverage(output_transform=output), lambda: torch.rand(())
    ),
    "SSIM": Case(lambda: m.SSIM(1.0), images),
    "TopKCategoricalAccuracy": Case(lambda: m.TopKCategoricalAccuracy(2), scores),
    "VariableAccumulation": Case(lambda: m.VariableAccumulation(add_rows), values),
    "cmAccuracy": Case(lambda: m.cmAccuracy(matrix()), scores),
    "cmPrecision": Case(lambda: m.cmPrecision(matrix()), scores),
    "cmRecall": Case(lambda: m.cmRecall(matrix()), scores),
    "mIoU": Case(lambda: m.mIoU(matrix()), scores),
}


def named(path):
    """Return what has a name below cookfire.metrics."""
    return attrgetter(path)(m)()


CASES |= {
    f"regression.{name}": Case(partial(named, f"regression.{name}"), numbers)
    for name in public_names("ignite.metrics.regression")
}
CASES |= {
    f"clustering.{name}": Case(partial(named, f"clustering.{name}"), features)
    for name in public_names("ignite.metrics.clustering")
}
CASES |= {
    "fairness.SubgroupMetric": Case(
        lambda: m.fairness.SubgroupMetric(m.Accuracy(), [0, 1]), groups
    ),
    "fairness.SubgroupDifference": Case(
        lambda: m.fairness.SubgroupDifference(m.Accuracy(), [0, 1]), groups
    ),
    "fairness.SubgroupAccuracyDifference": Case(
        lambda: m.fairness.SubgroupAccuracyDifference([0, 1]), groups
    ),
    "fairness.SelectionRate": Case(lambda: m.fairness.SelectionRate(), scores),
    "fairness.DemographicParityDifference": Case(
        lambda: m.fairness.DemographicParityDifference([0, 1]), groups
    ),
}


def test_every_name_of_ignites_is_there():
    assert [name for name in IGNITES if not exists(name)] == []


@pytest.mark.parametrize("path", IGNITES)
def test_arguments_are_ignites(path):
    root, _, name = f"ignite.metrics.{path}".rpartition(".")
    theirs, ours = getattr(import_module(root), name), find(path)
    if inspect.ismodule(ours):
        return
    given, taken = (inspect.signature(metric).parameters for metric in (theirs, ours))
    assert list(taken)[: len(given)] == list(given)
    for name, parameter in given.items():
        assert taken[name].kind == parameter.kind
        if name in {"device", "output_transform", "check_compute_fn"}:
            continue  # where the data are; the same; a formula of ours needs no check
        if (path, name) in OTHER_DEFAULTS:
            continue
        default = taken[name].default
        assert default == parameter.default or callable(default), name
    for name in list(taken)[len(given) :]:
        assert taken[name].default is not inspect.Parameter.empty


@pytest.mark.parametrize("path", OURS)
def test_every_public_class_has_an_example_that_runs(path):
    value = find(path)
    if inspect.isclass(value) and not issubclass(value, Warning):
        assert ">>>" in (value.__doc__ or ""), path
        # Those of modules below the package are run by test_examples.
        assert value.__module__.startswith("cookfire.metrics")


def test_every_public_metric_has_a_case():
    metrics = {
        path for path in OURS if inspect.isclass(find(path)) and issubclass(find(path), Metric)
    }
    without = {find(path) for path in metrics} - {find(path) for path in CASES}
    assert {metric.__name__ for metric in without} <= {"Metric", *NEEDS_A_DEVICE}


def test_the_page_has_them_all():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    metrics = {path.rpartition(".")[2] for path in [*CASES, *NEEDS_A_DEVICE]}
    assert {name for name in metrics if f"`{name}`" not in page} == set()
