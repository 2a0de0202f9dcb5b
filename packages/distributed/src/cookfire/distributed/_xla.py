"""XLA: one device, all devices of one process (SPMD), or one process a device (replicas).

Which of them is not asked for: :func:`launch` starts replicas; any other process drives all the
devices that it sees, by SPMD if they are several. See ``docs/xla.md``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, Final
from weakref import WeakSet

import numpy as np
import torch
import torch_xla
import torch_xla.core.xla_model as xm
import torch_xla.distributed.spmd as xs
import torch_xla.runtime as xr
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from ._environment import Place
from ._order import derive_seed
from ._ragged import as_bytes, from_bytes

_FOLDS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "SUM": operator.add,
    "PRODUCT": operator.mul,
    "MIN": torch.minimum,
    "MAX": torch.maximum,
}
# What the devices themselves reduce; other dtypes are reduced on the host, exactly.
_ON_DEVICE: Final = (torch.float32, torch.bfloat16, torch.int32)
_prepared: WeakSet[Optimizer] = WeakSet()


class XLABackend:
    """The functions of a backend; see :class:`Backend`."""

    def initialize(self, **kwargs: Any) -> None:
        """Choose SPMD where this process alone drives several devices."""
        started = kwargs.get("world_size", 1)
        if not is_replica() and (started > 1 or xr.process_count() > 1):
            raise RuntimeError(
                f"backend 'xla': {max(started, xr.process_count())} processes were started, of "
                "which XLA's devices know nothing: start one, which drives all devices of its "
                "host, or replicas by Parallel(backend='xla', nproc_per_node=...)"
            )
        if not is_replica() and xr.global_runtime_device_count() > 1 and not xr.is_spmd():
            xr.use_spmd()
        _check_autograd()

    def finalize(self) -> None:
        """Do nothing: the devices stay with the process, and SPMD once chosen stays too."""

    def place(self) -> Place:
        if not is_replica():
            return Place()
        each = xr.local_device_count()
        return Place(
            xr.global_ordinal(),
            xr.world_size(),
            xr.local_ordinal(),
            each,
            xr.global_ordinal() // each,
            xr.world_size() // each,
        )

    def device(self) -> torch.device:
        device: torch.device = torch_xla.device()
        return device

    def all_reduce(self, tensor: Tensor, op: str) -> Tensor:
        if tensor.dtype in _ON_DEVICE and op in ("SUM", "MIN", "MAX"):
            reduced: Tensor = xm.all_reduce(op.lower(), tensor)
            return reduced
        return functools.reduce(_FOLDS[op], self.all_gather(tensor).unbind())

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Gather as bytes, with the host's view of them, so that every dtype keeps its bits."""
        mine = as_bytes(tensor.cpu())
        everyone = xm.all_gather(mine.to(self.device()), dim=0).cpu()
        size = xr.world_size()
        return from_bytes(everyone, tensor.dtype, torch.Size((size, *tensor.shape)))

    def broadcast(self, tensor: Tensor, src: int) -> Tensor:
        return self.all_gather(tensor)[src]

    def barrier(self) -> None:
        if is_replica():
            xm.rendezvous("cookfire")


XLA: Final = XLABackend()


def is_replica() -> bool:
    """Whether :func:`launch` (or torch_xla's) started this process as one of several."""
    return bool(xr.world_size() > 1)


def check_launch() -> None:
    """Raise RuntimeError where replicas cannot work; without touching the devices."""
    if xr.device_type() in (None, "CPU"):
        raise RuntimeError(
            "XLA on CPU cannot run collectives between replicas (pytorch/xla#9089); use SPMD or "
            "CPU_NUM_DEVICES=1"
        )


def launch(function: Callable[..., object], args: tuple[Any, ...], start_method: str) -> None:
    """Run ``function(number, *args)`` in as many processes as this host has devices."""
    check_launch()
    torch_xla.launch(function, args=args, start_method=start_method)


class XLALoader(DataLoader[Any]):
    """A loader whose batches are on the device, shared by all devices along the first dimension.

    A first dimension that the devices can't share equally, as of an epoch's last batch, is copied
    to all of them: slower, and the same numbers. Each time a batch is asked for, what was computed
    since the last one starts on the devices as one graph.

    XLA's generator moves on with each graph, so that what a program saves or logs would change its
    dropout. Here it begins each batch with a function of (torch's seed, epoch, batch, rank).
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # DataLoader names a private class
        epoch, first = getattr(self.batch_sampler, "next_position", (self._passes, 0))
        self._passes += 1
        for number, batch in enumerate(super().__iter__(), first):
            moved = tree_map_only(Tensor, _distribute, batch)
            path = (epoch, number, xr.global_ordinal())
            xm.set_rng_state(derive_seed(torch.initial_seed(), *path))
            yield moved
            torch_xla.sync()

    _passes = 1


def prepare_model(model: nn.Module, sync_bn: bool = False) -> nn.Module:
    """Move a model to the device, with equal weights everywhere.

    The device's random numbers are made to follow from torch's seed, of which XLA knows nothing.
    """
    if sync_bn and is_replica():
        raise ValueError("sync_bn=True: XLA's replicas can't do that; SPMD does, without asking")
    model.to(torch_xla.device())
    xm.set_rng_state(torch.initial_seed() % 2**63)
    if is_replica():
        xm.broadcast_master_param(model)
    return model


def prepare_optimizer(optimizer: Optimizer) -> None:
    """Let replicas average the gradients before each step; SPMD has done so.

    Raises:
        ValueError: The optimizer's parameters are not the model's any more.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.device.type != torch_xla.device().type:
                raise ValueError(
                    f"auto_optim: a parameter is on {parameter.device}: XLA makes a model's "
                    "parameters anew when it moves them; create the optimizer after auto_model"
                )
    if is_replica() and optimizer not in _prepared:
        optimizer.register_step_pre_hook(lambda stepping, *_: xm.reduce_gradients(stepping))
        _prepared.add(optimizer)


def _check_autograd() -> None:
    """Raise RuntimeError if autograd began without XLA: it counts the devices only once."""
    probe = torch.zeros((), device=torch_xla.device(), requires_grad=True)
    try:
        torch.autograd.backward(probe * 1)
    except RuntimeError as error:
        raise RuntimeError(
            "backend 'xla': a gradient was computed in this process before torch_xla was imported, "
            "so that autograd does not know XLA; import torch_xla at the top of the program"
        ) from error


@functools.cache
def _mesh() -> xs.Mesh:
    count = xr.global_runtime_device_count()
    return xs.Mesh(np.arange(count), (count,), ("data",))


def _distribute(tensor: Tensor) -> Tensor:
    moved = tensor.to(torch_xla.device())
    if xr.is_spmd() and moved.dim() and moved.shape[0] % _mesh().size() == 0:
        xs.mark_sharding(moved, _mesh(), ("data", *[None] * (moved.dim() - 1)))
    return moved
