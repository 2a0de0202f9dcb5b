import warnings

import ignite.metrics as oracle
import pytest
import torch
from ignite.engine import Engine as OracleEngine
from ignite.engine import Events as OracleEvents
from ignite.metrics.metric import RunningEpochWise as OracleRunningEpochWise
from ignite.metrics.metric import (
    SingleEpochRunningBatchWise as OracleSingleEpochRunningBatchWise,
)

from cookfire.engine import Engine, Events
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import (
    Accuracy,
    Average,
    Loss,
    MetricGroup,
    RunningAverage,
    RunningEpochWise,
    SingleEpochRunningBatchWise,
)


def echo():
    return Engine(lambda engine, batch: batch)


def run(engine, events, metric, event, data, **usage):
    """Attach, run two epochs, and return what is in state.metrics at each event."""
    metric.attach(engine, "average", **usage)
    seen = []
    engine.add_event_handler(
        getattr(events, event), lambda engine: seen.append(float(engine.state.metrics["average"]))
    )
    engine.run(data, max_epochs=2)
    return seen


def pairs(number=5):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(8, 3, generator=generator), torch.randint(0, 3, (8,), generator=generator))
        for _ in range(number)
    ]


@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize("alpha", [0.98, 0.3, 1.0])
def test_outputs_are_averaged_as_in_ignite(kind, alpha):
    data = [kind(x) for x in (1.0, 2.0, -3.0, 0.5)]
    for mine, theirs in (
        ({}, {}),
        (
            {"usage": SingleEpochRunningBatchWise()},
            {"usage": OracleSingleEpochRunningBatchWise()},
        ),
        ({"usage": RunningEpochWise()}, {"usage": OracleRunningEpochWise()}),
    ):
        event = (
            "EPOCH_COMPLETED" if mine.get("usage") == RunningEpochWise() else "ITERATION_COMPLETED"
        )
        value = run(
            echo(),
            Events,
            RunningAverage(output_transform=lambda x: x, alpha=alpha),
            event,
            data,
            **mine,
        )
        expected = run(
            OracleEngine(lambda engine, batch: batch),
            OracleEvents,
            oracle.RunningAverage(output_transform=lambda x: x, alpha=alpha),
            event,
            data,
            **theirs,
        )
        assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("mine", "theirs", "event"),
    [
        ({}, {}, "ITERATION_COMPLETED"),
        (
            {"usage": SingleEpochRunningBatchWise()},
            {"usage": OracleSingleEpochRunningBatchWise()},
            "ITERATION_COMPLETED",
        ),
        (
            {"usage": RunningEpochWise()},
            {"usage": OracleRunningEpochWise()},
            "EPOCH_COMPLETED",
        ),
    ],
)
def test_metrics_are_averaged_as_in_ignite(mine, theirs, event):
    value = run(echo(), Events, RunningAverage(Accuracy(), alpha=0.6), event, pairs(), **mine)
    engine = OracleEngine(lambda engine, batch: batch)
    if theirs.get("usage"):
        # There the source of an epoch-wise average is reset by its own usage.
        engine.add_event_handler(OracleEvents.EPOCH_STARTED, lambda engine: None)
    expected = run(
        engine,
        OracleEvents,
        oracle.RunningAverage(oracle.Accuracy(), alpha=0.6),
        event,
        pairs(),
        **theirs,
    )
    assert value == pytest.approx(expected, rel=1e-6)


def test_within_an_epoch_tensors_of_a_device_stay_there(monkeypatch):
    monkeypatch.setattr("cookfire.metrics._running_average.is_at_hand", lambda tensor: False)
    engine = echo()
    RunningAverage(output_transform=lambda x: x).attach(engine, "average")
    seen = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.metrics["average"])
    )
    engine.run([torch.tensor(1.0), torch.tensor(2.0)])
    assert [type(value) for value in seen] == [torch.Tensor, torch.Tensor]
    assert [f"{value:.2f}" for value in seen] == ["1.00", "1.02"]
    assert seen[0] == 1.0  # it is not written into afterwards
    assert type(engine.state.metrics["average"]) is float


def test_numbers_are_averaged_as_numbers():
    engine = echo()
    RunningAverage(output_transform=lambda x: x).attach(engine, "average")
    seen = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.metrics["average"])
    )
    engine.run([1, 2.0])
    assert seen == [1, 1.02]
    assert engine.state.metrics["average"] == 1.02


def test_vectors_half_precision_graphs_and_reused_buffers():
    average = RunningAverage(output_transform=lambda x: x, alpha=0.5)
    buffer = torch.tensor([1.0, 2.0], requires_grad=True)
    average.update(buffer)
    with torch.no_grad():
        buffer.fill_(3.0)
    average.update(buffer * 1)
    value = average.compute()
    assert value.tolist() == [2.0, 2.5]
    assert not value.requires_grad
    average = RunningAverage(output_transform=lambda x: x)
    average.update(torch.tensor(1.0, dtype=torch.bfloat16))
    for _ in range(200):
        average.update(torch.tensor(2.0, dtype=torch.bfloat16))
    assert average.compute() == pytest.approx(2 - 0.98**200, rel=1e-5)
    average = RunningAverage(output_transform=lambda x: x, device="cpu", alpha=0.5)
    for value in (1.0, torch.tensor(2.0), torch.tensor(4.0).double(), 1):
        average.update(value)
    assert average.compute() == 0.5 * (0.5 * (0.5 * 1 + 1) + 2) + 0.5


def test_a_source_that_is_attached_itself_is_copied():
    engine, accuracy = echo(), Accuracy()
    accuracy.attach(engine, "accuracy")
    RunningAverage(accuracy).attach(engine, "average")
    before = RunningAverage(Accuracy())
    before.attach(engine, "before")
    before.src.attach(engine, "after")
    data = pairs()
    engine.run(data)
    exact = torch.cat([scores.argmax(1) == y for scores, y in data]).double().mean().item()
    assert engine.state.metrics["accuracy"] == exact
    assert engine.state.metrics["after"] == exact
    assert engine.state.metrics["average"] == engine.state.metrics["before"]


def test_composed_sources_are_averaged():
    engine, data = echo(), pairs()
    RunningAverage(100 * (1 - Accuracy()), alpha=0.9).attach(engine, "error")
    RunningAverage(Accuracy(), alpha=0.9).attach(engine, "accuracy")
    RunningAverage(Loss(torch.nn.functional.cross_entropy)).attach(engine, "loss")
    engine.run(data)
    metrics = engine.state.metrics
    assert metrics["error"] == pytest.approx(100 * (1 - metrics["accuracy"]), rel=1e-6)
    assert 0 < metrics["loss"] < 3


def test_what_is_made_of_running_averages_is_shown_at_each_iteration():
    engine = echo()
    average = RunningAverage(output_transform=lambda x: x, alpha=0.5)
    group = MetricGroup({"average": average, "percent": 100 * average})
    group.attach(engine, "group", "running_batch_wise")
    seen = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.metrics["percent"])
    )
    engine.run([torch.tensor(1.0), torch.tensor(2.0)])
    assert seen == [100.0, 150.0]
    assert engine.state.metrics["average"] == 1.5


def test_a_running_average_can_be_used_by_hand():
    accuracy = Accuracy()
    average = RunningAverage(accuracy, alpha=0.5)
    for right in (0, 1):
        accuracy.update((torch.eye(2), torch.tensor([0, right])))
        average.update(None)
    assert average.compute() == 0.75
    average.reset()
    with pytest.raises(NotComputableError):
        average.compute()


def test_detaching_leaves_no_handlers():
    for usage in (RunningEpochWise(), SingleEpochRunningBatchWise(), "running_batch_wise"):
        engine = echo()
        average = RunningAverage(Average())
        average.attach(engine, "average", usage)
        assert average.is_attached(engine, usage)
        engine.run([1.0, 2.0])
        average.detach(engine, usage)
        assert not average.is_attached(engine, usage)
        assert list(engine.handlers()) == []
        average.detach(engine, usage)


def test_epoch_bound_is_deprecated():
    for bound, usage in ((True, SingleEpochRunningBatchWise()), (False, "running_batch_wise")):
        with pytest.warns(DeprecationWarning, match="attach with the usage"):
            average = RunningAverage(output_transform=lambda x: x, epoch_bound=bound)
        engine = echo()
        average.attach(engine, "average")
        assert average.is_attached(engine)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert average.is_attached(engine, usage)
        engine.run([1.0, 2.0], max_epochs=2)
        assert engine.state.metrics["average"] == pytest.approx(1.02 if bound else 1.039208)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="src must be a metric or None, got 3"):
        RunningAverage(3)
    for alpha in (0.0, 1.1):
        with pytest.raises(ValueError, match="alpha must be above 0 and at most 1"):
            RunningAverage(Accuracy(), alpha=alpha)
    with pytest.raises(TypeError, match="alpha must be a number, got str 'a'"):
        RunningAverage(Accuracy(), alpha="a")
    with pytest.raises(ValueError, match="give either src, a metric, or output_transform"):
        RunningAverage()
    with pytest.raises(ValueError, match="give either src, a metric, or output_transform"):
        RunningAverage(Accuracy(), output_transform=lambda x: x)
    with pytest.raises(ValueError, match="device has no effect beside src"):
        RunningAverage(Accuracy(), device="cpu")
    with pytest.raises(TypeError, match="takes a number or a tensor, got 'a'"):
        RunningAverage(output_transform=lambda x: x).update("a")
