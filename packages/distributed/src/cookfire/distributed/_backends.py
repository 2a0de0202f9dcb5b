"""Backends that plug in: eight functions, from which torch's process group is made."""

from __future__ import annotations

import os
import re
from typing import Any, Final, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]  # exported, unlisted

from ._environment import Place

FUNCTIONS: Final = (
    "initialize",
    "finalize",
    "place",
    "device",
    "all_reduce",
    "all_gather",
    "broadcast",
    "barrier",
)
ALIASES: Final = {"xla-tpu": "xla"}  # ignite's name
BARRIER_AFTER_INIT: Final = "TORCH_DIST_INIT_BARRIER"
"""Torch's variable: 1 lets processes wait for one another when they have joined."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_registered: dict[str, Backend] = {}


@runtime_checkable
class Backend(Protocol):
    """What a backend can do: join processes, tell them apart, and four exchanges of tensors.

    Everything else follows: numbers, objects, ragged gathers, every dtype, metrics,
    ``DistributedDataParallel``. Tensors that the exchanges get have elements, are contiguous,
    and live on :meth:`device`; they may be given back, but not changed. All processes call the same
    exchanges in the same order.
    """

    def initialize(self, **kwargs: Any) -> None:
        """Join the processes.

        Args:
            **kwargs: What :func:`initialize` was given; ``rank`` and ``world_size`` where a
                launcher told them, or where ``kwargs`` name no rendezvous; from :func:`spawn` a
                ``store`` or ``init_method`` to meet at, and ``timeout`` if the user gave one.
        """

    def finalize(self) -> None:
        """Leave; :meth:`initialize` may be called again."""

    def place(self) -> Place:
        """This process's place among all processes."""

    def device(self) -> torch.device:
        """The device to compute on, where the exchanges take their tensors."""

    def all_reduce(self, tensor: Tensor, op: str) -> Tensor:
        """``SUM``, ``PRODUCT``, ``MIN`` or ``MAX`` of all processes' tensors, of one shape."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        """All processes' tensors, of one shape, stacked along a new first dimension by rank."""

    def broadcast(self, tensor: Tensor, src: int) -> Tensor:
        """The tensor of process ``src``; the others' have its shape and dtype."""

    def barrier(self) -> None:
        """Wait until every process has come here."""


def register_backend(name: str, backend: Backend) -> None:
    """Let ``backend`` be used by its name, as ``Parallel(backend=name)``.

    Call it at the top level of a module, or before :func:`spawn`, which sends the backend to the
    processes that it starts (so it must be possible to pickle it).

    Args:
        name: Lower case letters, digits and underscores.
        backend: An object with the functions of :class:`Backend`; see ``docs/backends.md`` for one
            in full.

    Raises:
        TypeError: Functions are missing; names them.
        ValueError: The name is taken, or not a name.

    Example:
        >>> register_backend("half", object())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        TypeError: register_backend: object has no initialize, finalize, ...
    """
    missing = [function for function in FUNCTIONS if not callable(getattr(backend, function, None))]
    if missing:
        raise TypeError(
            f"register_backend: {type(backend).__name__} has no {', '.join(missing)}: a backend "
            "has these functions"
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"register_backend: name {name!r}: expected lower case letters, digits and underscores"
        )
    if _registered.get(name) is backend:
        return
    if name in _registered or name in dist.Backend.backend_list or name == "xla":
        owner = type(_registered[name]).__name__ if name in _registered else "cookfire or torch"
        raise ValueError(f"register_backend: the name {name!r} is taken, by {owner}")
    _registered[name] = backend


def registered() -> tuple[str, ...]:
    """The names of the backends that were plugged in."""
    return tuple(_registered)


def find_backend(name: str) -> Backend | None:
    """The plugged-in backend of this name; None for torch's own and for unknown names."""
    if name == "xla":
        from ._xla import XLA  # torch_xla takes seconds to import

        return XLA
    return _registered.get(name)


def sendable(name: str) -> Backend | None:
    """The backend that a new process must be sent, since it may not register it by itself."""
    return _registered.get(name)


def receive(name: str, backend: Backend | None) -> None:
    """Register in this process what :func:`sendable` gave, unless an import has done so."""
    if backend is not None and name not in _registered:
        register_backend(name, backend)


def join(name: str, backend: Backend, kwargs: dict[str, Any]) -> None:
    """Let the backend join its processes, and make torch's process group of it."""
    from ._plugged import ProcessGroupOfBackend

    backend.initialize(**kwargs)
    try:
        place = backend.place()
        _check_answers(name, backend, place, backend.device())
        # Registered each time, since only now the device is known; torch keeps the last one.
        dist.Backend.register_backend(
            name,
            lambda options, _: ProcessGroupOfBackend.make(name, backend, options),
            extended_api=True,
            devices=[backend.device().type],
        )
        # Nobody meets at this store, nor must torch wait for others there, now or for a new group:
        # the backend has brought the processes together.
        os.environ.pop(BARRIER_AFTER_INIT, None)
        dist.init_process_group(
            name, store=HashStore(), rank=place.rank, world_size=place.world_size
        )
    except BaseException:  # to undo, and raise again
        backend.finalize()
        raise


def _check_answers(name: str, backend: Backend, place: object, device: object) -> None:
    """Raise TypeError or ValueError unless a backend says where this process is."""
    who = f"backend {name!r}: {type(backend).__name__}"
    if not isinstance(place, Place):
        raise TypeError(f"{who}.place gave {place!r}, expected a cookfire.distributed.Place")
    if not isinstance(device, torch.device):
        raise TypeError(f"{who}.device gave {device!r}, expected a torch.device")
    if not 0 <= place.rank < place.world_size:
        raise ValueError(f"{who}.place gave {place}, expected a rank below the world size, from 0")
