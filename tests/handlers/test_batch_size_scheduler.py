"""The batch size changes between epochs; the order of the data does not."""

from __future__ import annotations

from itertools import chain
from typing import Any

import ignite.handlers.param_scheduler
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from cookfire.distributed import DataOrder, auto_dataloader
from cookfire.engine import Engine, Events
from cookfire.handlers import BatchSizeScheduler, RunState
from tests.handlers.ranks import change_batch_size


def doubling(epoch: int) -> int:
    return 4 * 2**epoch


class Training:
    """Remembers each batch."""

    def __init__(self, workers: int = 0, **kwargs: Any) -> None:
        self.seen: list[tuple[int, list[int]]] = []
        self.trainer = Engine(
            lambda engine, batch: self.seen.append((engine.state.epoch, batch.tolist()))
        )
        kwargs = {"batch_size": 4, "shuffle": True} | kwargs
        self.loader = auto_dataloader(range(50), num_workers=workers, **kwargs)
        self.scheduler = BatchSizeScheduler(self.loader, doubling, save_history=True)
        self.scheduler.attach(self.trainer)
        self.state = RunState(self.trainer)


def test_an_epoch_is_one_pass_in_the_same_order_cut_where_the_schedule_says() -> None:
    training = Training()
    training.trainer.run(training.loader, max_epochs=3)
    for epoch in (1, 2, 3):
        batches = [batch for number, batch in training.seen if number == epoch]
        size = doubling(epoch - 1)
        assert [len(batch) for batch in batches] == [size] * (50 // size) + [50 % size]
        # What a loader with one batch gives: the epoch's order.
        whole = DataOrder(50, 50, shuffle=True)
        whole.set_position(epoch)
        assert list(chain(*batches)) == next(iter(whole))
    history: Any = vars(training.trainer.state)["param_history"]
    assert history == {"batch_size": [4, 8, 16]}


@pytest.mark.parametrize(
    ("iteration", "workers"), [(5, 0), (13, 0), (17, 0), (17, 2), (20, 0), (24, 0)]
)
def test_it_goes_on_in_the_middle_of_an_epoch_with_its_size(iteration: int, workers: int) -> None:
    whole = Training()
    saved: list[Any] = []
    whole.trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=iteration),
        lambda: saved.append(whole.state.state_dict()),
    )
    whole.trainer.run(whole.loader, max_epochs=3)
    part = Training(workers)
    part.state.load_state_dict(saved[0])
    part.trainer.run(part.loader)
    assert part.seen == whole.seen[iteration:]
    assert part.scheduler.state_dict() == whole.scheduler.state_dict()


def test_an_epoch_length_of_ones_own_is_kept_and_torchs_sampler_works() -> None:
    sizes: list[int] = []
    trainer = Engine(lambda engine, batch: sizes.append(len(batch)))
    loader = DataLoader(torch.arange(20), batch_size=5)
    BatchSizeScheduler(loader, lambda epoch: 5 * (epoch + 1)).attach(trainer)
    trainer.run(loader, max_epochs=2)
    assert sizes == [5, 5, 5, 5, 10, 10]
    training = Training()
    training.trainer.run(training.loader, max_epochs=2, epoch_length=3)
    # The first pass goes on: what is set in its middle takes effect with the next.
    assert [len(batch) for _, batch in training.seen] == [4] * 6
    shared = auto_dataloader(
        torch.arange(20),
        batch_sampler=BatchSampler(SequentialSampler(range(20)), 5, False),
    )
    scheduler = BatchSizeScheduler(shared, lambda epoch: 10)
    scheduler(None)
    assert [len(batch) for batch in shared] == [10, 10]


def test_simulated_sizes_are_ignites() -> None:
    theirs = ignite.handlers.param_scheduler.BatchSizeScheduler
    assert BatchSizeScheduler.simulate_values(4, scheduler_fn=doubling) == theirs.simulate_values(
        4, scheduler_fn=doubling
    )


def test_sizes_are_those_of_the_global_batch_and_every_process_changes_with_the_others(
    processes: Any,
) -> None:
    first, second = processes(2, change_batch_size)
    for one, other in zip(first["seen"], second["seen"], strict=True):
        assert len(one) == len(other)
    training = Training()
    training.trainer.run(training.loader, max_epochs=3)
    alone = [batch for _, batch in training.seen]
    together = [a + b for a, b in zip(first["seen"], second["seen"], strict=True)]
    assert together == alone
    assert "7: expected a batch size, a positive whole number that 2 processes" in first["error"]


def test_mistakes_are_told() -> None:
    loader = Training().loader
    with pytest.raises(TypeError, match="must be a DataLoader, got list"):
        BatchSizeScheduler([1], doubling)
    with pytest.raises(ValueError, match="torch's BatchSampler, got NoneType"):
        BatchSizeScheduler(DataLoader(torch.arange(3), batch_size=None), doubling)
    with pytest.raises(TypeError, match="a function of the epoch, got 3"):
        BatchSizeScheduler(loader, 3)
    with pytest.raises(ValueError, match=r"scheduler_fn\(0\) returned 0"):
        BatchSizeScheduler(loader, lambda epoch: 0)(None)
    with pytest.raises(ValueError, match="needs scheduler_fn="):
        BatchSizeScheduler.simulate_values(3)
