import io

import pytest
import torch
from torch.nn.functional import cross_entropy

from cookfire.engine import Engine, Events
from cookfire.metrics import (
    Accuracy,
    Average,
    ConfusionMatrix,
    EpochMetric,
    Fbeta,
    Loss,
    Metric,
    MetricGroup,
    MetricState,
    Precision,
    Recall,
    RunningAverage,
    RunningEpochWise,
    mIoU,
)


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(20, 3, generator=generator), torch.randint(0, 3, (20,), generator=generator)


def saved_and_loaded(state):
    """Through a file, as by ``torch.load(weights_only=True)``."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


METRICS = {
    "accuracy": Accuracy,
    "loss": lambda: Loss(cross_entropy),
    "precision": lambda: Precision(average=True),
    "f1": lambda: Fbeta(1.0),
    "composed": lambda: (Precision() * Recall()).mean(),
    "miou": lambda: mIoU(ConfusionMatrix(3)),
    "history": lambda: EpochMetric(lambda y_pred, y: y_pred.sum() + y.sum()),
    "average": lambda: Average(output_transform=lambda output: output[0]),
    "group": lambda: MetricGroup({"accuracy": Accuracy(), "f1": Fbeta(2.0)}),
}


def feed(name, metric, seed):
    metric.update(batch(seed)[0] if name == "average" else batch(seed))


@pytest.mark.parametrize("name", METRICS)
def test_a_loaded_metric_goes_on_where_the_saved_one_was(name):
    metric, other = METRICS[name](), METRICS[name]()
    feed(name, metric, 0)
    state = saved_and_loaded(metric.state_dict())
    feed(name, other, 5)  # overwritten
    other.load_state_dict(state)
    for one in (metric, other):
        feed(name, one, 1)
    torch.testing.assert_close(other.compute(), metric.compute(), rtol=0, atol=0)
    untouched = METRICS[name]()
    untouched.load_state_dict(METRICS[name]().state_dict())
    feed(name, untouched, 1)
    untouched.compute()


def test_a_state_of_something_else_is_refused():
    with pytest.raises(TypeError, match="a metric's state is a mapping, got list"):
        Accuracy().load_state_dict([])
    with pytest.raises(
        ValueError, match="expected the keys 'kinds', 'settings', 'stores', 'ranks', got 'correct'"
    ):
        Accuracy().load_state_dict({"correct": 3})
    with pytest.raises(ValueError, match="saved by Accuracy; it can't be loaded into Precision"):
        Precision().load_state_dict(Accuracy().state_dict())
    state = Accuracy().state_dict()
    state["ranks"][0][0]["states"].pop("count")
    with pytest.raises(ValueError, match="Accuracy has the states .*count.*; saved were"):
        Accuracy().load_state_dict(state)


def trainer(stop_after=None):
    """An engine whose output is random but for its iteration; it may be cut off."""

    def step(engine, _):
        return batch(engine.state.iteration)

    engine = Engine(step)
    metrics = {
        "accuracy": Accuracy(),
        "precision": Precision(average=True),
        "recall": Recall(average=True),
        "f1": Fbeta(1.0),
    }
    for name, metric in metrics.items():
        metric.attach(engine, name)
    running = {
        "running loss": RunningAverage(
            output_transform=lambda output: cross_entropy(*output), alpha=0.7
        ),
        "running accuracy": RunningAverage(Accuracy(), alpha=0.7),
    }
    for name, metric in running.items():
        metric.attach(engine, name)
    RunningAverage(Accuracy(), alpha=0.7).attach(engine, "over epochs", RunningEpochWise())
    seen = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append(float(engine.state.metrics["running loss"])),
    )
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics))
    )
    if stop_after is not None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop_after), engine.terminate)
    return engine, seen


def attached(engine):
    return list(
        dict.fromkeys(
            handler.__self__
            for handler in engine.handlers()
            if hasattr(getattr(handler, "__self__", None), "load_state_dict")
            and handler.__self__ is not engine
            and not isinstance(handler.__self__, Accuracy | RunningAverage)
        )
    )


@pytest.mark.parametrize("stop_after", [1, 4, 7, 9])
def test_a_run_resumed_in_the_middle_of_an_epoch_sees_the_same(stop_after):
    data = [None] * 4
    whole, expected = trainer()
    whole.run(data, max_epochs=3)

    first, seen = trainer(stop_after)
    first.run(data, max_epochs=3)
    state = saved_and_loaded([first.state_dict(), [it.state_dict() for it in attached(first)]])

    second, rest = trainer()
    second.load_state_dict(state[0])
    for it, saved in zip(attached(second), state[1], strict=True):
        it.load_state_dict(saved)
    second.run(data, max_epochs=3)
    assert seen + rest == expected


def test_a_loaded_metric_is_reset_by_a_new_run():
    engine, seen = trainer()
    engine.run([None] * 4)
    for it in attached(engine):
        it.load_state_dict(it.state_dict())
    engine.run([None] * 4)
    half = len(seen) // 2
    assert seen[:half] == seen[half:]


def test_a_state_of_other_attached_metrics_is_refused():
    first, _ = trainer()
    second = Engine(lambda engine, batch: batch)
    Accuracy().attach(second, "accuracy")
    with pytest.raises(
        ValueError, match=r"of the metrics \['running loss', .*\], but attached are"
    ):
        attached(second)[0].load_state_dict(attached(first)[0].state_dict())


def test_a_function_reduces_updates_and_has_a_shape():
    def longest(rows):
        return rows[rows.norm(dim=1).argmax()]

    class Longest(Metric):
        vector = MetricState(torch.float64, reduction=longest, shape=(2,))

        def update(self, output):
            self.accumulate(vector=output)

        def compute(self):
            return self.vector

    metric = Longest()
    for vector in ([1.0, 0.0], [0.0, -3.0], [2.0, 0.0]):
        metric.update(torch.tensor(vector))
    assert metric.compute().tolist() == [0.0, -3.0]
    other = Longest()
    other.load_state_dict(metric.state_dict())
    other.update(torch.tensor([0.0, 4.0]))
    assert other.compute().tolist() == [0.0, 4.0]
    with pytest.raises(ValueError, match="a state that a function reduces needs a shape, got None"):
        MetricState(torch.float64, reduction=longest, shape=None)


def test_states_of_several_bases_are_all_there():
    class First(Metric):
        first = MetricState(torch.int64)

    class Second(Metric):
        second = MetricState(torch.int64)

    class Both(First, Second):
        third = MetricState(torch.int64)

        def update(self, output):
            self.accumulate(first=1, second=2, third=3)

        def compute(self):
            return self.first, self.second, self.third

    metric = Both()
    metric.update(None)
    assert metric.compute() == (1, 2, 3)


@pytest.mark.parametrize("reduction", ["sum", "min", "max", "same", "cat", lambda x: x.sum(0)])
@pytest.mark.parametrize("given", [torch.float64, torch.float32])
def test_a_state_is_no_memory_of_its_user(reduction, given):
    class Held(Metric):
        value = MetricState(torch.float64, reduction=reduction, shape=(2,))

        def update(self, output):
            self.accumulate(value=output)

        def compute(self):
            return {"value": self.value}

    metric, buffer = Held(), torch.ones(2, dtype=given)
    metric.update(buffer)
    buffer.fill_(7)
    value = metric.compute()["value"]
    assert value.tolist() == [1, 1]
    value.fill_(9)
    assert metric.compute()["value"].tolist() == [1, 1]


@pytest.mark.parametrize("reduction", ["min", "max"])
@pytest.mark.parametrize("make_value", [float, torch.tensor])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_extreme_of_what_is_not_a_number_is_not_a_number(reduction, make_value, place):
    class Extreme(Metric):
        value = MetricState(torch.float64, reduction=reduction)

        def update(self, output):
            self.accumulate(value=output)

        def compute(self):
            return self.value

    values = [1.0, 0.5]
    values.insert(place, float("nan"))
    metric = Extreme()
    for value in values:
        metric.update(make_value(value))
    assert metric.compute() != metric.compute()


def test_a_result_may_be_written_into():
    engine, matrix = Engine(lambda engine, batch: batch), ConfusionMatrix(3)
    matrix.attach(engine, "matrix")
    engine.run([batch(0)])
    found = engine.state.metrics["matrix"]
    expected = found.clone()
    found.fill_(0)
    assert matrix.compute().equal(expected)
    assert mIoU(matrix).compute() > 0
