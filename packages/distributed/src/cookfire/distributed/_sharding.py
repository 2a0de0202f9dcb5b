"""Sharing a user's own samplers among processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any, cast

import torch
from torch.utils.data import BatchSampler, DistributedSampler, Sampler

from ._group import get_rank, get_world_size
from ._order import DataOrder, PositionedSampler, derive_seed, share_of


class SharedBatches(PositionedSampler[list[Any]]):
    """A user's batches, of which each process takes a contiguous share.

    All processes draw the same batches: the sampler draws from torch's global random state as it is
    after ``manual_seed(derive_seed(seed, epoch))``, which is swapped in for each batch and out
    again, so that neither sees the other's. A ``torch.Generator`` that the sampler has as its
    ``generator`` is seeded in the same way. Randomness of another kind it must seed equally
    everywhere, by its ``set_epoch``, which is called if it has one.

    A batch with fewer items than there are processes is dropped: nobody knows whether a process
    without data would keep others waiting.

    Args:
        batches: The batch sampler; its batches are global.
        seed: What the sampler's randomness is derived from.
        generator: A generator to seed anew at each pass.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(seed=seed, rank=None, world_size=None, generator=generator)
        self.batches = batches

    def __len__(self) -> int:
        """The number of batches of a pass (for a user's own batch sampler: none dropped)."""
        return len(cast("Sized", self.batches)) - (self.dropped > 0)

    @property
    def dropped(self) -> int:
        """How many items a pass leaves out, as far as it can be known beforehand."""
        if type(self.batches) is not BatchSampler or self.batches.drop_last:
            return 0
        if not isinstance(self.batches.sampler, Sized):
            return 0
        last = len(self.batches.sampler) % self.batches.batch_size
        return last if last < self.world_size else 0

    def _one_pass(self, epoch: int, batch: int) -> Iterator[list[Any]]:
        seed = derive_seed(self.seed, epoch)
        for holder in (self.batches, getattr(self.batches, "sampler", None)):
            if callable(name_epoch := getattr(holder, "set_epoch", None)):
                name_epoch(epoch)
            if isinstance(own := getattr(holder, "generator", None), torch.Generator):
                own.manual_seed(seed)
        return self._shares(seed, batch)

    def _shares(self, seed: int, skipped: int) -> Iterator[list[Any]]:
        random_state = _RandomState(seed)
        with random_state:
            batches = iter(self.batches)
        while True:
            with random_state:
                whole = next(batches, None)
            if whole is None:
                return
            if len(whole) < self.world_size:
                continue
            if skipped > 0:
                skipped -= 1
            else:
                yield list(whole)[share_of(len(whole), self.rank, self.world_size)]


class SingleItems(Sampler[Any]):
    """The items of an order one by one, for a loader that makes no batches.

    Args:
        order: An order whose global batches have one item a process.
    """

    def __init__(self, order: DataOrder | SharedBatches) -> None:
        self.order = order

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Let the next pass start at item ``batch`` of this process's items of ``epoch``."""
        self.order.set_position(epoch, batch)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Any]:
        return (item for (item,) in iter(self.order))


class DistributedProxySampler(DistributedSampler[Any]):
    """Make any sampler a distributed one: each process takes every ``num_replicas``-th index.

    All processes get equally many indices; where they do not come out even, the first ones are
    repeated, as by torch's ``DistributedSampler``. :func:`auto_dataloader` shares samplers without
    repeating any; this class is for loaders made by hand.

    Args:
        sampler: A finite sampler. It draws from torch's global random state, seeded by the epoch
            while it draws and put back afterwards, or has equally seeded randomness of its own.
        num_replicas: How many processes share the indices; by default as many as there are.
        rank: The process to yield the share of; by default this one.

    Raises:
        TypeError: ``sampler`` has no ``__len__`` or can't be iterated.

    Example:
        >>> from torch.utils.data import WeightedRandomSampler
        >>> weighted = WeightedRandomSampler([0.1, 0.9, 0.5], num_samples=4)
        >>> sampler = DistributedProxySampler(weighted, num_replicas=2, rank=0)
        >>> sampler.set_epoch(1)
        >>> len(list(sampler))
        2
    """

    def __init__(
        self, sampler: Sampler[Any], num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        if not (hasattr(sampler, "__len__") and hasattr(sampler, "__iter__")):
            raise TypeError(f"DistributedProxySampler: expected a sampler, given {sampler!r}")
        super().__init__(
            sampler,  # type: ignore[arg-type]  # torch asks its data set for the length alone
            num_replicas=get_world_size() if num_replicas is None else num_replicas,
            rank=get_rank() if rank is None else rank,
            shuffle=False,
        )
        self.sampler = sampler

    def __iter__(self) -> Iterator[Any]:
        with _RandomState(derive_seed(self.seed, self.epoch)):
            indices = list(self.sampler)
        said = len(cast("Sized", self.sampler))
        if len(indices) != said:
            raise ValueError(
                f"{self.sampler!r}: its length is {said}, and it gave {len(indices)} indices"
            )
        while indices and len(indices) < self.total_size:
            indices += indices[: self.total_size - len(indices)]
        return iter(indices[self.rank : self.total_size : self.num_replicas])


class _RandomState:
    """A random state of torch's CPU generator that is swapped in by ``with`` and goes on there."""

    def __init__(self, seed: int) -> None:
        self._mine = torch.Generator().manual_seed(seed).get_state()
        self._outer = self._mine

    def __enter__(self) -> None:
        self._outer = torch.get_rng_state()
        torch.set_rng_state(self._mine)

    def __exit__(self, *_: object) -> None:
        self._mine = torch.get_rng_state()
        torch.set_rng_state(self._outer)
