"""Reproducible data order for any loader."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, WeightedRandomSampler

from cookfire.engine import DeterministicEngine, Events
from cookfire.engine.deterministic import (
    ReproducibleBatchSampler,
    keep_random_state,
    update_dataloader,
)

DATA = [torch.tensor(float(number)) for number in range(10)]


def shuffled(workers: int = 0) -> DataLoader[Any]:
    return DataLoader(DATA, batch_size=3, shuffle=True, num_workers=workers)


def weighted(workers: int = 0) -> DataLoader[Any]:
    sampler = WeightedRandomSampler([1.0, 5.0] * 5, num_samples=10)
    return DataLoader(DATA, batch_size=3, sampler=sampler, num_workers=workers)


def recording_engine(seed: int = 7) -> tuple[DeterministicEngine, list[list[float]]]:
    batches: list[list[float]] = []

    def step(engine: DeterministicEngine, batch: torch.Tensor) -> None:
        batches.append(batch.tolist() + torch.rand(2).tolist())

    engine = DeterministicEngine(step)
    engine.state.seed = seed
    return engine, batches


@pytest.mark.parametrize("make", [shuffled, weighted])
def test_runs_are_equal_whatever_was_drawn_before(make: Any) -> None:
    runs = []
    for noise in range(2):
        torch.rand(noise)
        engine, batches = recording_engine()
        engine.run(make(), max_epochs=3)
        runs.append(batches)
    assert runs[0] == runs[1]
    assert runs[0][:4] != runs[0][4:8]
    other, batches = recording_engine(seed=8)
    other.run(make(), max_epochs=3)
    assert batches != runs[0]


@pytest.mark.parametrize("make", [shuffled, weighted])
@pytest.mark.parametrize("stop", [2, 4, 5, 7])
@pytest.mark.parametrize("workers", [(0, 0), (0, 1)])
def test_a_run_continues_in_the_middle_of_an_epoch(
    make: Any, stop: int, workers: tuple[int, int]
) -> None:
    whole, expected = recording_engine()
    whole.run(make(), max_epochs=3)

    first, batches = recording_engine()
    saved: list[Any] = []

    @first.on(Events.ITERATION_COMPLETED(once=stop))
    def save(engine: DeterministicEngine) -> None:
        saved.extend([engine.state_dict(), torch.get_rng_state()])
        engine.terminate()

    first.run(make(workers[0]), max_epochs=3)
    second, rest = recording_engine(seed=0)
    second.load_state_dict(saved[0])
    torch.set_rng_state(saved[1])
    second.run(make(workers[1]), max_epochs=3)
    assert batches + rest == expected


def test_the_users_loader_stays_as_it_is() -> None:
    loader = shuffled()
    sampler = loader.batch_sampler
    engine, _ = recording_engine()
    engine.run(loader)
    assert loader.batch_sampler is sampler


def test_data_that_is_no_loader_is_walked_as_usual() -> None:
    batches: list[Any] = []
    engine = DeterministicEngine(lambda engine, batch: batches.append(batch))
    engine.run([1, 2, 3], max_epochs=2)
    engine.run(epoch_length=2)
    assert batches == [1, 2, 3, 1, 2, 3, None, None]


def test_a_batch_sampler_becomes_a_function_of_seed_and_epoch() -> None:
    sampler = ReproducibleBatchSampler(BatchSampler(RandomSampler(DATA), 3, drop_last=True), seed=3)
    state = torch.get_rng_state()
    first = list(sampler)
    assert torch.equal(state, torch.get_rng_state())
    assert len(sampler) == 3
    sampler.set_position(2, 1)
    tail = list(sampler)
    sampler.set_position(2)
    assert list(sampler)[1:] == tail
    sampler.set_position(1)
    assert list(sampler) == first
    skipping = ReproducibleBatchSampler(sampler.batch_sampler, start_iteration=2, seed=3)
    assert list(skipping) == first[2:]
    with pytest.raises(TypeError, match="expects a batch sampler, got int"):
        ReproducibleBatchSampler(3)


def test_an_updated_loader_keeps_everything_but_the_sampler() -> None:
    loader = DataLoader(
        DATA,
        batch_size=3,
        num_workers=1,
        prefetch_factor=4,
        persistent_workers=True,
        collate_fn=list,
        timeout=5,
    )
    sampler = BatchSampler(RandomSampler(DATA), 2, drop_last=False)
    updated = update_dataloader(loader, sampler)
    assert updated.batch_sampler is sampler
    for name in ("num_workers", "prefetch_factor", "persistent_workers", "collate_fn", "timeout"):
        assert getattr(updated, name) == getattr(loader, name)


def test_keep_random_state_keeps_all_three_generators() -> None:
    @keep_random_state
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first = draw()
    assert draw() == first
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == first
