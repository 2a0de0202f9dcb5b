"""Entropies, divergences and kernel statistics, against pytorch-ignite and SciPy."""

from __future__ import annotations

import ignite.metrics as oracle
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cookfire.engine import Engine
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import (
    HSIC,
    Entropy,
    JSDivergence,
    KLDivergence,
    MaximumMeanDiscrepancy,
    MutualInformation,
)

few = settings(max_examples=15, deadline=None)
DISTRIBUTIONS = {
    "Entropy": Entropy,
    "KLDivergence": KLDivergence,
    "JSDivergence": JSDivergence,
    "MutualInformation": MutualInformation,
}
KERNELS = {"MaximumMeanDiscrepancy": MaximumMeanDiscrepancy, "HSIC": HSIC}


@st.composite
def pairs(draw, tails=((), (3,), (2, 3)), smallest=1):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    width, tail = draw(st.integers(1, 6)), draw(st.sampled_from(tails))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    batches = []
    for size in draw(st.lists(st.integers(smallest, 9), min_size=1, max_size=3)):
        shape = (size, width, *tail)
        batch = [3 * torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2)]
        if draw(st.booleans()):
            batch = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in batch]
        batches.append(tuple(batch))
    return batches


def value_of(metric, batches):
    metric.reset()
    for batch in batches:
        metric.update(batch)
    return metric.compute()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@given(data=pairs())
@few
def test_distribution_metrics_agree_with_ignite(name, data):
    expected = value_of(getattr(oracle, name)(), data)
    value = value_of(DISTRIBUTIONS[name](), data)
    assert type(value) is float
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(data=pairs(tails=((),)))
@few
def test_distribution_metrics_agree_with_scipy(data):
    q, p = (torch.cat([batch[i] for batch in data]).double().softmax(1).numpy() for i in (0, 1))
    near = {"rel": 1e-5, "abs": 1e-6}
    entropies = scipy.stats.entropy(q, axis=1)
    assert value_of(Entropy(), data) == pytest.approx(entropies.mean(), **near)
    assert value_of(KLDivergence(), data) == pytest.approx(
        scipy.stats.entropy(p, q, axis=1).mean(), **near
    )
    middle = (p + q) / 2
    both = [scipy.stats.entropy(x, middle, axis=1).mean() / 2 for x in (p, q)]
    assert value_of(JSDivergence(), data) == pytest.approx(sum(both), **near)
    assert value_of(MutualInformation(), data) == pytest.approx(
        scipy.stats.entropy(q.mean(0)) - entropies.mean(), **near
    )


def test_a_probability_of_zero_adds_nothing():
    sure = torch.tensor([[0.0, -torch.inf]])
    even = torch.zeros(1, 2)
    assert value_of(Entropy(), [(sure, None)]) == 0.0
    assert value_of(MutualInformation(), [(sure, None)]) == 0.0
    assert value_of(MutualInformation(), [(sure, None), (sure.flip(1), None)]) == pytest.approx(
        np.log(2)
    )
    assert value_of(KLDivergence(), [(even, sure)]) == pytest.approx(np.log(2))
    assert value_of(KLDivergence(), [(sure, even)]) == np.inf
    assert value_of(KLDivergence(), [(sure, sure)]) == 0.0
    assert value_of(JSDivergence(), [(sure, sure.flip(1))]) == pytest.approx(np.log(2))
    assert value_of(JSDivergence(), [(sure, sure)]) == 0.0


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_of_half_precision_empty_batches_and_wrong_shapes(name):
    make = DISTRIBUTIONS[name]
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    half = value_of(make(), [(x.half(), y.half())])
    assert half == pytest.approx(value_of(make(), [(x.half().double(), y.half().double())]), 1e-4)
    metric = make()
    metric.update((x[:0], y[:0]))
    with pytest.raises(NotComputableError):
        metric.compute()
    metric.update((x, y))
    assert metric.compute() == value_of(make(), [(x, y)])
    with pytest.raises(ValueError, match=rf"{name}: expected logits \(batch, classes, ...\), got"):
        make().update((x[0], y[0]))
    with pytest.raises(TypeError, match=f"{name}: .* must hold real numbers"):
        make().update((x > 0, y > 0))


def test_divergences_need_equal_shapes():
    with pytest.raises(ValueError, match=r"KLDivergence: .* got \(2, 3\) and \(2, 4\)"):
        KLDivergence().update((torch.zeros(2, 3), torch.zeros(2, 4)))


def test_an_engines_metrics_work_out_the_probabilities_once(monkeypatch):
    calls = []
    softmax = torch.Tensor.log_softmax
    monkeypatch.setattr(
        torch.Tensor, "log_softmax", lambda self, dim: calls.append(dim) or softmax(self, dim)
    )
    engine = Engine(lambda engine, batch: batch)
    for name, make in DISTRIBUTIONS.items():
        make().attach(engine, name)
    engine.run([(torch.randn(3, 4), torch.randn(3, 4))])
    assert calls == [1, 1]  # of y_pred and of y


@given(data=pairs(smallest=2))
@few
def test_the_discrepancy_agrees_with_ignite(data):
    for var in (1.0, 4.0):
        expected = value_of(oracle.MaximumMeanDiscrepancy(var=var), data)
        value = value_of(MaximumMeanDiscrepancy(var=var), data)
        assert value**2 == pytest.approx(expected**2, rel=1e-3, abs=2e-6)


@given(data=pairs(smallest=4))
@few
def test_the_independence_criterion_agrees_with_ignite(data):
    for sigmas in ({}, {"sigma_x": 1.5, "sigma_y": 0.7}):
        try:
            expected = value_of(oracle.HSIC(**sigmas), [(x.double(), y.double()) for x, y in data])
        except RuntimeError:  # ignite mixes dtypes of its mask
            expected = value_of(oracle.HSIC(**sigmas), [(x.float(), y.float()) for x, y in data])
        assert value_of(HSIC(**sigmas), data) == pytest.approx(expected, rel=1e-3, abs=2e-6)


def test_kernels_of_samples_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 20, 3, generator=generator).round(decimals=2)
    far = [(x + 4096, y + 4096)]
    for make in KERNELS.values():
        expected = value_of(make(), [(x.double(), y.double())])
        assert value_of(make(), far) == pytest.approx(expected, abs=2e-3)


def test_batches_that_are_too_small_are_left_out_or_refused():
    x = torch.randn(5, 2)
    metric = MaximumMeanDiscrepancy()
    metric.update((x[:1], x[:1]))
    with pytest.raises(NotComputableError):
        metric.compute()
    metric.update((x, x + 1))
    assert metric.compute() == value_of(MaximumMeanDiscrepancy(), [(x, x + 1)])
    metric = HSIC()
    metric.update((x[:3], x[:3]))
    with pytest.raises(NotComputableError):
        metric.compute()
    with pytest.raises(ValueError, match="HSIC needs at least 4 samples a batch, got 3"):
        HSIC(ignore_invalid_batch=False).update((x[:3], x[:3]))


def test_kernels_of_equal_samples_are_finite():
    same = torch.ones(6, 2)
    assert value_of(MaximumMeanDiscrepancy(), [(same, same)]) == 0.0
    assert value_of(HSIC(), [(same, torch.randn(6, 2))]) == pytest.approx(0.0, abs=1e-6)


def test_what_is_wrong_with_samples_is_said():
    for name, make in KERNELS.items():
        for x, y in (((4,), (4,)), ((4, 2), (5, 2)), ((), (4, 2))):
            with pytest.raises(ValueError, match=f"{name}: expected .* of the shapes"):
                make().update((torch.zeros(x), torch.zeros(y)))
    with pytest.raises(ValueError, match=r"x and y must have one shape, got \(4, 2\) and \(4, 3\)"):
        MaximumMeanDiscrepancy().update((torch.zeros(4, 2), torch.zeros(4, 3)))
    with pytest.raises(ValueError, match="var must be positive, got 0"):
        MaximumMeanDiscrepancy(var=0)
    with pytest.raises(ValueError, match="sigma_y must be positive, or negative"):
        HSIC(sigma_y=0)
