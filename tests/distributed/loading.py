"""Data, samplers and ways of reading them that several tests load from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    SequentialSampler,
)

import cookfire.distributed as idist


class Keys(Dataset[Any]):
    """A data set that gives back what it is asked for, and a number drawn in its process."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, key: Any) -> Any:
        return key, int(torch.randint(1_000_000, ()))


class Endless(Sampler[int]):
    """A sampler without end, as for training by iterations."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield int(torch.randint(100, ()))


class Stream(IterableDataset[int]):
    """Twelve items, of which each process has its own."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(idist.get_rank(), 12, idist.get_world_size()))


class Counted(SequentialSampler):
    """A sampler that wants to know the epoch."""

    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        """Keep what was said."""
        self.epoch = epoch


def lists(loader: Any) -> list[Any]:
    """Return the batches of a pass."""
    return [batch.tolist() for batch in loader]


def second_epoch(loader: DataLoader[Any], batch: int = 0) -> list[Any]:
    """Return the batches of epoch 2, from one of them on."""
    assert idist.set_position(loader, 2, batch)
    return lists(loader)
