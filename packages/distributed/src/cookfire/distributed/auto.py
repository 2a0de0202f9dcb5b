"""Fitting data loaders, models and optimizers to the processes and devices that there are."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any, SupportsIndex, cast

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
)

from ._checks import check_type
from ._group import backend, device, get_rank, get_world_size
from ._log import announce
from ._model import auto_model, auto_optim, no_sync
from ._order import DataOrder, derive_seed
from ._sharding import DistributedProxySampler, SharedBatches, SingleItems

__all__ = ["DistributedProxySampler", "auto_dataloader", "auto_model", "auto_optim", "no_sync"]


def auto_dataloader(
    dataset: Dataset[Any] | Sequence[Any],
    *,
    seed: int = 0,
    with_epoch: bool = False,
    **kwargs: Any,
) -> DataLoader[Any]:
    """A ``DataLoader`` of this process's share of the data.

    Its order is a pure function of (seed, epoch, batch) and the same for any number of processes
    and workers: see :class:`DataOrder`, also for what happens to a last, smaller batch. Nothing is
    drawn from torch's global random state. What else is given decides how the data are shared:

    - neither ``sampler`` nor ``batch_sampler``: by :class:`DataOrder`, which becomes the loader's
      ``batch_sampler`` (so ``loader.batch_size`` is None, as torch has it then);
    - a ``sampler`` or ``batch_sampler``: each of its batches is split among the processes, and one
      with fewer items than processes is dropped. A ``DistributedSampler``, and a ``batch_sampler``
      with ``set_position``, are taken as they are, since they know the processes already;
    - an ``IterableDataset``: it must itself yield different items in each process (ask
      :func:`get_rank`) and in each worker; only the batch size is divided.

    With the backend xla, batches come on the device, shared by all that this process drives; each
    batch is a graph.

    Args:
        dataset: Any data set, or a list of items.
        seed: What the order is derived from, the same in all processes. Torch's global seed has no
            say in it.
        with_epoch: Ask the data set for ``(epoch, index)`` instead of ``index``, so that it can
            make its augmentation a function of both.
        **kwargs: Those of ``DataLoader``. ``batch_size`` is that of the global batch, over all
            processes; ``num_workers`` is for each process, as given. ``pin_memory`` is on by
            default where :func:`device` is a CUDA device. A ``generator`` has no say in the order
            either: it is seeded anew at each pass.

    Raises:
        ValueError: The number of processes does not divide ``batch_size``, or options exclude one
            another.

    Example:
        >>> loader = auto_dataloader(range(10), batch_size=4, shuffle=True)
        >>> [len(batch) for batch in loader]
        [4, 4, 2]
    """
    dataset = cast("Dataset[Any]", dataset)  # all that a DataLoader asks of it, a sequence has too
    check_type("auto_dataloader: seed", seed, SupportsIndex, "a whole number")
    generator = torch.Generator().manual_seed(derive_seed(seed, 0, -1, get_rank()))
    options: dict[str, Any] = {"generator": generator, "pin_memory": device().type == "cuda"}
    options |= kwargs
    sampler, batch_sampler = options.get("sampler"), options.get("batch_sampler")
    iterable = isinstance(dataset, IterableDataset)
    if with_epoch and (iterable or sampler is not None or batch_sampler is not None):
        raise ValueError("with_epoch=True: expected neither iterable data nor a sampler")
    if iterable or isinstance(sampler, DistributedSampler):
        options["batch_size"] = _per_process(options.get("batch_size", 1))
        if iterable and get_world_size() > 1:
            _say("iterable data are not shared: they must differ from process to process")
    elif batch_sampler is not None:
        if not _knows_processes(batch_sampler):
            options["batch_sampler"] = SharedBatches(batch_sampler, seed=seed, generator=generator)
    elif options.get("batch_size", 1) is None:
        # A global batch has an item for each process, which takes its own out of it.
        options["batch_size"] = get_world_size()
        order = _batches(dataset, options, seed, with_epoch, generator)
        options["sampler"], options["batch_size"] = SingleItems(order), None
    else:
        options["batch_sampler"] = _batches(dataset, options, seed, with_epoch, generator)
    if backend() == "xla":
        from ._xla import XLALoader

        return XLALoader(dataset, **options)
    return DataLoader(dataset, **options)


def _batches(
    dataset: Dataset[Any],
    options: dict[str, Any],
    seed: int,
    with_epoch: bool,
    generator: torch.Generator,
) -> DataOrder | SharedBatches:
    """The batch sampler that stands for the options it takes out of ``options``."""
    batch_size, sampler = options.pop("batch_size", 1), options.pop("sampler", None)
    shuffle, drop_last = bool(options.pop("shuffle", False)), options.pop("drop_last", False)
    _per_process(batch_size)
    batches: DataOrder | SharedBatches
    if sampler is None:
        batches = DataOrder(
            len(cast("Sized", dataset)),
            batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            with_epoch=with_epoch,
            generator=generator,
        )
    elif shuffle:
        raise ValueError("shuffle=True: expected no sampler beside it, since that has an order")
    else:
        whole = BatchSampler(sampler, batch_size, drop_last)
        batches = SharedBatches(whole, seed=seed, generator=generator)
    if batches.dropped and not drop_last:
        _say(
            f"{batches.dropped} of the items are left out of each epoch: the last batch has fewer "
            f"than the {get_world_size()} processes need"
        )
    return batches


def _knows_processes(batch_sampler: object) -> bool:
    return hasattr(batch_sampler, "set_position") or isinstance(
        getattr(batch_sampler, "sampler", None), DistributedSampler
    )


def _per_process(batch_size: int | None) -> int | None:
    """One process's part of a global batch."""
    if batch_size is None:
        return None
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(f"batch_size {batch_size!r}: expected a whole number, 1 or more")
    world_size = get_world_size()
    if batch_size % world_size == 0:
        return batch_size // world_size
    lower = batch_size // world_size * world_size
    nearest = f"{lower} or {lower + world_size}" if lower else f"{world_size}"
    raise ValueError(
        f"batch_size {batch_size}: it is that of the global batch and has to be shared equally by "
        f"{world_size} processes; the nearest that can be: {nearest}"
    )


def _say(message: str) -> None:
    announce(__name__, message)
