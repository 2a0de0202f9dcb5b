"""Metrics of predicted numbers, against pytorch-ignite, scikit-learn and SciPy."""

from __future__ import annotations

import ignite.metrics as oracle
import ignite.metrics.regression as regression_oracle
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cookfire.metrics as ours
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import regression
from cookfire.metrics._moments import central_moments, combine_moments
from cookfire.metrics.regression._ranks import _count_inversions

few = settings(max_examples=20, deadline=None)

COLUMN = {name: getattr(regression, name) for name in regression.__all__}
WHOLE = {
    "MeanAbsoluteError": ours.MeanAbsoluteError,
    "MeanSquaredError": ours.MeanSquaredError,
    "RootMeanSquaredError": ours.RootMeanSquaredError,
}
RELATIVE = ("MeanAbsoluteRelativeError", "MeanNormalizedBias", "MedianAbsolutePercentageError")


def their(name):
    return getattr(regression_oracle, name, None) or getattr(oracle, name)


@st.composite
def batches(draw, tails=((), (1,)), dtypes=(torch.float32, torch.float64)):
    """Batches of positive numbers; shapes and dtypes of both are equal."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tail, dtype = draw(st.sampled_from(tails)), draw(st.sampled_from(dtypes))
    levels = draw(st.sampled_from([4, 1000]))  # few levels make ties
    made = []
    for size in draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)):
        shape = (size, *tail)
        y, noise = (torch.randint(1, levels, shape, generator=generator) for _ in range(2))
        y_pred, y = (y + noise).to(dtype) / 4, y.to(dtype)
        if draw(st.booleans()):
            y_pred = torch.stack([y_pred, y], dim=-1)[..., 0]  # not contiguous
        made.append((y_pred, y))
    return made


def value_of(metric, data):
    metric.reset()
    for batch in data:
        metric.update(batch)
    return metric.compute()


def agree(mine, theirs, data, rtol=1e-5):
    value, expected = value_of(mine, data), value_of(theirs, data)
    assert type(value) is float
    assert value == pytest.approx(float(expected), rel=rtol, abs=1e-7, nan_ok=True)


UNLIKE_IGNITE = (
    "R2Score",  # constant targets
    "KendallRankCorrelation",  # SciPy itself is asked below
    "SpearmanRankCorrelation",
    "GeometricMeanRelativeAbsoluteError",  # ignite multiplies in float32
)


@pytest.mark.parametrize("name", [name for name in COLUMN if name not in UNLIKE_IGNITE])
@given(data=batches())
@few
def test_column_metrics_agree_with_ignite(name, data):
    agree(COLUMN[name](), their(name)(), data, rtol=1e-4)


@pytest.mark.parametrize("name", WHOLE)
@given(data=batches(tails=((), (1,), (3,), (2, 3))))
@few
def test_mean_errors_of_any_shape_agree_with_ignite(name, data):
    agree(WHOLE[name](), their(name)(), data)


@given(data=batches(tails=((3,), (5,))), p=st.sampled_from([1, 2, 3]))
@few
def test_vector_metrics_agree_with_ignite(data, p):
    agree(ours.MeanPairwiseDistance(p=p), oracle.MeanPairwiseDistance(p=p), data)
    agree(ours.CosineSimilarity(), oracle.CosineSimilarity(), data)


def joined(data):
    return [torch.cat([batch[i].flatten() for batch in data]).double().numpy() for i in (0, 1)]


@given(data=batches())
@few
def test_metrics_agree_with_scikit_learn_and_numpy(data):
    y_pred, y = joined(data)
    assert value_of(ours.MeanAbsoluteError(), data) == pytest.approx(
        sklearn.metrics.mean_absolute_error(y, y_pred), rel=1e-6
    )
    assert value_of(ours.RootMeanSquaredError(), data) == pytest.approx(
        sklearn.metrics.root_mean_squared_error(y, y_pred), rel=1e-6
    )
    if len(y) > 1:
        assert value_of(regression.R2Score(), data) == pytest.approx(
            sklearn.metrics.r2_score(y, y_pred), rel=1e-6, abs=1e-6
        )
    assert value_of(regression.MedianAbsoluteError(), data) == pytest.approx(
        sklearn.metrics.median_absolute_error(y, y_pred), rel=1e-6
    )
    assert value_of(regression.MaximumAbsoluteError(), data) == sklearn.metrics.max_error(y, y_pred)
    assert value_of(regression.CanberraMetric(), data) == pytest.approx(
        float(scipy.spatial.distance.canberra(y, y_pred)), rel=1e-6
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.log(np.abs(y - y_pred)) - np.log(np.abs(y - y.mean()))
        expected = np.exp(relative.mean())
    assert value_of(regression.GeometricMeanRelativeAbsoluteError(), data) == pytest.approx(
        expected, rel=1e-5, nan_ok=True
    )


@given(data=batches())
@few
def test_correlations_agree_with_scipy(data):
    y_pred, y = joined(data)
    constant = np.ptp(y) == 0 or np.ptp(y_pred) == 0
    made = {
        "pearson": regression.PearsonCorrelation(),
        "spearman": regression.SpearmanRankCorrelation(),
        "b": regression.KendallRankCorrelation(),
        "c": regression.KendallRankCorrelation(variant="c"),
    }
    values = {name: value_of(metric, data) for name, metric in made.items()}
    if constant:
        assert values.pop("pearson") == 0.0
        assert all(np.isnan(value) for value in values.values())
        return
    expected = {
        "pearson": scipy.stats.pearsonr(y_pred, y).statistic if len(y) > 1 else 0,
        "spearman": scipy.stats.spearmanr(y_pred, y).statistic,
        "b": scipy.stats.kendalltau(y_pred, y, variant="b").statistic,
        "c": scipy.stats.kendalltau(y_pred, y, variant="c").statistic,
    }
    for name, value in values.items():
        assert value == pytest.approx(expected[name], rel=1e-6, abs=1e-6), name


@given(st.lists(st.integers(0, 70), min_size=1, max_size=150))
@few
def test_inversions_are_counted_as_by_two_loops(numbers):
    _, ranks, counts = torch.unique(torch.tensor(numbers), return_inverse=True, return_counts=True)
    expected = sum(a > b for i, a in enumerate(numbers) for b in numbers[i + 1 :])
    assert int(_count_inversions(ranks, counts)) == expected


def test_ranks_of_many_examples_agree_with_scipy():
    generator = np.random.default_rng(0)
    y = generator.normal(size=20_000).round(3)
    y_pred = (y + generator.normal(size=20_000)).round(2)
    data = [(torch.from_numpy(y_pred), torch.from_numpy(y))]
    tau = value_of(regression.KendallRankCorrelation(), data)
    assert tau == pytest.approx(scipy.stats.kendalltau(y_pred, y).statistic, rel=1e-12)
    rho = value_of(regression.SpearmanRankCorrelation(), data)
    assert rho == pytest.approx(scipy.stats.spearmanr(y_pred, y).statistic, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_that_is_large_costs_no_digits(dtype):
    generator = torch.Generator().manual_seed(0)
    mean = 1e5 if dtype == torch.float32 else 1e9
    y = (torch.randn(4000, generator=generator, dtype=torch.float64) + mean).to(dtype)
    y_pred = (y.double() + 0.5 * torch.randn(4000, generator=generator)).to(dtype)
    data = list(zip(y_pred.split(100), y.split(100), strict=True))
    exact, right = y_pred.double().numpy() - mean, y.double().numpy() - mean
    r2 = value_of(regression.R2Score(), data)
    assert r2 == pytest.approx(sklearn.metrics.r2_score(right, exact), abs=1e-6)
    correlation = value_of(regression.PearsonCorrelation(), data)
    assert correlation == pytest.approx(scipy.stats.pearsonr(exact, right).statistic, abs=1e-6)


@given(st.integers(0, 2**31), st.lists(st.integers(1, 6), min_size=1, max_size=5))
@few
def test_moments_of_parts_are_those_of_the_whole(seed, sizes):
    generator = np.random.default_rng(seed)
    rows, values = [], []
    for size in sizes:
        part = generator.normal(loc=1e6 * generator.normal(), size=(2, size))
        shifts = part[:, :1]
        centred = part - shifts
        row = [[size], shifts[:, 0], centred.sum(1), (centred @ centred.T).flatten()]
        rows.append(torch.from_numpy(np.concatenate(row)))
        values.append(part)
    whole = np.concatenate(values, axis=1)
    number, means, products = central_moments(combine_moments(torch.stack(rows)))
    assert int(number) == whole.shape[1]
    np.testing.assert_allclose(means, whole.mean(1), rtol=1e-12)
    deviations = whole - whole.mean(1, keepdims=True)
    np.testing.assert_allclose(products, deviations @ deviations.T, rtol=1e-8, atol=1e-4)


@pytest.mark.parametrize("name", [*COLUMN, *WHOLE, "MeanPairwiseDistance", "CosineSimilarity"])
def test_an_empty_batch_adds_nothing_and_alone_can_not_be_computed(name):
    make = COLUMN.get(name) or getattr(ours, name)
    shape = (0, 3) if name in ("MeanPairwiseDistance", "CosineSimilarity") else (0,)
    empty = torch.zeros(shape), torch.zeros(shape)
    batch = torch.rand(6, *shape[1:]) + 1, torch.rand(6, *shape[1:]) + 1
    metric = make()
    with pytest.raises(NotComputableError, match=name):
        metric.compute()
    metric.update(empty)
    with pytest.raises(NotComputableError, match=name):
        metric.compute()
    metric.update(batch)
    metric.update(empty)
    assert metric.compute() == value_of(make(), [batch])


@pytest.mark.parametrize("name", [*COLUMN, *WHOLE])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.uint8])
def test_other_dtypes_are_calculated_in_a_precise_one(name, dtype):
    make = COLUMN.get(name) or WHOLE[name]
    y_pred, y = (torch.tensor(x).to(dtype) for x in ([200, 3, 90, 17], [100, 5, 255, 16]))
    expected = value_of(make(), [(y_pred.double(), y.double())])
    assert value_of(make(), [(y_pred, y)]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", [*COLUMN, *WHOLE])
def test_what_is_no_number_is_refused(name):
    make = COLUMN.get(name) or WHOLE[name]
    for wrong in (torch.tensor([True, False]), torch.tensor([1j, 2j])):
        with pytest.raises(TypeError, match=f"{name}: y.* must hold real numbers, got torch"):
            make().update((wrong, wrong))


@pytest.mark.parametrize("name", COLUMN)
def test_a_column_is_asked_for(name):
    for y_pred, y in (((2, 2), (2, 2)), ((2,), (2, 2)), ((), ()), ((2, 1, 1), (2,))):
        with pytest.raises(ValueError, match=f"{name}: expected y_pred and y of the shape"):
            COLUMN[name]().update((torch.ones(y_pred), torch.ones(y)))
    with pytest.raises(ValueError, match=rf"{name}: (expected|got) .*2.*3"):
        COLUMN[name]().update((torch.ones(2), torch.ones(3)))
    column = torch.tensor([[1.0], [2.5], [2.0]])
    values = [
        value_of(COLUMN[name](), [pair])
        for pair in ((column, column * 2), (column[:, 0], column * 2), (column, column[:, 0] * 2))
    ]
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("name", WHOLE)
def test_shapes_must_agree_but_for_sizes_of_one(name):
    for y_pred, y in (((2, 3), (3, 2)), ((2, 2, 3), (2, 3, 2)), ((), ()), ((4,), ())):
        with pytest.raises(ValueError, match=f"{name}: expected y_pred and y of one shape"):
            WHOLE[name]().update((torch.ones(y_pred), torch.ones(y)))
    assert value_of(WHOLE[name](), [(torch.ones(3, 1), torch.ones(3))]) == 0.0


def test_vectors_are_asked_for():
    for metric in (ours.MeanPairwiseDistance(), ours.CosineSimilarity()):
        with pytest.raises(ValueError, match=r"expected vectors \(batch, features\), got \(3,\)"):
            metric.update((torch.ones(3), torch.ones(3)))


def test_a_ratio_of_zeros_counts_nothing():
    zeros = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 3.0])
    for name, expected in (
        ("CanberraMetric", 0.5),
        ("WaveHedgesDistance", 2 / 3),
        ("FractionalAbsoluteError", 0.5),
        ("FractionalBias", 0.5),
    ):
        assert value_of(COLUMN[name](), [zeros]) == pytest.approx(expected)


def test_targets_of_zero_are_told_when_it_is_computed():
    for name in ("MeanAbsoluteRelativeError", "MeanNormalizedBias"):
        metric = COLUMN[name]()
        metric.update((torch.ones(3), torch.tensor([0.0, 1.0, 0.0])))
        with pytest.raises(NotComputableError, match=f"{name}: 2 targets are 0"):
            metric.compute()


def test_constant_targets_have_no_infinite_score():
    for constant in (0.1, 3e5):
        y = torch.full((7,), constant)
        assert value_of(regression.R2Score(), [(y, y), (y[:3], y[:3])]) == 1.0
        assert value_of(regression.R2Score(), [(y + 1, y), (y[:3], y[:3])]) == 0.0
        assert value_of(regression.PearsonCorrelation(), [(y + torch.rand(7), y)]) == 0.0


def test_rank_correlations_of_nan_are_nan():
    data = [(torch.tensor([1.0, torch.nan, 3.0]), torch.tensor([1.0, 2.0, 3.0]))]
    for name in ("KendallRankCorrelation", "SpearmanRankCorrelation"):
        assert np.isnan(value_of(COLUMN[name](), data))
    with pytest.raises(ValueError, match="variant must be 'b' or 'c', got 'a'"):
        regression.KendallRankCorrelation(variant="a")
