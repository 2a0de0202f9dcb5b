"""An output that is no tuple of what is expected, and settings of a wrong kind."""

from __future__ import annotations

import pytest
import torch

import cookfire.metrics as ours
from cookfire.metrics import clustering
from tests.metrics.classification import value_of
from tests.metrics.test_all import CASES

# They take a value, or images, by themselves; other libraries unpack for themselves.
OF_ONE_VALUE = {"Average", "GeometricAverage", "VariableAccumulation", "RunningAverage"}
OTHERS = {"Frequency", "InceptionScore", "ExternalMetric"}
OF_PAIRS = [name for name in CASES if name not in OF_ONE_VALUE | OTHERS]
SCORES = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5]])


@pytest.mark.parametrize("name", OF_PAIRS)
def test_examples_of_a_tensor_are_not_unpacked(name):
    number = 3 if "Subgroup" in name or "Parity" in name else 2
    for output in (torch.rand(number), torch.rand(number, 4), torch.rand(number, 4, 3)):
        with pytest.raises(TypeError, match=r"expected a tuple \(\w+, .*, got Tensor of the sh"):
            CASES[name].make().update(output)


@pytest.mark.parametrize("name", OF_PAIRS)
def test_a_tuple_of_another_length_is_told_what_is_expected(name):
    with pytest.raises(ValueError, match=r"expected a tuple \(\w+, .*, got 4 items: make it by "):
        CASES[name].make().update((*[torch.rand(4, 3)] * 4,))


def test_a_metric_outside_of_an_engine_takes_no_mapping():
    with pytest.raises(TypeError, match=r"Accuracy: expected a tuple .y_pred, y., got dict .'y"):
        ours.Accuracy().update({"y_pred": SCORES, "y": torch.tensor([1, 0, 2])})


@pytest.mark.parametrize("ignored", [None, 255])
def test_a_matrix_has_no_targets_between_two_classes(ignored):
    metric = ours.ConfusionMatrix(3, ignore_index=ignored)
    broken = torch.tensor([1.5, 0.0, 2.0])
    with pytest.raises(ValueError, match="ConfusionMatrix: 1 elements of y are not whole"):
        value_of(metric, [(SCORES, broken)])
    with pytest.raises(ValueError, match="1 elements of y are not whole"):
        value_of(ours.mIoU(metric), [(SCORES, broken)])
    # Those beyond the classes are left out, as its docstring says.
    assert value_of(metric, [(SCORES, torch.tensor([7.0, 0.0, 2.0]))]).sum() == 2


def test_a_silhouette_of_features_that_are_nan_is_nan():
    features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert value_of(clustering.SilhouetteScore(), [(features, labels)]) > 0.7
    features[1] = torch.nan
    score = value_of(clustering.SilhouetteScore(), [(features, labels)])
    assert score != score
    # As for scikit-learn, where all distances are 0 it is 0.
    assert value_of(clustering.SilhouetteScore(), [(torch.zeros(4, 1), labels)]) == 0


def test_tensors_of_two_devices_or_without_strides_are_refused():
    y = torch.tensor([1, 0, 2])
    for make in (ours.Precision, ours.ConfusionMatrix, ours.ROC_AUC):
        with pytest.raises(ValueError, match="got y_pred on meta and y on cpu: move one of"):
            make(*[3] * (make is ours.ConfusionMatrix)).update((SCORES.to("meta"), y))
    with pytest.raises(TypeError, match="expected dense tensors, got torch.sparse_coo: .*dense"):
        ours.Accuracy().update((SCORES.to_sparse(), y))


def test_a_loss_is_a_mean():
    total = torch.nn.MSELoss(reduction="sum")
    with pytest.raises(ValueError, match="this one has reduction='sum': leave that out"):
        ours.Loss(total)
    pair = torch.zeros(2, 3), torch.ones(2, 3)
    assert value_of(ours.Loss(total, batch_size=lambda _: 1), [pair, pair]) == 6
    with pytest.raises(TypeError, match="loss_fn must be callable, got 'mse'"):
        ours.Loss("mse")
    with pytest.raises(TypeError, match="loss_fn must return a tensor, got float 1.5"):
        ours.Loss(lambda y_pred, y: 1.5).update(pair)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ours.ConfusionMatrix(2.5),
        lambda: ours.ConfusionMatrix("3"),
        lambda: ours.MultiLabelConfusionMatrix(True),
        lambda: ours.CohenKappa(num_classes=2.0),
        lambda: ours.TopKCategoricalAccuracy(1.5),
        lambda: ours.CalibrationError(1.5),
        lambda: ours.Accuracy(ignore_index="255"),
        lambda: ours.ROC_AUC(ignore_index=1.5),
        lambda: ours.TopKCategoricalAccuracy(ignore_index=[0]),
    ],
)
def test_whole_numbers_are_asked_for(make):
    with pytest.raises(TypeError, match=r"\w+ must be a whole number, got \w+ \S"):
        make()


def test_a_group_is_a_mapping():
    with pytest.raises(TypeError, match="metrics must be a mapping of names to metrics, got list"):
        ours.MetricGroup([ours.Accuracy()])
