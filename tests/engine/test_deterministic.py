"""Reproducible data order for any loader."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    WeightedRandomSampler,
)

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


class Drawing(Dataset[Any]):
    """A data set that draws, as an augmentation does."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return int(torch.randint(1_000_000, ()))


@pytest.mark.parametrize("persistent", [False, True])
def test_what_workers_draw_is_a_function_of_seed_and_pass(persistent: bool) -> None:
    def drawn(seed: int, resume_at: int | None = None) -> list[list[int]]:
        loader = DataLoader(Drawing(), batch_size=4, num_workers=1, persistent_workers=persistent)
        batches: list[list[int]] = []
        engine = DeterministicEngine(lambda _, batch: batches.append(batch.tolist()))
        engine.state.seed = seed
        if resume_at is not None:
            engine.load_state_dict({"iteration": resume_at, "epoch_length": 2, "max_epochs": 2,
                                    "seed": seed})  # fmt: skip
        engine.run(loader, max_epochs=2)
        return batches

    first = drawn(1)
    assert len({tuple(batch) for batch in first}) == 4
    assert drawn(1) == first
    assert drawn(1, resume_at=2) == first[2:]
    assert not {tuple(batch) for batch in drawn(2)} & {tuple(batch) for batch in first}


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": None, "shuffle": True},
        {"batch_size": 2, "shuffle": True, "generator": torch.Generator()},
    ],
)
def test_a_loader_without_batches_or_with_a_generator_goes_on_where_it_was(arguments: Any) -> None:
    batches: list[Any] = []

    def engine() -> DeterministicEngine:
        return DeterministicEngine(lambda _, batch: batches.append(str(batch)))

    engine().run(DataLoader(DATA, **arguments), max_epochs=2)
    whole, length = list(batches), len(batches) // 2
    assert whole[:length] != whole[length:]
    batches.clear()
    stopped = engine()
    stopped.add_event_handler(Events.ITERATION_COMPLETED(once=length + 2), stopped.interrupt)
    stopped.run(DataLoader(DATA, **arguments), max_epochs=2)
    resumed = engine()
    resumed.load_state_dict(stopped.state_dict())
    resumed.run(DataLoader(DATA, **arguments))
    assert batches == whole


def test_a_loaders_own_class_keeps_its_ways() -> None:
    class Negative(DataLoader[Any]):
        def __iter__(self) -> Any:
            return (-batch for batch in super().__iter__())

    batches: list[Any] = []
    engine = DeterministicEngine(lambda _, batch: batches.append(batch.tolist()))
    engine.run(Negative(DATA[:4], batch_size=2))
    assert batches == [[0.0, -1.0], [-2.0, -3.0]]
