"""Curves and areas: exact, ties included; scikit-learn and torchmetrics are the oracles."""

import warnings

import ignite.metrics as oracle
import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cookfire.metrics as ours
from cookfire.engine import Engine
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics._ranking import rank

few = settings(max_examples=25, deadline=None)
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64]


@st.composite
def binary(draw):
    """Batches of scores and of both zeros and ones."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    sizes = draw(st.lists(st.integers(0, 9), max_size=2))
    dtype = draw(st.sampled_from(DTYPES))
    scale = draw(st.sampled_from([1.0, 100.0, 1e-20]))
    distinct = draw(st.sampled_from([1, 3, 1000]))
    targets = draw(st.sampled_from([torch.int64, torch.uint8, torch.bool, torch.float32]))
    first = torch.tensor([0, 1, 0, 1])
    batches = []
    for y in [first, *(torch.randint(0, 2, (n,), generator=generator) for n in sizes)]:
        levels = torch.randint(-distinct, distinct, y.shape, generator=generator) / distinct
        batches.append(((levels * scale).to(dtype), y.to(targets)))
    return batches


@st.composite
def of_classes(draw, multilabel):
    """Batches of scores and targets of several classes, each of them there and not."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    classes = draw(st.integers(2, 4))
    distinct = draw(st.sampled_from([3, 1000]))
    every = torch.eye(classes, dtype=torch.int64) if multilabel else torch.arange(classes)
    y = torch.cat([every, every[torch.randint(0, classes, (7,), generator=generator)]])
    scores = torch.randint(0, distinct, (len(y), classes), generator=generator) / distinct
    return list(zip(scores.split(4), y.split(4), strict=True))


def value_of(metric, batches):
    for batch in batches:
        metric.update(batch)
    return metric.compute()


def joined(batches):
    scores, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return scores.double().numpy(), y.long().numpy()


@given(binary())
@few
def test_binary_values_are_scikit_learns(batches):
    scores, y = joined(batches)
    auc, precision = sklearn.metrics.roc_auc_score, sklearn.metrics.average_precision_score
    assert value_of(ours.ROC_AUC(), batches) == pytest.approx(auc(y, scores), abs=1e-12)
    expected = pytest.approx(precision(y, scores), abs=1e-12)
    assert value_of(ours.AveragePrecision(), batches) == expected
    assert value_of(ours.MeanAveragePrecision(), batches) == expected
    columns = [(s.unsqueeze(1), t.unsqueeze(1)) for s, t in batches]
    assert value_of(ours.AveragePrecision(), columns) == expected


@given(binary())
@few
def test_curves_are_scikit_learns(batches):
    scores, y = joined(batches)
    roc = value_of(ours.RocCurve(), batches)
    for value, expected in zip(roc, sklearn.metrics.roc_curve(y, scores), strict=True):
        np.testing.assert_allclose(value, expected)
        assert value.dtype == torch.float64
    curve = value_of(ours.PrecisionRecallCurve(), batches)
    for value, expected in zip(
        curve, sklearn.metrics.precision_recall_curve(y, scores), strict=True
    ):
        np.testing.assert_allclose(value, expected)


@given(of_classes(multilabel=True))
@few
def test_multilabel_averages_are_scikit_learns(batches):
    scores, y = joined(batches)
    for average in (None, "macro", "micro", "weighted"):
        for metric, function in (
            (ours.ROC_AUC(average=average), sklearn.metrics.roc_auc_score),
            (ours.AveragePrecision(average=average), sklearn.metrics.average_precision_score),
        ):
            expected = function(y, scores, average=average)
            np.testing.assert_allclose(value_of(metric, batches), expected, atol=1e-12)


@given(of_classes(multilabel=False))
@few
def test_each_class_is_ranked_against_the_rest(batches):
    scores, y = joined(batches)
    classes = np.arange(scores.shape[1])
    onehot = (y[:, None] == classes).astype(int)
    for average in (None, "macro", "micro", "weighted"):
        for metric, function in (
            (ours.ROC_AUC(average=average), sklearn.metrics.roc_auc_score),
            (ours.AveragePrecision(average=average), sklearn.metrics.average_precision_score),
        ):
            expected = function(onehot, scores, average=average)
            np.testing.assert_allclose(value_of(metric, batches), expected, atol=1e-12)


@given(of_classes(multilabel=False), of_classes(multilabel=True), st.booleans())
@few
def test_mean_average_precision_agrees_with_ignite(multiclass, multilabel, at_recalls):
    recalls = [0.0, 0.75, 0.25, 1.0] if at_recalls else None
    for batches, is_multilabel in ((multiclass, False), (multilabel, True)):
        deep = [(s.unsqueeze(2).repeat(1, 1, 2), torch.stack([y, y], -1)) for s, y in batches]
        for mean in (None, "macro", "micro", "weighted"):
            for data in (batches, deep):
                kwargs = {"class_mean": mean, "is_multilabel": is_multilabel}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of torch, about how ignite gathers
                    expected = value_of(oracle.MeanAveragePrecision(recalls, **kwargs), data)
                value = value_of(ours.MeanAveragePrecision(recalls, **kwargs), data)
                np.testing.assert_allclose(value, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_scores_are_ranked_as_few_are(dtype):
    # Above some thousands the sort is another one.
    generator = torch.Generator().manual_seed(0)
    scores = (100 * torch.randn(40_000, generator=generator)).to(dtype)
    y = torch.randint(0, 2, (40_000,), generator=generator)
    for values in (scores, scores / 1000 if dtype.is_floating_point else scores):
        ranked = rank(values, y)
        below = torch.searchsorted(values.sort().values, ranked.thresholds().to(dtype))
        assert torch.equal(ranked.predicted, 40_000 - below)
        expected = sklearn.metrics.roc_auc_score(y, values.double())
        metric = ours.ROC_AUC()
        metric.update((values, y))
        assert metric.compute() == pytest.approx(expected, abs=1e-12)


def test_zeros_of_either_sign_and_infinities_are_scores():
    scores = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 1.0])
    y = torch.tensor([0, 1, 1, 0, 0])
    metric = ours.ROC_AUC()
    metric.update((scores, y))
    finite = scores.clamp(-9, 9)
    assert metric.compute() == pytest.approx(sklearn.metrics.roc_auc_score(y, finite))


def test_what_there_is_none_of_is_nan_or_zero():
    scores = torch.tensor([0.1, 0.2, 0.3])
    for y in (torch.zeros(3), torch.ones(3)):
        assert np.isnan(value_of(ours.ROC_AUC(), [(scores, y)]))
    assert value_of(ours.AveragePrecision(), [(scores, torch.zeros(3))]) == 0.0
    assert value_of(ours.AveragePrecision(), [(scores, torch.ones(3))]) == 1.0
    false, true, _ = value_of(ours.RocCurve(), [(scores, torch.ones(3))])
    assert false.isnan().all()
    assert true[-1] == 1
    precision, recall, _ = value_of(ours.PrecisionRecallCurve(), [(scores, torch.zeros(3))])
    assert recall.tolist() == [1, 1, 1, 0]
    assert precision.tolist() == [0, 0, 0, 1]
    one = value_of(ours.AveragePrecision(), [(torch.tensor([0.5]), torch.tensor([1]))])
    assert one == 1.0
    multiclass = torch.rand(5, 3), torch.tensor([0, 1, 0, 1, 1])
    areas = value_of(ours.ROC_AUC(average=None), [multiclass])
    assert areas.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("multilabel", [False, True])
def test_ignored_targets_are_as_if_they_were_not_there(multilabel):
    torch.manual_seed(0)
    scores, y = torch.rand(40, 3), torch.randint(0, 3, (40,))
    kept = torch.rand(40) > 0.3
    if multilabel:
        y = torch.randint(0, 2, (40, 3))
        kept = kept.unsqueeze(1).expand(-1, 3)
    hidden = y.masked_fill(~kept, 255)
    rows = kept[:, 0] if multilabel else kept
    for make in (ours.ROC_AUC, ours.AveragePrecision):
        value = value_of(make(ignore_index=255), [(scores, hidden)])
        assert value == pytest.approx(value_of(make(), [(scores[rows], y[rows])]))
    with pytest.raises(NotComputableError, match="all targets of some class are ignore_index=7"):
        value_of(ours.ROC_AUC(ignore_index=7), [(torch.rand(2), torch.tensor([7, 7]))])


def test_wrong_input_is_reported():
    scores, y = torch.rand(4), torch.tensor([0, 1, 1, 0])
    for make in (ours.ROC_AUC, ours.RocCurve, ours.PrecisionRecallCurve, ours.AveragePrecision):
        with pytest.raises(ValueError, match="1 targets are not 0 or 1; leave them out"):
            value_of(make(), [(scores, torch.tensor([0, 1, 2, 0]))])
        with pytest.raises(ValueError, match="some scores are nan"):
            value_of(make(), [(torch.tensor([0.1, torch.nan, 0.2, 0.3]), y)])
        with pytest.raises(ValueError, match="expected scores"):
            make().update((torch.rand(4, 2, 2), y))
        with pytest.raises(NotComputableError):
            make().compute()
    with pytest.raises(ValueError, match="2 targets are not from 0 to 2, the classes"):
        value_of(ours.ROC_AUC(), [(torch.rand(4, 3), torch.tensor([0, 3, -1, 2]))])
    with pytest.raises(ValueError, match="RocCurve is of one class, got scores of 3: choose one"):
        value_of(ours.RocCurve(), [(torch.rand(4, 3), y)])
    for make in (ours.ROC_AUC, ours.AveragePrecision):
        with pytest.raises(ValueError, match="average must be one of None, 'macro'"):
            make(average="samples")
    with pytest.raises(ValueError, match="class_mean must be one of"):
        ours.MeanAveragePrecision(class_mean="mean")
    for wrong in ([0.5, 1.5], [], torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="rec_thresholds must be recalls from 0 to 1"):
            ours.MeanAveragePrecision(rec_thresholds=wrong)


def test_metrics_of_an_engine_keep_scores_once_and_sort_them_once(monkeypatch):
    sorts = []
    monkeypatch.setattr(
        "cookfire.metrics._ranking.rank", lambda *pair: sorts.append(1) or rank(*pair)
    )
    engine = Engine(lambda engine, batch: batch)
    data = [(torch.rand(5), torch.tensor([0, 1, 1, 0, 1])) for _ in range(3)]
    metrics = {
        "auc": ours.ROC_AUC(),
        "ap": ours.AveragePrecision(),
        "roc": ours.RocCurve(),
        "curve": ours.PrecisionRecallCurve(),
    }
    for name, metric in metrics.items():
        metric.attach(engine, name)
    engine.run(data)
    assert len(sorts) == 1
    assert len({metric._store for metric in metrics.values()}) == 1
    scores, y = joined(data)
    assert engine.state.metrics["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(y, scores))


def test_a_class_without_positives_has_no_say_in_a_weighted_mean():
    scores, y = torch.rand(40, 3), torch.arange(40) % 2 + 1
    metrics = [ours.ROC_AUC(average=average) for average in ("weighted", None)]
    for metric in metrics:
        metric.update((scores, y))
    weighted, each = (metric.compute() for metric in metrics)
    assert each[0].isnan()
    assert weighted == pytest.approx(each[1:].mean().item())  # 20 positives each
