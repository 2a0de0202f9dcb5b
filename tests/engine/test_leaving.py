"""Leaving a run, by a wish or by an error, and what is heard of it."""

from __future__ import annotations

from typing import Any

import pytest

from cookfire.engine import Engine, Events
from tests.engine.engines import recording_engine

WHEN = [
    Events.STARTED(every=1),
    Events.EPOCH_STARTED(once=2),
    Events.GET_BATCH_STARTED(once=4),
    Events.GET_BATCH_COMPLETED(once=4),
    Events.ITERATION_STARTED(once=5),
    Events.ITERATION_COMPLETED(once=5),
    Events.ITERATION_COMPLETED(once=6),
    Events.EPOCH_COMPLETED(once=2),
    Events.DATALOADER_STOP_ITERATION(once=1),
]


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (kind, event)
        for kind in ("list", "iterator", "same again")
        for event in WHEN
        # An iterator of nine batches does not stop within the run.
        if kind != "iterator" or event.event is not Events.DATALOADER_STOP_ITERATION
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["interrupt", "terminate"])
def test_a_run_that_was_left_continues_with_the_very_next_batch(
    kind: str, event: Any, way: str
) -> None:
    engine, batches = recording_engine()
    data: Any = list(range(9)) if kind == "iterator" else [0, 1, 2]
    if kind == "iterator":
        data = iter([0, 1, 2, 0, 1, 2, 0, 1, 2])
    handle = engine.add_event_handler(event, getattr(engine, way))
    engine.run(data, max_epochs=3, epoch_length=3)
    handle.remove()
    assert len(batches) < 9
    engine.run(data if kind == "same again" else None)
    assert batches == [0, 1, 2] * 3
    assert (engine.state.epoch, engine.state.iteration) == (3, 9)


@pytest.mark.parametrize("event", WHEN, ids=str)
def test_an_interrupted_run_fires_each_event_once(event: Any) -> None:
    names: list[tuple[str, int, int]] = []
    engine = Engine(lambda engine, batch: None)

    def record(engine: Engine, name: str) -> None:
        names.append((name, engine.state.epoch, engine.state.iteration))

    for each in (Events.STARTED, Events.EPOCH_STARTED, Events.ITERATION_COMPLETED):
        engine.add_event_handler(each, record, each.name)
    for each in (Events.EPOCH_COMPLETED, Events.COMPLETED):
        engine.add_event_handler(each, record, each.name)
    expected = engine.run([0, 1, 2], max_epochs=3) and list(names)
    names.clear()
    handle = engine.add_event_handler(event, engine.interrupt)
    engine.run([0, 1, 2], max_epochs=3)
    assert engine.last_event_name is Events.INTERRUPT
    handle.remove()
    engine.run()
    assert names == expected


def test_terminate_ends_the_run_after_the_events_handlers() -> None:
    names: list[str] = []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.terminate)
    for event in (Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED, Events.TERMINATE):
        engine.add_event_handler(event, names.append, str(event))
    engine.add_event_handler(Events.COMPLETED, names.append, "completed")
    state = engine.run(range(5), max_epochs=3)
    assert names == ["iteration_completed"] * 2 + ["terminate", "completed"]
    assert (state.iteration, state.epoch) == (2, 1)


def test_terminate_can_skip_completed() -> None:
    names: list[str] = []
    engine = Engine(lambda engine, batch: engine.terminate(skip_completed=True))
    engine.add_event_handler(Events.TERMINATE | Events.COMPLETED, lambda: names.append("x"))
    engine.run(range(5))
    assert names == ["x"]
    assert engine.last_event_name is Events.TERMINATE


@pytest.mark.parametrize("skip", [False, True])
def test_terminate_epoch_goes_on_with_fresh_data_in_the_next(skip: bool) -> None:
    engine, batches = recording_engine()
    counters: list[int] = []
    completed: list[int] = []

    @engine.on(Events.ITERATION_COMPLETED(once=2))
    def leave(engine: Engine) -> None:
        engine.terminate_epoch(skip_epoch_completed=skip)

    @engine.on(Events.TERMINATE_SINGLE_EPOCH)
    def count(engine: Engine, iter_counter: int) -> None:
        counters.append(iter_counter)

    engine.add_event_handler(Events.TERMINATE_SINGLE_EPOCH, lambda: None)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: completed.append(e.state.epoch))
    engine.run([0, 1, 2], max_epochs=2)
    assert batches == [0, 1, 0, 1, 2]
    assert counters == [2]
    assert completed == ([2] if skip else [1, 2])


def test_an_error_goes_on_after_all_handlers_saw_it() -> None:
    seen: list[Any] = []
    engine = Engine(lambda engine, batch: 1 / batch)

    @engine.on(Events.EXCEPTION_RAISED)
    def first(engine: Engine, error: BaseException) -> None:
        seen.append(error)
        raise error

    @engine.on(Events.EXCEPTION_RAISED)
    def second(error: BaseException) -> None:
        seen.append("second")

    @engine.on(Events.EXCEPTION_RAISED)
    def third() -> None:
        seen.append("third")

    with pytest.raises(ZeroDivisionError) as caught:
        engine.run([1, 0])
    assert seen[0] is caught.value
    assert seen[1] is caught.value or seen[1:] == ["second", "third"]


def test_a_handler_that_terminates_marks_the_error_as_handled() -> None:
    names: list[str] = []
    engine = Engine(lambda engine, batch: 1 / batch)
    engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: engine.terminate())
    engine.add_event_handler(Events.COMPLETED, names.append, "completed")
    state = engine.run([1, 0, 2])
    assert state.iteration == 2
    assert names == ["completed"]


def test_an_error_in_an_exception_handler_is_raised_from_the_first() -> None:
    engine = Engine(lambda engine, batch: 1 / batch)

    @engine.on(Events.EXCEPTION_RAISED)
    def breaks(engine: Engine, error: BaseException) -> None:
        raise KeyError("log")

    with pytest.raises(KeyError) as caught:
        engine.run([0])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_keyboard_interrupt_is_never_swallowed() -> None:
    def step(engine: Engine, batch: int) -> None:
        raise KeyboardInterrupt

    engine = Engine(step)
    engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: None)
    with pytest.raises(KeyboardInterrupt):
        engine.run([0])


def test_after_an_error_the_run_continues_with_the_batch_that_failed() -> None:
    batches: list[int] = []
    trouble = [True]

    def step(engine: Engine, batch: int) -> None:
        if batch == 1 and trouble:
            trouble.clear()
            raise OSError("disk")
        batches.append(batch)

    engine = Engine(step)
    data = iter(range(4))
    with pytest.raises(OSError, match="disk"):
        engine.run(data)
    engine.run(data)
    assert batches == [0, 1, 2, 3]
    assert engine.state.iteration == 4
