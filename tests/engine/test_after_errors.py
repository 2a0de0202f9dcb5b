"""What a run does after something went wrong, or was changed at an odd moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from cookfire.engine import Engine, EventEnum, Events, create_supervised_trainer
from cookfire.metrics import Accuracy, Average


class Trouble:
    """Raises once."""

    def __init__(self) -> None:
        self.left = 1

    def __call__(self) -> None:
        if self.left:
            self.left = 0
            raise OSError("disk")


def failing_at(iteration: int) -> tuple[Engine, list[tuple[int, Any]]]:
    trouble, seen = Trouble(), []

    def step(engine: Engine, batch: Any) -> None:
        if engine.state.iteration == iteration:
            trouble()
        seen.append((engine.state.iteration, batch))

    return Engine(step), seen


def test_an_error_at_the_start_of_the_continued_run_loses_no_iteration() -> None:
    engine, seen = failing_at(3)
    with pytest.raises(OSError, match="disk"):
        engine.run([1, 2, 3, 4, 5])
    paused = engine.state_dict()["iteration"]
    saved: list[int] = []
    engine.add_event_handler(Events.STARTED, lambda e: saved.append(e.state_dict()["iteration"]))
    handle = engine.add_event_handler(Events.STARTED, Trouble())
    with pytest.raises(OSError, match="disk"):
        engine.run()
    handle.remove()
    engine.run()
    assert seen == [(number, number) for number in range(1, 6)]
    assert saved == [paused, paused] == [2, 2]


def test_other_data_after_an_error_takes_the_place_of_the_batch_that_failed() -> None:
    engine, seen = failing_at(3)
    with pytest.raises(OSError, match="disk"):
        engine.run([1, 2, 3, 4, 5])
    engine.set_data([10, 20, 30, 40, 50])
    engine.run()
    assert seen == [(1, 1), (2, 2), (3, 10), (4, 20), (5, 30)]


@pytest.mark.parametrize("kind", ["generator", "loader"])
def test_data_that_raises_once_loses_no_batch(kind: str) -> None:
    trouble = Trouble()

    class Data:
        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Iterator[int]:
            return (self[index] for index in range(5))

        def __getitem__(self, index: int) -> int:
            if index == 3:
                trouble()
            return index

    data: Any = Data() if kind == "generator" else DataLoader(Data(), batch_size=1)
    batches: list[int] = []
    engine = Engine(lambda engine, batch: batches.append(int(batch)))
    with pytest.raises(OSError, match="disk"):
        engine.run(data)
    engine.run(data)
    assert batches == [0, 1, 2, 3, 4]


def test_data_of_another_length_are_no_continuation() -> None:
    engine, _ = failing_at(3)
    with pytest.raises(OSError, match="disk"):
        engine.run([1, 2, 3, 4])
    with pytest.raises(ValueError, match="has epochs of 4 iterations, the data .list. has 2"):
        engine.run([1, 2])


@pytest.mark.parametrize("way", ["interrupt", "terminate"])
def test_leaving_where_unsized_data_end_reads_nothing_twice(way: str) -> None:
    class Unsized:
        def __iter__(self) -> Iterator[int]:
            return iter([1, 2, 3])

    seen: list[Any] = []
    engine = Engine(lambda engine, batch: seen.append(batch))
    engine.add_event_handler(Events.DATALOADER_STOP_ITERATION(once=1), getattr(engine, way))
    engine.add_event_handler(Events.EPOCH_COMPLETED, seen.append, "end")
    engine.run(Unsized(), max_epochs=2)
    engine.run()
    assert seen == [1, 2, 3, "end", 1, 2, 3, "end"]


def test_data_set_while_a_batch_is_fetched_begin_after_that_batch() -> None:
    batches: list[int] = []
    engine = Engine(lambda engine, batch: batches.append(batch))
    event = Events.GET_BATCH_COMPLETED(once=1)
    engine.add_event_handler(event, lambda: engine.set_data([10, 20, 30, 40]))
    engine.run([1, 2, 3, 4])
    assert batches == [1, 2, 10, 20]


def test_events_of_two_enums_with_equal_values_are_counted_apart() -> None:
    class First(EventEnum):
        X = "x"

    class Second(EventEnum):
        X = "x"

    def step(engine: Engine, batch: int) -> None:
        engine.fire_event(First.X)
        engine.fire_event(Second.X)

    heard: list[str] = []
    engine = Engine(step)
    engine.register_events(*First, *Second)
    engine.add_event_handler(First.X(every=2), heard.append, "first")
    engine.add_event_handler(Second.X(every=2), heard.append, "second")
    engine.run(range(4))
    assert heard == ["first", "second"] * 2


class Walks:
    """Unsized data whose walks have the given lengths."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = iter(lengths)

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.ones(1, 1), torch.zeros(1, 1))] * next(self.lengths))


def steps_of(data: Any, **limits: int) -> list[tuple[int, float]]:
    """Return (iteration, gradient) of each optimizer step; each batch's gradient is 1."""
    model = nn.Linear(1, 1, bias=False)
    taken: list[tuple[int, float]] = []

    class Recording(SGD):
        def step(self, closure: Any = None) -> None:
            assert model.weight.grad is not None
            taken.append((trainer.state.iteration, round(model.weight.grad.item(), 6)))

    optimizer = Recording(model.parameters(), 0.1)
    trainer = create_supervised_trainer(
        model, optimizer, lambda y_pred, y: model.weight.sum(), gradient_accumulation_steps=4
    )
    trainer.run(data, **limits)
    return taken


def test_accumulation_does_not_trust_the_length_of_the_epoch_before() -> None:
    steps = steps_of(Walks(5, 8), max_epochs=2)
    assert steps == [(4, 1.0), (5, 1.0), (9, 1.0), (13, 1.0)]
    assert steps_of(Walks(6, 5), max_epochs=2) == [(4, 1.0), (6, 1.0), (10, 1.0), (11, 1.0)]


def test_accumulation_applies_what_the_end_of_the_run_leaves_open() -> None:
    data = list(Walks(10))
    assert steps_of(data, max_iters=6) == [(4, 1.0), (6, 1.0)]


def heard_by(engine: Engine, *events: Events) -> list[str]:
    heard: list[str] = []
    for event in events:
        engine.add_event_handler(event, heard.append, str(event))
    return heard


def test_an_evaluation_that_failed_midway_goes_on_with_its_metrics() -> None:
    trouble = Trouble()

    def step(engine: Engine, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        if engine.state.iteration == 3:
            trouble()
        return torch.eye(2), torch.tensor([0, 1]) if batch < 2 else torch.tensor([1, 0])

    evaluator = Engine(step)
    Accuracy().attach(evaluator, "accuracy")
    data = [0, 1, 2, 3]
    with pytest.raises(OSError, match="disk"):
        evaluator.run(data)
    assert evaluator.run(data).metrics["accuracy"] == 0.5
    assert evaluator.run(data).metrics["accuracy"] == 0.5


def test_metrics_of_an_epoch_whose_beginning_they_have_not_seen_say_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    evaluator = Engine(lambda engine, batch: float(batch))
    Average().attach(evaluator, "average")
    position = {"epoch_length": 4, "max_epochs": 1, "iteration": 2, "epoch": 1, "batch": 2}
    evaluator.load_state_dict(position)
    assert evaluator.run([1, 2, 3, 5]).metrics["average"] == 4
    assert "average will be those of its rest" in caplog.text


def test_a_run_ended_by_max_iters_within_an_epoch_goes_on_to_the_end_of_an_epoch() -> None:
    engine, seen = failing_at(0)
    data = [1, 2, 3, 4]
    engine.run(data, max_iters=6)
    engine.run(data, max_epochs=2)
    assert seen[6:] == [(7, 3), (8, 4)]


def test_terminate_at_the_very_end_leaves_a_finished_run() -> None:
    engine, seen = failing_at(0)
    engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), engine.terminate)
    engine.run([1, 2], max_epochs=2)
    assert engine.status.value == "finished"
    engine.run([1, 2], max_epochs=2)
    assert len(seen) == 8


@pytest.mark.parametrize("limit", ["max_epochs", "max_iters"])
def test_a_limit_below_the_position_is_refused(limit: str) -> None:
    engine, _ = failing_at(0)
    engine.run([1], **{limit: 3})
    with pytest.raises(ValueError, match=f"{limit}=2 is below the position"):
        engine.run([1], **{limit: 2})


def test_terminate_wins_over_interrupt_and_the_next_run_starts_aloud() -> None:
    engine = Engine(lambda engine, batch: None)
    heard = heard_by(engine, Events.STARTED, Events.EPOCH_STARTED, Events.TERMINATE)
    heard_interrupt = heard_by(engine, Events.INTERRUPT)
    once = Events.ITERATION_COMPLETED(once=2)
    engine.add_event_handler(once, engine.interrupt)
    engine.add_event_handler(once, engine.terminate)
    engine.run([1, 2, 3])
    engine.run()
    assert heard == ["started", "epoch_started", "terminate", "started", "epoch_started"]
    assert heard_interrupt == []


def test_after_an_error_the_next_run_starts_aloud_even_if_a_handler_interrupts() -> None:
    engine, _ = failing_at(2)
    heard = heard_by(engine, Events.STARTED, Events.EPOCH_STARTED)
    engine.add_event_handler(Events.EXCEPTION_RAISED, engine.interrupt)
    with pytest.raises(OSError, match="disk"):
        engine.run([1, 2, 3])
    engine.run()
    assert heard == ["started", "epoch_started"] * 2


def test_an_interrupt_in_started_leaves_epoch_started_to_the_next_run() -> None:
    engine = Engine(lambda engine, batch: None)
    heard = heard_by(engine, Events.STARTED, Events.EPOCH_STARTED)
    handle = engine.add_event_handler(Events.STARTED, engine.interrupt)
    position = {"epoch_length": 3, "max_epochs": 1, "iteration": 1, "epoch": 1, "batch": 1}
    engine.load_state_dict(position)
    engine.run([1, 2, 3])
    handle.remove()
    engine.run()
    assert heard == ["started", "epoch_started"]


@pytest.mark.parametrize("event", [Events.EPOCH_COMPLETED(once=1), Events.STARTED])
def test_terminate_epoch_between_epochs_has_no_effect(event: Any) -> None:
    engine, seen = failing_at(0)
    engine.add_event_handler(event, engine.terminate_epoch)
    engine.run([1, 2], max_epochs=2)
    assert [batch for _, batch in seen] == [1, 2, 1, 2]


def test_data_may_be_set_before_the_first_run() -> None:
    engine, seen = failing_at(0)
    engine.set_data([1, 2])
    engine.run()
    assert seen == [(1, 1), (2, 2)]


def test_a_handler_attached_while_a_batch_is_fetched_hears_its_iteration_start() -> None:
    engine = Engine(lambda engine, batch: None)
    heard: list[int] = []

    def listen() -> None:
        engine.add_event_handler(
            Events.ITERATION_STARTED, lambda: heard.append(engine.state.iteration)
        )

    engine.add_event_handler(Events.GET_BATCH_COMPLETED(once=1), listen)
    engine.run([1, 2, 3])
    assert heard == [2, 3]


def test_a_checkpoint_at_the_end_of_unsized_data_does_not_read_them_twice() -> None:
    class Unsized:
        def __iter__(self) -> Iterator[int]:
            return iter([1, 2, 3])

    engine, _ = failing_at(0)
    engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, engine.interrupt)
    engine.run(Unsized(), max_epochs=2)
    resumed, seen = failing_at(0)
    resumed.load_state_dict(engine.state_dict())
    resumed.run(Unsized())
    assert [batch for _, batch in seen] == [1, 2, 3]


@pytest.mark.parametrize("limit", [True, 0, 1.5, "2"])
def test_a_limit_that_is_no_positive_integer_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="max_epochs must be a positive integer"):
        Engine(lambda engine, batch: None).run([1], max_epochs=limit)


def test_limits_may_be_numpy_integers() -> None:
    engine, seen = failing_at(0)
    engine.run([1, 2], max_epochs=np.int64(2), epoch_length=np.int32(1))
    assert len(seen) == 2
    assert type(engine.state.max_epochs) is int


def test_filters_that_can_never_be_heard_are_refused() -> None:
    with pytest.raises(ValueError, match="before=3, after=5: no count lies between"):
        Events.EPOCH_COMPLETED(before=3, after=5)
    with pytest.raises(ValueError, match=r"once must be a positive integer .* got 2\.5"):
        Events.EPOCH_COMPLETED(once=2.5)


def test_an_event_is_fired_without_a_filter() -> None:
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(TypeError, match=r"without a filter, got 'started\(every=2\)'"):
        engine.fire_event(Events.STARTED(every=2))
