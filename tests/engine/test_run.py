"""The run: order of events, data of all kinds, limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ignite.engine
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from cookfire.engine import Engine, Events, State
from tests.engine.engines import Unsized, recording_engine


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
