"""The run: order of events, data of all kinds, limits, leaving and continuing."""

from __future__ import annotations

import io
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import ignite.engine
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from cookfire.distributed import DataOrder
from cookfire.engine import Engine, Events, State


def trace(module: Any, data: Any, **limits: Any) -> list[tuple[str, int, int]]:
    """Return (event, epoch, iteration) of a whole run."""
    events: list[tuple[str, int, int]] = []
    engine = module.Engine(lambda engine, batch: None)

    def record(engine: Any, name: str) -> None:
        events.append((name, engine.state.epoch, engine.state.iteration))

    for event in module.Events:
        if event.name not in ("EXCEPTION_RAISED", "TERMINATE_SINGLE_EPOCH"):
            engine.add_event_handler(event, record, event.name)
    engine.run(data, **limits)
    return events


class Ours:
    Engine, Events = Engine, Events


class Unsized:
    """Gives walks of the given lengths, one after the other."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = iter(lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(range(next(self.lengths)))


def recording_engine() -> tuple[Engine, list[Any]]:
    batches: list[Any] = []
    return Engine(lambda engine, batch: batches.append(batch)), batches


@given(
    size=st.integers(1, 6),
    max_epochs=st.integers(1, 4),
    epoch_length=st.one_of(st.none(), st.integers(1, 8)),
)
def test_events_come_in_ignites_order(size: int, max_epochs: int, epoch_length: int | None) -> None:
    limits = {"max_epochs": max_epochs, "epoch_length": epoch_length}
    assert trace(Ours, range(size), **limits) == trace(ignite.engine, range(size), **limits)


@given(size=st.integers(1, 5), max_iters=st.integers(1, 12))
def test_max_iters_ends_the_run_where_ignite_does(size: int, max_iters: int) -> None:
    ours = trace(Ours, range(size), max_iters=max_iters)
    theirs = trace(ignite.engine, range(size), max_iters=max_iters)
    # A limit that is reached is no termination.
    assert [event for event in theirs if event[0] != "TERMINATE"] == ours or (
        # At the end of an epoch the epoch is completed too.
        max_iters % size == 0 and ("EPOCH_COMPLETED", max_iters // size, max_iters) in ours
    )


def test_state_is_filled_and_returned() -> None:
    engine = Engine(lambda engine, batch: batch * 2)
    data = [1, 2, 3]
    state = engine.run(data, max_epochs=2)
    assert isinstance(state, State)
    assert (state.iteration, state.epoch, state.epoch_length, state.max_epochs) == (6, 2, 3, 2)
    assert (state.batch, state.output, state.dataloader) == (3, 6, data)
    assert state.max_iters is None
    assert state.times["EPOCH_COMPLETED"] is not None
    assert state.times["COMPLETED"] > state.times["EPOCH_COMPLETED"] > 0
    assert "iteration: 6" in repr(state)
    assert State(x=3).x == 3


@pytest.mark.parametrize("handlers", [False, True])
def test_data_longer_than_an_epoch_goes_on_in_the_next(handlers: bool) -> None:
    engine, batches = recording_engine()
    if handlers:
        for event in (Events.GET_BATCH_STARTED, Events.ITERATION_STARTED):
            engine.add_event_handler(event, lambda: None)
    engine.run(range(5), max_epochs=3, epoch_length=2)
    assert batches == [0, 1, 2, 3, 4, 0]


def test_an_endless_iterator_serves_any_number_of_epochs() -> None:
    engine, batches = recording_engine()

    def count() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    engine.run(count(), max_epochs=3, epoch_length=2)
    assert batches == list(range(6))


def test_without_data_the_step_gets_none() -> None:
    engine, batches = recording_engine()
    engine.run(max_epochs=2, epoch_length=3)
    assert batches == [None] * 6
    with pytest.raises(ValueError, match="without data, run\\(\\) needs epoch_length"):
        Engine(lambda engine, batch: None).run(max_epochs=2)


def test_epochs_of_unsized_data_end_with_the_data_and_lose_nothing() -> None:
    engine, batches = recording_engine()
    lengths: list[int | None] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: lengths.append(e.state.epoch_length))
    engine.run(Unsized(3, 5, 2), max_epochs=3)
    assert batches == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1]
    assert lengths == [3, 5, 2]


def test_max_iters_over_unsized_data() -> None:
    engine, batches = recording_engine()
    state = engine.run(Unsized(3, 3, 3), max_iters=7)
    assert batches == [0, 1, 2, 0, 1, 2, 0]
    assert (state.iteration, state.epoch) == (7, 3)


def test_a_loader_over_an_iterable_dataset_has_no_length() -> None:
    class Three(IterableDataset):
        def __iter__(self) -> Iterator[int]:
            return iter([1, 2, 3])

    engine, batches = recording_engine()
    engine.run(DataLoader(Three(), batch_size=2), max_epochs=2)
    assert [batch.tolist() for batch in batches] == [[1, 2], [3], [1, 2], [3]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data is empty: len\\(list\\) is 0"),
        (Unsized(0), "gave no batch in epoch 1 after iteration 0"),
        (iter([]), "it is an iterator that can be read only once"),
    ],
)
def test_empty_data_is_an_error(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(lambda engine, batch: None).run(data)


def test_an_iterator_that_is_too_short_is_an_error_that_says_where() -> None:
    with pytest.raises(ValueError, match=r"epoch 2 after iteration 3: it is an iterator"):
        Engine(lambda engine, batch: None).run(iter([1, 2, 3]), max_epochs=2)
    with pytest.raises(ValueError, match=r"epoch 2 after iteration 3: it is an iterator"):
        Engine(lambda engine, batch: None).run(iter([1, 2, 3]), max_epochs=2, epoch_length=2)


def test_a_handler_may_bring_more_data_when_it_stops() -> None:
    engine, batches = recording_engine()
    engine.add_event_handler(
        Events.DATALOADER_STOP_ITERATION, lambda: engine.set_data(iter([7, 8]))
    )
    engine.run(iter([1, 2, 3]), max_epochs=1, epoch_length=7)
    assert batches == [1, 2, 3, 7, 8, 7, 8]


def test_set_data_takes_over_with_the_next_batch() -> None:
    engine, batches = recording_engine()
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: engine.set_data("abcd"))
    engine.run([0, 1, 2, 3], max_epochs=2)
    assert batches == [0, 1, "a", "b", "c", "d", "a", "b"]
    with pytest.raises(TypeError, match="something to iterate over"):
        engine.set_data(3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_epochs": 0},
        {"max_epochs": -1},
        {"max_epochs": 1.5},
        {"max_iters": 0},
        {"epoch_length": 0},
        {"max_epochs": 1, "max_iters": 1},
    ],
)
def test_limits_that_make_no_sense_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="got"):
        Engine(lambda engine, batch: None).run([1], **arguments)
    with pytest.raises(TypeError, match="got int"):
        Engine(lambda engine, batch: None).run(3)


def test_a_running_engine_can_not_be_run_again() -> None:
    engine = Engine(lambda engine, batch: engine.run([1]))
    with pytest.raises(RuntimeError, match="running already"):
        engine.run([1])
    with pytest.raises(RuntimeError, match="running engine"):
        Engine(lambda engine, batch: engine.load_state_dict({})).run([1])


def test_engines_nest() -> None:
    inner, batches = recording_engine()
    outer = Engine(lambda engine, batch: None)
    outer.add_event_handler(Events.EPOCH_COMPLETED, lambda: inner.run([1, 2]))
    outer.run([0], max_epochs=3)
    assert batches == [1, 2] * 3
    assert outer.state.epoch == 3
    assert inner.state.epoch == 1


# Leaving


WHEN = [
    Events.STARTED(event_filter=lambda engine, count: True),
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


# Errors


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


# Continuing


def test_a_finished_run_is_extended_by_a_larger_limit_and_repeated_by_none() -> None:
    engine, batches = recording_engine()
    engine.run([0, 1], max_epochs=1)
    engine.run([0, 1], max_epochs=2)
    assert engine.state.iteration == 4
    engine.run([0, 1])
    assert engine.state.iteration == 2
    engine.run([0, 1], max_epochs=3)
    assert engine.state.iteration == 6
    with pytest.raises(ValueError, match="max_epochs=2 is below the position"):
        engine.run([0, 1], max_epochs=2)
    engine.state.max_epochs = None
    assert engine.run([0, 1], max_epochs=2).iteration == 4
    assert batches == [0, 1] * 7


def test_max_iters_can_be_extended_in_the_middle_of_an_epoch() -> None:
    engine, batches = recording_engine()
    engine.run([0, 1, 2], max_iters=4)
    engine.run([0, 1, 2], max_iters=8)
    assert batches == [0, 1, 2, 0, 1, 2, 0, 1]


def test_what_contradicts_the_run_to_continue_is_refused() -> None:
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), engine.terminate)
    engine.run([0, 1], max_epochs=4)
    with pytest.raises(ValueError, match="max_epochs=1 is below the position"):
        engine.run(max_epochs=1)
    with pytest.raises(ValueError, match="max_iters=3 is below the position"):
        engine.run(max_iters=3)
    with pytest.raises(ValueError, match="epoch_length=3 differs"):
        engine.run(epoch_length=3)


def through_a_file(state: dict) -> dict:
    """Return a state as it comes back from a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("epoch_length", [None, 2, 5])
@pytest.mark.parametrize("kind", ["list", "loader"])
@pytest.mark.parametrize("stop", range(1, 9))
def test_a_saved_run_continues_exactly_in_another_engine(
    kind: str, stop: int, epoch_length: int | None
) -> None:
    def data() -> Any:
        if kind == "list":
            return [0, 1, 2]
        return DataLoader(
            torch.arange(3),
            batch_sampler=DataOrder(3, 1, shuffle=True, seed=4),
        )

    whole, expected = recording_engine()
    whole.run(data(), max_epochs=4, epoch_length=epoch_length)

    first, batches = recording_engine()
    saved: list[dict] = []
    first.add_event_handler(
        Events.ITERATION_COMPLETED(once=stop),
        lambda e: saved.append(through_a_file(e.state_dict())),
    )
    first.add_event_handler(Events.ITERATION_COMPLETED(once=stop), first.terminate)
    first.run(data(), max_epochs=4, epoch_length=epoch_length)

    second, rest = recording_engine()
    names: list[Any] = []
    second.add_event_handler(
        Events.STARTED | Events.EPOCH_STARTED,
        lambda e: names.append((str(e.last_event_name), e.state.epoch, e.epoch_iteration)),
    )
    second.load_state_dict(saved[0])
    state = second.run(data())
    assert batches + rest == expected
    assert (state.epoch, state.iteration) == (whole.state.epoch, whole.state.iteration)
    length = epoch_length or 3
    assert names[0][0] == "started"
    done = stop % length
    if done:
        assert names[1] == ("epoch_started", stop // length + 1, done)


def test_a_state_saved_between_epochs_begins_the_next() -> None:
    engine, _ = recording_engine()
    saved: list[dict] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda e: saved.append(e.state_dict()))
    engine.run([0, 1, 2], max_epochs=4)
    other, batches = recording_engine()
    epochs: list[int] = []
    other.add_event_handler(Events.EPOCH_STARTED, lambda e: epochs.append(e.state.epoch))
    other.load_state_dict(saved[0])
    other.run([0, 1, 2])
    assert batches == [0, 1, 2] * 2
    assert epochs == [3, 4]


@pytest.mark.parametrize(
    ("state", "left"),
    [
        ({"iteration": 4, "max_epochs": 3, "epoch_length": 3}, [1, 2, 0, 1, 2]),
        ({"iteration": 3, "max_epochs": 2, "epoch_length": 3}, [0, 1, 2]),
        ({"epoch": 2, "max_epochs": 3, "epoch_length": 3}, [0, 1, 2]),
        ({"epoch": 1, "max_iters": 5, "epoch_length": 3}, [0, 1]),
    ],
)
def test_a_state_of_ignites_loads(state: dict, left: list[int]) -> None:
    engine, batches = recording_engine()
    engine.load_state_dict(state)
    engine.run([0, 1, 2])
    assert batches == left


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"iteration": 1, "max_epochs": 3}, "lacks 'epoch_length'"),
        ({"iteration": 1, "epoch_length": 3}, "exactly one of 'max_epochs', 'max_iters'"),
        ({"max_epochs": 1, "epoch_length": 3}, "lacks 'iteration' and 'epoch'"),
        ({"iteration": 1, "max_epochs": 1, "epoch_length": None}, "needs 'epoch_length'"),
    ],
)
def test_a_state_that_says_too_little_is_refused(state: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(lambda engine, batch: None).load_state_dict(state)
    with pytest.raises(TypeError, match="must be a mapping"):
        Engine(lambda engine, batch: None).load_state_dict([])


def test_user_keys_and_event_counts_go_with_the_state() -> None:
    engine = Engine(lambda engine, batch: engine.fire_event("tick"))
    engine.register_events("tick")
    engine.state_dict_user_keys.append("alpha")
    engine.state.alpha = 0.5
    engine.run([0, 1, 2], max_epochs=2)
    other = Engine(lambda engine, batch: None)
    other.state_dict_user_keys.append("alpha")
    other.load_state_dict(through_a_file(engine.state_dict()))
    assert other.state.alpha == 0.5
    assert other.state.get_event_attrib_value("tick") == 6
    with pytest.raises(ValueError, match="lacks the user's key 'alpha'"):
        other.load_state_dict({"iteration": 0, "max_epochs": 1, "epoch_length": 1})


def test_a_finished_run_lets_its_walk_over_the_data_go_and_can_be_continued() -> None:
    walks: list[weakref.ref[Any]] = []

    class Data:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[int]:
            walk = self.walk()
            walks.append(weakref.ref(walk))
            return walk

        def walk(self) -> Generator[int, None, None]:
            yield from (1, 2, 3)

    seen: list[int] = []
    engine = Engine(lambda engine, batch: seen.append(batch))
    ends: list[int] = []
    engine.add_event_handler(
        Events.DATALOADER_STOP_ITERATION, lambda engine: ends.append(engine.state.iteration)
    )
    engine.run(Data(), max_epochs=2)
    assert [walk() for walk in walks] == [None, None]
    engine.run(max_epochs=3)
    assert seen == [1, 2, 3] * 3
    assert ends == [3, 6]
