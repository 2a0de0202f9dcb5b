"""What a run does after something went wrong, or was changed at an odd moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from cookfire.engine import Engine, EventEnum, Events, create_supervised_trainer


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

    data: Any = Data() if kind == "generator" else DataLoader(Data(), batch_size=1)  # type: ignore[arg-type]  # serves as a dataset
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
