import copy
import pickle

import pytest
import torch

from cookfire.engine import Engine
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import (
    Accuracy,
    Average,
    ConfusionMatrix,
    ExternalMetric,
    Fbeta,
    Loss,
    Metric,
    MetricGroup,
    MetricsLambda,
    MetricState,
    Precision,
    Recall,
    mIoU,
)


class Statistics(Metric):
    """Every reduction once."""

    total = MetricState(torch.float64)
    count = MetricState(torch.int64)
    smallest = MetricState(torch.float64, reduction="min")
    largest = MetricState(torch.int64, reduction="max")
    per_column = MetricState(torch.float64, shape=None)
    rows = MetricState(reduction="cat")

    def update(self, output):
        self.accumulate(
            total=output.sum(),
            count=len(output),
            smallest=output.min(),
            largest=output.max().long(),
            per_column=output.sum(0),
            rows=output,
        )

    def compute(self):
        return {
            "mean": self.total / self.count,
            "smallest": self.smallest,
            "largest": self.largest,
            "per_column": self.per_column,
            "rows": self.rows,
        }


def test_a_state_accumulates_by_its_reduction():
    metric = Statistics()
    batches = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -4.0], [5.0, 6.0]])]
    for batch in batches:
        metric.update(batch)
    value = metric.compute()
    assert value["mean"] == 13 / 3
    assert value["smallest"] == -4.0
    assert value["largest"] == 6
    assert value["per_column"].tolist() == [9.0, 4.0]
    assert value["per_column"].dtype == torch.float64
    assert torch.equal(value["rows"], torch.cat(batches))
    metric.reset()
    metric.update(batches[0])
    assert metric.compute()["mean"] == 3.0


def test_scalars_are_python_numbers_and_tensors_are_on_the_cpu():
    metric = Accuracy()
    metric.update((torch.eye(3), torch.arange(3)))
    assert type(metric.compute()) is float
    assert type(Statistics.compute) is type(lambda: None)


def test_computing_before_an_update_says_so():
    for metric in (Accuracy(), Precision(), Statistics(), ConfusionMatrix(2), Average()):
        with pytest.raises(NotComputableError, match=f"{type(metric).__name__} can't be computed"):
            metric.compute()
    with pytest.raises(NotComputableError):
        Fbeta(1.0).compute()


def test_an_update_without_examples_is_not_computable():
    empty = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    for metric in (
        Accuracy(),
        Precision(average=True),
        Recall(),
        ConfusionMatrix(3),
        Loss(lambda y_pred, y: torch.tensor(0.0)),
    ):
        metric.update(empty)
        with pytest.raises(NotComputableError):
            metric.compute()
        metric.update((torch.eye(3), torch.arange(3)))
        metric.compute()


def test_a_count_beyond_float32_is_exact():
    metric = Accuracy()
    metric.update((torch.eye(2), torch.arange(2)))
    for _ in range(2):
        metric.accumulate(correct=torch.tensor(2**31), count=2**31 + 1)
    assert metric.compute() == (2 + 2**32) / (4 + 2**32)


def test_a_state_refuses_what_does_not_fit():
    metric = Statistics()
    with pytest.raises(KeyError, match="declares no state 'totl'; it has total, count"):
        metric.accumulate(totl=1.0)
    with pytest.raises(TypeError, match=r"'count' holds torch.int64, got torch.float32"):
        metric.accumulate(count=torch.tensor(1.5))
    with pytest.raises(TypeError, match=r"'count' holds torch.int64"):
        metric.accumulate(count=1.5)
    with pytest.raises(ValueError, match=r"'total' has the shape \(\), got \(2,\)"):
        metric.accumulate(total=torch.zeros(2))
    metric.accumulate(total=torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"'total' has the shape \(\), got \(2,\)"):
        metric.accumulate(total=torch.zeros(2))
    metric.accumulate(per_column=torch.zeros(2))
    with pytest.raises(ValueError, match=r"has the shape \(2,\), got \(3,\)"):
        metric.accumulate(per_column=torch.zeros(3))
    metric.accumulate(rows=torch.zeros(1, 2))
    with pytest.raises(ValueError, match="holds rows of"):
        metric.accumulate(rows=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="unknown reduction 'product'"):
        MetricState(torch.float32, reduction="product")
    with pytest.raises(TypeError, match="needs a dtype"):
        MetricState(reduction="sum")


def test_nothing_is_kept_of_an_update_that_fails_halfway():
    metric = Statistics()
    with pytest.raises(TypeError):
        metric.accumulate(total=1.0, count=torch.tensor(0.5))
    assert metric.total == 0


def test_state_is_detached_and_a_history_is_copied():
    metric = Statistics()
    batch = torch.ones(2, 2, requires_grad=True)
    metric.update(batch * 1)
    for name in Statistics._states:
        assert not getattr(metric, name).requires_grad
    buffer = torch.ones(1, 2)
    metric.update(buffer)
    buffer.zero_()
    assert metric.rows[-1].tolist() == [1.0, 1.0]


def test_updates_may_come_from_inference_mode():
    metric = Accuracy()
    for _ in range(2):
        with torch.inference_mode():
            batch = torch.eye(2), torch.arange(2)
            metric.update(batch)
        metric.update(batch)
    assert metric.compute() == 1.0


def test_a_value_is_not_changed_by_later_updates():
    matrix = ConfusionMatrix(2)
    batch = torch.eye(2), torch.arange(2)
    matrix.update(batch)
    before = matrix.compute()
    matrix.update(batch)
    assert before.tolist() == [[1, 0], [0, 1]]
    assert matrix.compute().tolist() == [[2, 0], [0, 2]]


def test_a_failing_formula_leaves_the_state_alone():
    class Failing(Metric):
        total = MetricState(torch.float64)

        def update(self, output):
            self.accumulate(total=output)

        def compute(self):
            self.total = self.total * 0
            raise ZeroDivisionError

    metric = Failing()
    metric.update(3.0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            metric.compute()
        assert metric.total == 3.0


def test_a_formula_may_call_that_of_its_superclass():
    class Percent(Accuracy):
        def compute(self):
            return 100 * super().compute()

    metric = Percent()
    metric.update((torch.eye(2), torch.tensor([0, 0])))
    assert metric.compute() == 50.0


def test_an_explicit_device_is_honoured():
    metric = Statistics(device="meta")
    metric.update(torch.ones(2, 2))
    assert metric.total.device.type == "meta"


def test_a_misspelt_name_is_an_attribute_error():
    metric = Accuracy()
    assert not hasattr(metric, "computee")
    with pytest.raises(AttributeError, match="computee"):
        metric.computee()
    with pytest.raises(TypeError):
        iter(metric)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="output_transform must be callable, got 3"):
        Accuracy(output_transform=3)
    with pytest.raises(ValueError, match="metrics_result_mode must be one of flatten, named, both"):
        Statistics(metrics_result_mode="none")
    with pytest.raises(TypeError):
        Metric()
    with pytest.raises(TypeError, match="f must be callable"):
        MetricsLambda(3)


def test_metrics_compose_by_arithmetic_indexing_and_methods():
    precision, recall = Precision(average=False), Recall(average=False)
    y_pred, y = torch.rand(50, 3), torch.randint(0, 3, (50,))
    cases = {
        "add": (precision + recall, lambda p, r: p + r),
        "radd": (1 + precision, lambda p, r: 1 + p),
        "sub": (precision - recall, lambda p, r: p - r),
        "rsub": (1 - precision, lambda p, r: 1 - p),
        "mul": (precision * recall, lambda p, r: p * r),
        "rmul": (2 * precision, lambda p, r: 2 * p),
        "div": (precision / recall, lambda p, r: p / r),
        "rdiv": (1 / precision, lambda p, r: 1 / p),
        "floordiv": (precision // 0.3, lambda p, r: p // 0.3),
        "rfloordiv": (1 // precision, lambda p, r: 1 // p),
        "mod": (precision % 0.3, lambda p, r: p % 0.3),
        "rmod": (1 % precision, lambda p, r: 1 % p),
        "pow": (precision**2, lambda p, r: p**2),
        "rpow": (2**precision, lambda p, r: 2**p),
        "matmul": (precision @ recall, lambda p, r: p @ r),
        "rmatmul": (torch.ones(3).double() @ precision, lambda p, r: p.sum()),
        "neg": (-precision, lambda p, r: -p),
        "abs": (abs(-precision), lambda p, r: p),
        "index": (precision[1], lambda p, r: p[1]),
        "slice": (precision[:2], lambda p, r: p[:2]),
        "f1": (
            (precision * recall * 2 / (precision + recall)).mean(),
            lambda p, r: (p * r * 2 / (p + r)).mean(),
        ),
        "sum": (precision.sum(dim=0), lambda p, r: p.sum()),
        "item": (precision[0].item(), lambda p, r: p[0]),
        "to": (precision.to(torch.float32), lambda p, r: p.float()),
        "clamp": (precision.clamp(min=0.5), lambda p, r: p.clamp(min=0.5)),
    }
    for metric in (precision, recall):
        metric.update((y_pred, y))
    p, r = precision.compute(), recall.compute()
    for name, (composed, expected) in cases.items():
        expected_value = expected(p, r)
        value = torch.as_tensor(composed.compute(), dtype=expected_value.dtype)
        torch.testing.assert_close(value, expected_value, msg=name)


def test_methods_work_on_scalars_too():
    accuracy = Accuracy()
    accuracy.update((torch.eye(2), torch.tensor([0, 0])))
    assert accuracy.mean().compute() == 0.5
    assert accuracy.item().compute() == 0.5
    binary = Precision(average=False) * Recall(average=False)
    f1 = binary.mean()
    f1.update((torch.tensor([1, 0, 1]), torch.tensor([1, 1, 1])))
    assert f1.compute() == pytest.approx(2 / 3)


def test_composing_does_not_reset_and_updates_each_part_once():
    seen = []

    class Spy(Accuracy):
        def update(self, output):
            seen.append(output)
            super().update(output)

    spy = Spy()
    spy.update((torch.eye(2), torch.arange(2)))
    both = spy / (spy + spy)
    assert spy.compute() == 1.0
    both.update((torch.eye(2), torch.arange(2)))
    assert len(seen) == 2
    assert both.compute() == 0.5
    both.reset()
    with pytest.raises(NotComputableError):
        spy.compute()


def test_a_lambda_gets_values_and_plain_arguments():
    accuracy = Accuracy()
    metric = MetricsLambda(lambda a, n, *, scale: (a, n, scale), accuracy, 3, scale=accuracy)
    accuracy.update((torch.eye(2), torch.arange(2)))
    assert metric.compute() == (1.0, 3, 1.0)


def test_a_declared_state_can_be_assigned_in_an_update():
    class Last(Metric):
        last = MetricState(torch.float64)

        def update(self, output):
            self.last = output

        def compute(self):
            return self.last

    metric = Last()
    with pytest.raises(NotComputableError):
        metric.compute()
    metric.update(torch.tensor(2.0))
    metric.update(3.0)
    assert metric.compute() == 3.0


def test_metrics_can_be_copied_and_pickled():
    metric = mIoU(ConfusionMatrix(2))
    metric.attach(Engine(lambda engine, batch: batch), "miou")
    metric.update((torch.eye(2), torch.tensor([0, 0])))
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert other.compute() == metric.compute()
        other.reset()
        with pytest.raises(NotComputableError):
            other.compute()
        metric.compute()


def test_a_group_is_a_dict_of_values():
    group = MetricGroup(
        {"accuracy": Accuracy(), "both": Precision(average=True) + Recall(average=True)},
        output_transform=lambda output: output[0],
    )
    engine = Engine(lambda engine, batch: (batch, None))
    group.attach(engine, "group")
    state = engine.run([(torch.eye(2), torch.tensor([0, 0]))])
    assert state.metrics["accuracy"] == 0.5
    assert state.metrics["group"] == {"accuracy": 0.5, "both": pytest.approx(0.5 + 0.25)}


def test_a_metric_of_another_library_can_be_attached():
    import torchmetrics

    batches = [(torch.rand(10), torch.rand(10)) for _ in range(3)]
    metric = ExternalMetric(torchmetrics.MeanSquaredError())
    engines = [Engine(lambda engine, batch: batch) for _ in range(2)]
    for engine in engines:
        metric.attach(engine, "mse")
    (metric * 2).attach(engines[0], "twice")
    first, second = engines[0].run(batches), engines[1].run(batches[:1])
    y_pred, y = map(torch.cat, zip(*batches, strict=True))
    assert first.metrics["mse"] == pytest.approx((y_pred - y).square().mean().item())
    assert first.metrics["twice"] == 2 * first.metrics["mse"]
    assert second.metrics["mse"] == pytest.approx(
        (batches[0][0] - batches[0][1]).square().mean().item()
    )
    saved = metric.state_dict()
    metric.reset()
    metric.load_state_dict(saved)
    metric.update(batches[0])
    doubled = [*batches, batches[0]]
    y_pred, y = map(torch.cat, zip(*doubled, strict=True))
    assert metric.compute() == pytest.approx((y_pred - y).square().mean().item())
    with pytest.raises(TypeError, match="lacks the methods update, compute, reset"):
        ExternalMetric(object())


def test_compensated_float32_is_as_exact_as_float64(monkeypatch):
    monkeypatch.setattr("cookfire.metrics._state.WITHOUT_FLOAT64", ("cpu",))
    metric = Statistics()
    exact = 0.0
    for index in range(2000):
        value = torch.tensor([[float(index % 7) / 3, 1e-3]])
        metric.update(value)
        exact += value.sum().double().item()
    assert metric.compute()["mean"] == pytest.approx(exact / 2000, rel=1e-9)
    saved = metric.state_dict()
    other = Statistics()
    other.load_state_dict(saved)
    other.update(torch.ones(1, 2))
    assert other.compute()["mean"] == pytest.approx((exact + 2) / 2001, rel=1e-9)
