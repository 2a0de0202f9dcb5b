"""The order of data as a pure function of (seed, epoch, batch).

Because nothing else enters, neither the number of workers nor the number of processes changes what
a global batch holds, and a run resumes in the middle of an epoch without reading what came before.
"""

from __future__ import annotations

import hashlib
import operator
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Sampler

from ._group import get_rank, get_world_size

T_co = TypeVar("T_co", covariant=True)


def derive_seed(seed: int, *path: int) -> int:
    """A seed of its own for each purpose: a pure function of ``seed`` and ``path``.

    Args:
        seed: The run's seed.
        *path: What the seed is for, as numbers: ``(epoch,)`` for the order of an epoch,
            ``(epoch, index)`` for the augmentation of a sample.

    Returns:
        63 bits (the first of BLAKE2b over the decimal text ``seed/path0/path1``), the same on every
        platform. Seeds of different paths are unrelated, unlike ``seed + epoch``.

    Example:
        >>> derive_seed(0, 1)
        9221934688551543782
    """
    text = "/".join(str(operator.index(number)) for number in (seed, *path))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def share_of(size: int, rank: int, world_size: int) -> slice:
    """The contiguous part of ``size`` things that is ``rank``'s; parts differ by at most one."""
    least, more = divmod(size, world_size)
    start = rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))


@dataclass(frozen=True, eq=False)
class _Position:
    """Where a pass begins, and whether the next one is of the next epoch."""

    epoch: int
    batch: int
    counts: bool


class PositionedSampler(Sampler[T_co]):
    """A sampler that can start at any batch of any epoch, and knows the process it is in.

    Until somebody calls :meth:`set_position`, passes count themselves: the first is epoch 1, the
    next epoch 2, so that a plain ``for`` loop shuffles anew each time. From then on the position
    stays: each pass after the next one is the whole of the same epoch.

    Args:
        rank: The process to yield the share of; by default this one, asked at each pass.
        world_size: How many processes share a batch; by default as many as there are.
        seed: What all randomness is derived from.
        generator: Seeded anew at each pass as a function of (seed, epoch, rank). A ``DataLoader``
            that has the same one gives its workers' random states the same property.
    """

    def __init__(
        self,
        *,
        seed: int,
        rank: int | None,
        world_size: int | None,
        generator: torch.Generator | None,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise ValueError(f"rank={rank}, world_size={world_size}: expected both or neither")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ValueError(f"rank {rank}: expected a rank from 0 to {world_size - 1}")
        self.seed = seed
        self.generator = generator
        self._rank = rank
        self._world_size = world_size
        self._next = _Position(1, 0, counts=True)

    @property
    def rank(self) -> int:
        """The process whose share is yielded."""
        return get_rank() if self._rank is None else self._rank

    @property
    def world_size(self) -> int:
        """How many processes share a batch."""
        return get_world_size() if self._world_size is None else self._world_size

    @property
    def next_position(self) -> tuple[int, int]:
        """The epoch and the batch (from 0) at which the next pass starts."""
        return self._next.epoch, self._next.batch

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Let the next pass start at ``batch`` (from 0) of ``epoch``."""
        if epoch < 0 or batch < 0:
            raise ValueError(f"epoch {epoch}, batch {batch}: expected neither to be negative")
        self._next = _Position(epoch, batch, counts=False)

    def __iter__(self) -> Iterator[T_co]:
        # Not a generator: the position is the one of now, not of the first next().
        if self.generator is not None:
            self.generator.manual_seed(derive_seed(self.seed, self._next.epoch, -1, self.rank))
        return self._begin(self._next)

    def _begin(self, position: _Position) -> Iterator[T_co]:
        # Used up by the first next() only: a loader with workers makes two iterators for a pass,
        # and advances the second.
        if self._next is position:
            epoch = position.epoch + 1 if position.counts else position.epoch
            self._next = _Position(epoch, 0, position.counts)
        yield from self._one_pass(position.epoch, position.batch)

    @abstractmethod
    def _one_pass(self, epoch: int, batch: int) -> Iterator[T_co]:
        """Yield from ``batch`` of ``epoch`` to the epoch's end."""


class DataOrder(PositionedSampler[list[Any]]):
    """A batch sampler whose batch ``k`` of epoch ``e`` is a pure function of ``(seed, e, k)``.

    Epoch ``e`` is ``range(size)``, or a permutation drawn from ``derive_seed(seed, e)``. Global
    batch ``k`` is its items from ``k * batch_size`` to ``(k + 1) * batch_size``, of which each
    process takes a contiguous share: the processes' shares, one after the other, are exactly the
    batch that one process alone would see.

    The last batch of an epoch may be smaller than the others, and then:

    - Not shuffled (evaluation): every item is seen once, by one process. Shares differ by at most
      one item; where the last batch has fewer items than there are processes, the last ones have
      one batch less. No item is repeated to fill up. Not for training, in which every process needs
      as many batches as the others: an ``Engine`` refuses it (:func:`refuse_uneven`); shuffle
      there, or drop the last batch.
    - Shuffled (training): a last batch with fewer items than there are processes is dropped, since
      a process without data would keep the others waiting. In a larger one shares may differ by
      one item; ``drop_last=True`` avoids the slightly unequal weights.

    Args:
        size: The number of items in the data.
        batch_size: The number of items in a global batch, over all processes.
        shuffle: Draw a new order for every epoch.
        seed: What the orders are derived from.
        drop_last: Drop a last batch that is smaller than ``batch_size``.
        rank: The process to yield the share of; by default this one.
        world_size: How many processes share a batch; by default as many as there are.
        with_epoch: Yield ``(epoch, index)`` instead of ``index``, for a data set whose augmentation
            is a pure function of (seed, epoch, index).
        generator: A generator to seed anew at each pass, as a function of (seed, epoch, rank).

    Raises:
        ValueError: ``size`` is negative, ``batch_size`` not positive or less than the number of
            processes, or there is no such rank.

    Example:
        >>> order = DataOrder(10, 4, shuffle=False, rank=1, world_size=2)
        >>> list(order)
        [[2, 3], [6, 7], [9]]
        >>> order.set_position(epoch=3, batch=1)
        >>> list(order)
        [[6, 7], [9]]
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        with_epoch: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size, generator=generator)
        if size < 0:
            raise ValueError(f"size {size}: expected 0 or more")
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: expected 1 or more")
        if batch_size < self.world_size:
            raise ValueError(
                f"batch_size {batch_size}: it is that of the global batch; expected at least one "
                f"item for each of the {self.world_size} processes"
            )
        self.size = size
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.with_epoch = with_epoch

    @property
    def dropped(self) -> int:
        """How many items an epoch leaves out; when shuffling, other ones in every epoch."""
        last = self.size % self.batch_size
        return last if self.drop_last or (self.shuffle and last < self.world_size) else 0

    @property
    def uneven(self) -> bool:
        """Whether some processes have a batch less than others, as only evaluation may."""
        return 0 < (self.size - self.dropped) % self.batch_size < self.world_size

    def __len__(self) -> int:
        """The number of batches that a whole epoch has for this process."""
        full, last = divmod(self.size - self.dropped, self.batch_size)
        return full + (last > self.rank)

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Let the next pass start at ``batch`` of ``epoch``, and the ones after it at its start.

        Raises:
            ValueError: An epoch has not so many batches: the position is of other data.
        """
        batches = -(-(self.size - self.dropped) // self.batch_size)
        if batch > batches:
            raise ValueError(
                f"batch {batch}: an epoch of {self.size} items has {batches} batches of "
                f"{self.batch_size}; was the position saved with other data or batch size?"
            )
        super().set_position(epoch, batch)

    def _one_pass(self, epoch: int, batch: int) -> Iterator[list[Any]]:
        order = self._order(epoch)
        rank, world_size = self.rank, self.world_size
        batch_size = self.batch_size  # what it is set to now takes effect with the next pass
        for start in range(batch * batch_size, self.size - self.dropped, batch_size):
            whole = order[start : start + batch_size]
            indices = whole[share_of(len(whole), rank, world_size)].tolist()
            if indices:
                yield [(epoch, index) for index in indices] if self.with_epoch else indices

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.size)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        return torch.randperm(self.size, generator=generator)


def set_position(data: object, epoch: int, batch: int) -> bool:
    """Let the next pass over ``data`` start at ``batch`` of ``epoch``, if ``data`` can do that.

    Asked are ``data`` itself, its ``batch_sampler`` and its ``sampler``: the first with a method
    ``set_position(epoch, batch)`` decides. Samplers with ``set_epoch`` alone, such as torch's
    ``DistributedSampler``, are told the epoch.

    Args:
        data: What an engine iterates over: a ``DataLoader``, any iterable.
        epoch: The number of the pass, from 1.
        batch: The batch to start at, from 0.

    Returns:
        True if the next pass starts there; False if nobody knew how, so that a caller who wants to
        start past the beginning has to skip batches itself.

    Example:
        >>> set_position([1, 2, 3], epoch=1, batch=0)
        False
    """
    batch_sampler = getattr(data, "batch_sampler", None)
    sampler = getattr(data, "sampler", None)
    for holder in (data, batch_sampler, sampler):
        if callable(jump := getattr(holder, "set_position", None)):
            jump(epoch, batch)
            return True
    for holder in (batch_sampler, getattr(batch_sampler, "sampler", None), sampler):
        if callable(name_epoch := getattr(holder, "set_epoch", None)):
            name_epoch(epoch)
            return batch == 0
    return False
