import warnings

import ignite.metrics as oracle
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import cookfire.metrics as ours
from cookfire.engine.exceptions import NotComputableError

few = settings(max_examples=25, deadline=None)


@given(
    st.integers(0, 2**31),
    st.sampled_from([None, (), (3,), (2, 3), (4, 2, 3)]),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64]),
)
@few
def test_averages_agree_with_ignite(seed, shape, dtype):
    torch.manual_seed(seed)
    values = [(torch.rand(shape or ()) * 8 + 1).to(dtype) for _ in range(3)]
    inputs = [value.item() for value in values] if shape is None else values
    for name in ("Average", "GeometricAverage"):
        mine, theirs = getattr(ours, name)(), getattr(oracle, name)()
        for x in inputs:
            mine.update(x)
            theirs.update(x)
        expected = torch.as_tensor(theirs.compute(), dtype=torch.float64)
        value = torch.as_tensor(mine.compute(), dtype=torch.float64)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


def test_a_variable_is_accumulated_by_any_operation():
    metric = ours.VariableAccumulation(lambda total, x: total + x**2)
    for x in (1.0, torch.tensor(2.0), torch.tensor([3.0])):
        metric.update(x)
    total, count = metric.compute()
    assert (total.tolist(), count) == ([14.0], 3)
    assert metric.accumulator.dtype == torch.float64
    assert int(metric.num_examples) == 3
    with pytest.raises(TypeError, match="op must be callable"):
        ours.VariableAccumulation(3)
    with pytest.raises(TypeError, match="Average takes a number or a tensor, got 'a'"):
        ours.Average().update("a")


def test_a_loss_is_averaged_over_examples_exactly():
    torch.manual_seed(0)
    batches = [(torch.randn(n, 5), torch.randint(0, 5, (n,))) for n in (7, 1, 12)]
    metric = ours.Loss(cross_entropy)
    for batch in batches:
        metric.update(batch)
    scores, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    exact = cross_entropy(scores.double(), y).item()
    assert metric.compute() == pytest.approx(exact, rel=1e-6)
    assert type(metric.compute()) is float
    metric.reset()
    for _ in range(3):
        metric.update((scores, y, {"label_smoothing": 0.1}))
    assert metric.compute() == pytest.approx(
        cross_entropy(scores, y, label_smoothing=0.1).item(), rel=1e-6
    )


def test_a_sum_of_many_small_losses_does_not_stall():
    metric = ours.Loss(lambda y_pred, y: y_pred.mean(), batch_size=lambda y: 1)
    metric.accumulate(total=float(2**24), count=2**24)
    for _ in range(1000):
        metric.update((torch.tensor([0.5]), None))
    assert metric.compute() == (2**24 + 500) / (2**24 + 1000)


def test_a_loss_that_is_no_mean_is_refused():
    metric = ours.Loss(lambda y_pred, y: y_pred - y)
    with pytest.raises(ValueError, match=r"must return the mean over the batch.* \(3,\)"):
        metric.update((torch.zeros(3), torch.zeros(3)))


def test_a_function_of_the_whole_history():
    torch.manual_seed(0)
    batches = [(torch.rand(n), torch.randint(0, 2, (n, 1))) for n in (7, 1, 12)]
    metric = ours.EpochMetric(
        lambda y_pred, y: sklearn.metrics.roc_auc_score(y, y_pred), check_compute_fn=False
    )
    with pytest.raises(NotComputableError):
        metric.compute()
    for batch in batches:
        metric.update(batch)
    scores, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert metric.compute() == sklearn.metrics.roc_auc_score(y, scores)


def test_a_function_that_fails_on_the_first_batch_is_warned_of():
    def broken(y_pred, y):
        raise ZeroDivisionError("no")

    metric = ours.EpochMetric(broken)
    with pytest.warns(
        ours.EpochMetricWarning, match="failed on the first batch: ZeroDivisionError"
    ):
        metric.update((torch.zeros(2), torch.zeros(2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update((torch.zeros(2), torch.zeros(2)))
    with pytest.raises(ZeroDivisionError):
        metric.compute()


def test_a_history_takes_all_of_an_update_or_nothing():
    metric = ours.EpochMetric(lambda y_pred, y: len(y_pred) - len(y), check_compute_fn=False)
    metric.update((torch.zeros(2), torch.zeros(2)))
    with pytest.raises(ValueError, match="the state 'targets' holds rows of torch.float32"):
        metric.update((torch.zeros(2), torch.zeros(2, dtype=torch.int64)))
    assert metric.compute() == 0
    with pytest.raises(ValueError, match=r"y_pred must have the shape .* got \(2, 3, 4\)"):
        metric.update((torch.zeros(2, 3, 4), torch.zeros(2)))
    with pytest.raises(TypeError, match="compute_fn must be callable"):
        ours.EpochMetric(3)
