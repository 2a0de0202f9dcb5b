"""Runs whose data order depends on the seed and the position alone.

Batch ``k`` of pass ``e`` over the data is a pure function of (seed, e, k). So a run that
continues from a checkpoint jumps to its batch without reading what came before, and what else
draws random numbers in between does not matter.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack
from typing import Any, ParamSpec, Self, TypeVar

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler

from cookfire.distributed import DataOrder, derive_seed, get_rank, set_position, xla
from cookfire.engine._engine import Engine
from cookfire.engine.utils import manual_seed

__all__ = [
    "DataOrder",
    "DeterministicEngine",
    "ReproducibleBatchSampler",
    "derive_seed",
    "keep_random_state",
    "set_position",
    "update_dataloader",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def keep_random_state(func: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Make a function leave python's, numpy's and torch's global generators as it found them.

    Example:
        >>> @keep_random_state
        ... def look_at_samples():
        ...     return torch.rand(1)
        >>> _ = torch.manual_seed(0); first = look_at_samples()
        >>> torch.equal(first, look_at_samples())
        True
    """

    @functools.wraps(func)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        python, numbers, on_xla = random.getstate(), np.random.get_state(), xla.get_random_state()
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            try:
                return func(*args, **kwargs)
            finally:
                random.setstate(python)
                np.random.set_state(numbers)
                if on_xla is not None:
                    xla.set_random_state(on_xla)

    return wrapper


class ReproducibleBatchSampler(BatchSampler):
    """Any batch sampler, made a pure function of (seed, epoch).

    The wrapped sampler is walked under generators seeded by (seed, epoch), which are put back
    afterwards; so samplers that draw from the global generators (RandomSampler,
    WeightedRandomSampler, your own) are reproducible without being changed.

    Args:
        batch_sampler: yields lists of indices.
        start_iteration: batches that walks leave out, until ``set_position`` says otherwise.
        seed: of the order.

    Raises:
        TypeError: ``batch_sampler`` can't be iterated over.

    Example:
        >>> from torch.utils.data import RandomSampler
        >>> sampler = BatchSampler(RandomSampler(range(4)), batch_size=2, drop_last=False)
        >>> order = ReproducibleBatchSampler(sampler, seed=1)
        >>> first = list(order)
        >>> order.set_position(epoch=1, batch=1)
        >>> list(order) == first[1:]
        True
    """

    def __init__(
        self,
        batch_sampler: Iterable[list[int]],
        start_iteration: int | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(batch_sampler, Iterable):
            raise TypeError(
                "ReproducibleBatchSampler expects a batch sampler, "
                f"got {type(batch_sampler).__name__}"
            )
        self.batch_sampler = batch_sampler
        self.batch_size = getattr(batch_sampler, "batch_size", 1)
        self.drop_last = getattr(batch_sampler, "drop_last", False)
        self.seed = seed
        self._epoch = 1
        self._skip = start_iteration or 0

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Make walks begin at ``batch`` of ``epoch``, until the next call."""
        self._epoch, self._skip = epoch, batch

    def __iter__(self) -> Iterator[list[int]]:
        # A loader with workers asks for an iterator twice, so nothing may be used up here.
        return iter(self._batches(self._epoch)[self._skip :])

    def __len__(self) -> int:
        if not isinstance(self.batch_sampler, Sized):
            raise TypeError(f"{type(self.batch_sampler).__name__} has no length")
        return len(self.batch_sampler)

    def _batches(self, epoch: int) -> list[list[int]]:
        @keep_random_state
        def walk() -> list[list[int]]:
            seed = derive_seed(self.seed, epoch)
            manual_seed(seed)
            with ExitStack() as stack:
                for generator in _generators_of(self.batch_sampler):
                    stack.callback(generator.set_state, generator.get_state())
                    generator.manual_seed(seed)
                return list(self.batch_sampler)

        return walk()


def _generators_of(batch_sampler: object) -> list[torch.Generator]:
    """Return the generators that a batch sampler and what it wraps have of their own."""
    holders = (batch_sampler, getattr(batch_sampler, "sampler", None))
    found = (getattr(holder, "generator", None) for holder in holders)
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def update_dataloader(
    dataloader: DataLoader[Any],
    new_batch_sampler: BatchSampler | Sampler[list[int]],
    *,
    seed: int = 0,
) -> DataLoader[Any]:
    """Return a loader like ``dataloader`` with another batch sampler; the given one stays as it is.

    The new loader is a shallow copy, of the same class. It has workers and a generator of its own,
    so that beginning a walk draws nothing from the global generator.

    Args:
        dataloader: the loader to copy.
        new_batch_sampler: what the copy takes its batches from.
        seed: of the generator, from which the workers' random states follow.
    """
    return _with_order(dataloader, "batch_sampler", new_batch_sampler, seed)


def _with_order(
    dataloader: DataLoader[Any], name: str, order: object, seed: int
) -> DataLoader[Any]:
    changed = copy.copy(dataloader)
    # Past the loader's own attribute setter, which refuses to change a sampler. `_iterator` is
    # that of persistent workers.
    vars(changed).update(
        {name: order, "generator": torch.Generator().manual_seed(seed), "_iterator": None}
    )
    return changed


class DeterministicEngine(Engine):
    """An engine that walks any DataLoader in an order that (seed, pass, batch) alone decide.

    Loaders that know their position (made by ``cookfire.distributed.auto_dataloader``) are used
    as they are; of others the batch sampler (or, if they make no batches, the sampler) is wrapped
    in a :class:`ReproducibleBatchSampler`, on a copy of the loader. Before each walk torch's,
    numpy's and python's generators are seeded by (seed, pass), except when a walk continues in its
    middle: then their states are those that the checkpoint restored.

    Workers start anew at each walk, persistent ones too, with random states that follow from
    (seed, pass, rank). They do not know where a walk continues: what a data set draws in workers
    is repeated by a resumed run from the next pass on. For more, let the data set derive it from
    the epoch and the index (``auto_dataloader(..., with_epoch=True)``).

    ``state.seed`` is the seed: set it before ``run``; it is 0 by default, and saved.

    Example:
        >>> engine = DeterministicEngine(lambda engine, batch: batch.tolist())
        >>> loader = DataLoader(torch.arange(4), batch_size=4, shuffle=True)
        >>> first = engine.run(loader).output
        >>> engine.run(loader).output == first
        True
    """

    def __init__(self, process_function: Callable[[Self, Any], Any]) -> None:
        super().__init__(process_function)
        self.state.seed = 0
        self.state_dict_user_keys.append("seed")

    def _begin_walk(self, data: Iterable[Any], data_pass: int, skip: int) -> Iterator[Any]:
        seed = self.state.seed or 0
        if not skip:
            manual_seed(derive_seed(seed, data_pass))
        if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
            known = any(
                hasattr(order, "set_position") for order in (data.batch_sampler, data.sampler)
            )
            if not known:
                name = "sampler" if data.batch_sampler is None else "batch_sampler"
                order = ReproducibleBatchSampler(getattr(data, name), seed=seed)
                workers = derive_seed(seed, data_pass, -1, get_rank())
                data = _with_order(data, name, order, workers)
                vars(data)["persistent_workers"] = False  # the copy is for this walk alone
        return super()._begin_walk(data, data_pass, skip)
