"""Refusing what needs all processes at each batch, where some have a batch less than others."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ._order import DataOrder

_wrapped: WeakSet[nn.Module] = WeakSet()


def note_wrapped(model: nn.Module) -> None:
    """Remember a model whose passes all processes have to make together."""
    _wrapped.add(model)


@contextmanager
def refuse_uneven(data: object) -> Iterator[None]:
    """Refuse training in this block if ``data`` give some processes a batch less than others.

    That is so with :func:`auto_dataloader` where nothing is shuffled and the last batch has fewer
    items than there are processes: right for evaluation, in which each item counts once. In
    training the others would wait for a process that has no batch. Every process knows the plan,
    so nothing is exchanged; data that are even cost nothing, not even a look at each step.

    An ``Engine`` does this in each run; a loop of your own may.

    Args:
        data: What the block iterates over.

    Raises:
        ValueError: (where a model that :func:`auto_model` wrapped is called) The model is trained,
            or its parameters are sharded, so that each pass gathers them, or a process has no batch
            at all and the model has buffers, which the first pass makes equal.

    Example:
        >>> from cookfire.distributed import auto_dataloader
        >>> loader = auto_dataloader(range(5), batch_size=4)
        >>> with refuse_uneven(loader):
        ...     batches = [batch.tolist() for batch in loader]
    """
    hooks: list[Any] = []
    if (order := uneven_order(data)) is not None:
        hooks = [
            # Before those that gather parameters.
            model.register_forward_pre_hook(functools.partial(_check, order), prepend=True)
            for model in list(_wrapped)
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check(order: DataOrder, model: nn.Module, _: object) -> None:
    what: str | None = None
    if model.training and torch.is_grad_enabled():
        what = "training"
    elif not isinstance(model, DistributedDataParallel):
        what = "a sharded model, whose passes gather its parameters"
    elif order.size < order.world_size and next(model.buffers(), None) is not None:
        what = "a model with buffers, which its first pass makes equal everywhere"
    if what is None:
        return
    raise ValueError(
        f"{what}: expected equally many batches in all processes, given {order.size} items in "
        f"batches of {order.batch_size}, of which the last is too small for "
        f"{order.world_size} processes, so that some would wait for ever; give auto_dataloader "
        "shuffle=True, drop_last=True or another batch_size"
    )


def uneven_order(data: object) -> DataOrder | None:
    """The order of ``data`` if it gives some processes a batch less than others."""
    sampler = getattr(data, "sampler", None)  # of single items: it has an order
    found = (data, getattr(data, "batch_sampler", None), sampler, getattr(sampler, "order", None))
    order = next((order for order in found if isinstance(order, DataOrder)), None)
    return order if order is not None and order.uneven else None
