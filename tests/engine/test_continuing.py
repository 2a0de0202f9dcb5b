"""Runs that go on: extended, repeated, saved and loaded, also from a state of ignite's."""

from __future__ import annotations

import io
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from cookfire.distributed import DataOrder
from cookfire.engine import Engine, Events
from tests.engine.engines import recording_engine


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
