"""Metrics made of the class counts, beyond those of test_classification: values and sharing."""

import json
import warnings

import ignite.metrics as oracle
import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.classification
from hypothesis import given, settings
from hypothesis import strategies as st

import cookfire.metrics as ours
from cookfire.engine import Engine
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import fairness
from tests.metrics.classification import (
    attached,
    families,
    few,
    multiclass,
    same,
    value_of,
    zeros_and_ones,
)

fewer = settings(few, max_examples=12)


def joined(batches):
    scores, y = zip(*batches, strict=True)
    return torch.cat([part.argmax(1).flatten() for part in scores]), torch.cat(
        [part.flatten() for part in y]
    )


def labels_of(batches):
    return [(scores.argmax(1).flatten(), y.flatten()) for scores, y in batches]


@given(multiclass())
@few
def test_kappa_and_matthews_are_scikit_learns_of_scores_and_labels(data):
    classes, batches = data
    y_pred, y = joined(batches)
    everything = list(range(classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where chance leaves nothing it divides by zero
        expected = {
            weights: np.nan_to_num(
                sklearn.metrics.cohen_kappa_score(y, y_pred, labels=everything, weights=weights)
            )
            for weights in (None, "linear", "quadratic")
        }
        matthews = sklearn.metrics.matthews_corrcoef(y, y_pred)
    for number in (None, classes):
        for given_as in (batches, labels_of(batches)):
            for weights, kappa in expected.items():
                metric = ours.CohenKappa(weights=weights, num_classes=number)
                assert value_of(metric, given_as) == pytest.approx(kappa, abs=1e-9)
            metric = ours.MatthewsCorrCoef(num_classes=number)
            assert value_of(metric, given_as) == pytest.approx(matthews, abs=1e-9)


def test_labels_may_be_any_whole_numbers():
    y_pred, y = torch.tensor([1.0, 1.0, 1.0, -1.0]), torch.tensor([1, -1, 1, 1])
    expected = sklearn.metrics.matthews_corrcoef(y, y_pred)
    assert value_of(ours.MatthewsCorrCoef(), [(y_pred, y)]) == pytest.approx(expected)
    columns = y_pred.unsqueeze(1), y.unsqueeze(1)
    assert value_of(ours.MatthewsCorrCoef(), [columns]) == pytest.approx(expected)
    ignored = torch.cat([y_pred, y_pred]), torch.cat([y, y.new_full((4,), -100)])
    metric = ours.MatthewsCorrCoef(ignore_index=-100)
    assert value_of(metric, [ignored]) == pytest.approx(expected)
    # Ranks of ratings that are skipped still count as a distance.
    ratings = torch.tensor([0, 3, 3, 1]), torch.tensor([0, 1, 3, 3])
    expected = value_of(oracle.CohenKappa(weights="linear"), [ratings])
    assert value_of(ours.CohenKappa(weights="linear"), [ratings]) == pytest.approx(expected)


def test_agreement_reports_wrong_input():
    y = torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match="3 labels are no whole numbers; labels of scores"):
        value_of(ours.CohenKappa(), [(torch.tensor([0.2, 0.7, 0.9]), y)])
    with pytest.raises(ValueError, match="1 examples had other classes than 0 to 2"):
        value_of(ours.CohenKappa(num_classes=3), [(torch.tensor([0, 1, 3]), y)])
    with pytest.raises(ValueError, match="num_classes is 3, got 4 classes"):
        ours.MatthewsCorrCoef(num_classes=3).update((torch.rand(3, 4), y))
    with pytest.raises(ValueError, match=r"expected labels \(batch,\), or scores"):
        ours.CohenKappa().update((torch.zeros(3, 2), torch.zeros(3, 2)))
    with pytest.raises(ValueError, match="weights must be None, 'linear' or 'quadratic'"):
        ours.CohenKappa(weights="cubic")
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        ours.CohenKappa(num_classes=1)


@given(zeros_and_ones(multilabel=True))
@few
def test_multilabel_confusion_matrices_agree_with_ignite(batches):
    batches = [(y_pred.long(), y.long()) for y_pred, y in batches]
    labels = batches[0][0].shape[1]
    for normalized in (False, True):
        mine = ours.MultiLabelConfusionMatrix(labels, normalized=normalized)
        theirs = oracle.MultiLabelConfusionMatrix(labels, normalized=normalized)
        value = value_of(mine, batches)
        assert value.dtype == (torch.float64 if normalized else torch.int64)
        np.testing.assert_allclose(value, value_of(theirs, batches), rtol=1e-6)


def test_a_multilabel_confusion_matrix_needs_its_labels():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        ours.MultiLabelConfusionMatrix(1)
    with pytest.raises(ValueError, match="num_classes is 3, got 4 classes of shapes"):
        ours.MultiLabelConfusionMatrix(3).update((torch.zeros(2, 4), torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="4 predictions or labels were neither 0 nor 1"):
        value_of(ours.MultiLabelConfusionMatrix(2), [(torch.full((2, 2), 0.4), torch.zeros(2, 2))])


@given(multiclass(tail=False), zeros_and_ones(multilabel=True))
@fewer
def test_reports_agree_with_ignite(of_classes, of_labels):
    for batches, is_multilabel in ((of_classes[1], False), (of_labels, True)):
        kwargs = {"is_multilabel": is_multilabel, "output_dict": True, "beta": 2}
        value = value_of(ours.ClassificationReport(**kwargs), batches)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ignite asks for the dtype long
            expected = value_of(oracle.ClassificationReport(**kwargs), batches)
        assert value.keys() == expected.keys()
        for name, row in expected.items():
            assert value[name] == pytest.approx(row, abs=1e-6)
        text = value_of(ours.ClassificationReport(beta=2, is_multilabel=is_multilabel), batches)
        assert json.loads(text) == value


def test_a_report_names_classes_and_shares_the_counts(monkeypatch):
    data = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, 0, 1])
    report = ours.ClassificationReport(output_dict=True, labels=["cat", "dog"])
    assert list(value_of(report, [data])) == ["cat", "dog", "macro avg"]
    with pytest.raises(ValueError, match="1 labels for 2 classes; name all of them"):
        value_of(ours.ClassificationReport(labels=["cat"]), [data])
    engine = Engine(lambda engine, batch: batch)
    ours.ClassificationReport(output_dict=True, metrics_result_mode="flatten").attach(engine, "r")
    engine.run([data])
    assert engine.state.metrics["macro avg"]["precision"] == pytest.approx((1 + 2 / 3) / 2)


CALIBRATION = {"l1", "l2", "max"}


@given(multiclass(max_classes=5), st.integers(1, 20))
@few
def test_calibration_errors_are_torchmetrics(data, bins):
    classes, batches = data
    # Not saturated: torchmetrics gives a confidence of exactly 1 a bin of its own.
    batches = [((scores.float() % 7).softmax(1), y) for scores, y in batches]
    binary = [(scores[:, 1], (y == 1).long()) for scores, y in batches]
    for norm in CALIBRATION:
        metric = ours.CalibrationError(bins, norm)
        tm = torchmetrics.classification
        theirs = tm.MulticlassCalibrationError(classes, n_bins=bins, norm=norm)
        others = tm.BinaryCalibrationError(n_bins=bins, norm=norm)
        for mine, oracle_of, of_data in ((metric, theirs, batches), (metric, others, binary)):
            for scores, y in of_data:
                oracle_of.update(scores, y)
            assert value_of(mine, of_data) == pytest.approx(oracle_of.compute().item(), abs=1e-5)


def test_confidences_are_probabilities():
    y = torch.tensor([1, 0, 1])
    certain = torch.tensor([1.0, 0.0, 1.0])
    assert value_of(ours.CalibrationError(), [(certain, y)]) == 0.0
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert value_of(ours.CalibrationError(4), [(certain.to(dtype), y)]) == 0.0
    for wrong in (1.5, -0.1, torch.nan):
        with pytest.raises(ValueError, match="1 confidences were not from 0 to 1: make prob"):
            value_of(ours.CalibrationError(), [(torch.tensor([wrong, 0.5, 0.5]), y)])
    kept = value_of(ours.CalibrationError(3), [(torch.tensor([0.9, 0.2]), y[:2])])
    metric = ours.CalibrationError(3, ignore_index=-1)
    hidden = torch.tensor([0.9, 0.2, 7.0]), torch.tensor([1, 0, -1])
    assert value_of(metric, [hidden]) == pytest.approx(kept)
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        ours.CalibrationError(0)
    with pytest.raises(ValueError, match="norm must be one of 'l1', 'l2', 'max', got 'l3'"):
        ours.CalibrationError(norm="l3")
    with pytest.raises(NotComputableError):
        value_of(ours.CalibrationError(), [(torch.empty(0), torch.empty(0))])


# One count for all


def count_calls(monkeypatch, *names):
    calls = []
    for name in names:
        function = getattr(__import__("cookfire.metrics._class_counts", fromlist=[name]), name)
        monkeypatch.setattr(
            f"cookfire.metrics._class_counts.{name}",
            lambda *args, f=function, n=name: calls.append(n) or f(*args),
        )
    return calls


@pytest.mark.parametrize("classes", [3, 50])
@pytest.mark.parametrize("ignored", [None, 1])
def test_one_count_serves_all_metrics_of_a_task(monkeypatch, classes, ignored):
    data = [(torch.rand(20, classes), torch.randint(0, classes, (20,))) for _ in range(3)]
    made = {n: m(ignore_index=ignored) for n, m in families(classes).items() if n != "top"}
    made["matthews"] = ours.MatthewsCorrCoef(ignore_index=ignored)
    expected = {name: value_of(metric, data) for name, metric in made.items()}
    calls = count_calls(monkeypatch, "predict_classes", "count_pairs", "count_per_class")
    seen = attached(made, data)
    assert calls == ["predict_classes", "count_pairs"] * 6
    for name, value in expected.items():
        same(seen[name], value, name)


def test_the_least_that_serves_all_is_counted(monkeypatch):
    data = [(torch.rand(9, 40), torch.randint(0, 40, (9,)))]
    calls = count_calls(monkeypatch, "count_pairs", "count_per_class")
    attached({"accuracy": ours.Accuracy()}, data)
    assert calls == []
    attached({"accuracy": ours.Accuracy(), "precision": ours.Precision()}, data)
    assert calls == ["count_per_class"] * 2
    engine = Engine(lambda engine, batch: batch)
    accuracy, matrix = ours.Accuracy(), ours.ConfusionMatrix(40)
    accuracy.attach(engine, "accuracy")
    matrix.attach(engine, "matrix")
    matrix.detach(engine)
    engine.run(data)
    assert calls == ["count_per_class"] * 2
    assert engine.state.metrics["accuracy"] == value_of(ours.Accuracy(), data)


@pytest.mark.parametrize("multilabel", [False, True])
def test_zeros_and_ones_are_counted_once_too(multilabel):
    shape = (30, 4) if multilabel else (30,)
    data = [(torch.randint(0, 2, shape), torch.randint(0, 2, shape)) for _ in range(3)]
    kwargs = {"is_multilabel": multilabel}
    made = {
        "accuracy": ours.Accuracy(**kwargs),
        "precision": ours.Precision(average=True, **kwargs),
        "selection": fairness.SelectionRate(**kwargs),
    }
    if multilabel:
        made["matrix"] = ours.MultiLabelConfusionMatrix(4)
        made["samples"] = ours.Recall(average="samples", **kwargs)
    else:
        made["kappa"] = ours.CohenKappa()
        made["matthews"] = ours.MatthewsCorrCoef(num_classes=2)
    expected = {name: value_of(metric, data) for name, metric in made.items()}
    seen = attached(made, data)
    for name, value in expected.items():
        same(seen[name], value, name)
    assert len({metric._store for metric in made.values()}) == 1


def test_a_wrong_number_of_classes_is_noticed_whoever_counts():
    made = {"accuracy": ours.Accuracy(), "matrix": ours.ConfusionMatrix(4)}
    data = [(torch.rand(9, 3), torch.randint(0, 3, (9,)))]
    with pytest.raises(ValueError, match=r"ConfusionMatrix\(num_classes=4\): expected scores"):
        attached(made, data)


def test_counts_are_exact_beyond_what_floats_hold():
    metric = ours.MatthewsCorrCoef()
    metric.update((torch.eye(2), torch.arange(2)))
    metric.accumulate(matrix=torch.tensor([2**40, 1, 1, 2**40, 0, 0]), count=2**41 + 2)
    assert int(metric.matrix[0]) == 2**40 + 1
    assert metric.compute() == pytest.approx(1.0)
    precision = ours.Precision(average=None)
    precision.update((torch.eye(2), torch.arange(2)))
    precision.accumulate(matrix=torch.tensor([2**30, 0, 1, 2**30, 0, 0]), count=2**31 + 1)
    assert precision.compute()[0] == (2**30 + 1) / (2**30 + 2)


# Odd uses


def test_a_group_updates_what_its_members_have_in_common_once():
    matrix = ours.ConfusionMatrix(3)
    group = ours.MetricGroup({"matrix": matrix, "iou": ours.IoU(matrix)})
    group.update((torch.eye(3), torch.tensor([0, 1, 2])))
    assert group.compute()["matrix"].tolist() == torch.eye(3).tolist()


def test_scores_that_a_transform_writes_into_are_looked_at_again():
    negated = ours.Accuracy(lambda output: (output[0].neg_(), output[1]))
    seen = attached(
        {"as they are": ours.Accuracy(), "negated": negated},
        [(torch.eye(3), torch.tensor([0, 1, 2]))],
    )
    # In the second epoch they are negated again.
    assert seen == {"as they are": 0.0, "negated": 1.0}


@pytest.mark.parametrize("classes", [2, 4, 50])
@pytest.mark.parametrize("wrong", [-(2**62), -(2**63), 2**62, -1])
def test_targets_far_out_of_range_are_no_class(classes, wrong):
    metric = ours.Recall()
    metric.update((torch.eye(classes), torch.arange(classes)))
    metric.update((torch.eye(classes)[:1], torch.tensor([wrong])))
    with pytest.raises(ValueError, match="1 "):
        metric.compute()


def test_a_metric_on_its_own_again_forgets_what_it_was_shared_for():
    engine = Engine(lambda engine, batch: batch)
    accuracy = ours.Accuracy()
    accuracy.attach(engine, "accuracy")
    ours.ConfusionMatrix(3).attach(engine, "matrix")
    engine.run([(torch.eye(3), torch.arange(3))])
    accuracy.detach(engine)
    accuracy.reset()
    accuracy.update((torch.tensor([1, 0]), torch.tensor([1, 1])))
    assert accuracy.compute() == 0.5


@pytest.mark.parametrize(
    ("y_pred", "y"),
    [
        (torch.tensor([255, 0, 255], dtype=torch.uint8), torch.tensor([1, 0, 1])),
        (torch.tensor([float("inf"), 0.0]), torch.tensor([1, 0])),
        (torch.tensor([[2, 0], [1, 1]]), torch.tensor([[1, 0], [1, 1]])),
        (torch.tensor([[1, 0], [1, 1]]), torch.tensor([[-1, 0], [2, 1]])),
    ],
)
def test_what_is_neither_0_nor_1_is_reported_whatever_its_dtype(y_pred, y):
    metric = ours.Accuracy(is_multilabel=y.ndim == 2)
    metric.update((y_pred, y))
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        metric.compute()
