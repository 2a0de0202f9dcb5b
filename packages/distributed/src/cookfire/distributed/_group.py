"""The process group: bringing it up and down, and every question about it.

Nothing about the group is remembered here: each question looks at ``torch.distributed`` when it is
asked, so that a group which somebody else initialized or destroyed is seen at once.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import socket
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

# Its functions' defaults hold the group that is up when it is imported, which DDP does on first
# use, beyond finalize(); imported here they hold none.
import torch.distributed.nn
from torch.distributed import HashStore, ProcessGroup  # type: ignore[attr-defined]  # exported, unlisted

from . import _backends
from ._checks import check_type, check_whole
from ._elastic import may_restart, meet
from ._environment import Place, launched, name_slurm_master

has_native_dist_support: Final[bool] = dist.is_available()
has_xla_support: Final[bool] = importlib.util.find_spec("torch_xla") is not None

_NOT_FOR_USERS = ("undefined", "fake")
_local_rank_hint: int | None = None
# The groups made of plain lists of ranks, so that a list in a loop makes one group and not many.
_groups_of_lists: WeakKeyDictionary[ProcessGroup, dict[tuple[int, ...], ProcessGroup | None]] = (
    WeakKeyDictionary()
)


def is_active() -> bool:
    """Whether a process group is up in this process, whoever initialized it."""
    return dist.is_initialized()


def available_backends() -> tuple[str, ...]:
    """The backends that can be used here and now.

    Built into torch, or registered with it (``torch.distributed.Backend.register_backend``), with
    their device present; those of :func:`register_backend`; and ``"xla"`` where torch_xla is
    installed.

    Example:
        >>> "gloo" in available_backends()
        True
    """
    devices = {"cpu", _accelerator_type()}
    plugged = [*_backends.registered(), *(["xla"] if has_xla_support else [])]
    of_torch = [
        name
        for name in dist.Backend.backend_list
        if name not in _NOT_FOR_USERS
        and name not in plugged
        and dist.is_backend_available(name)
        and devices.intersection(dist.Backend.backend_capability.get(name, ["cpu"]))
    ]
    return (*of_torch, *plugged)


def check_backend(backend: str) -> None:
    """Raise ValueError, with the list of those that are, unless ``backend`` can be used here.

    TypeError if it is no name.
    """
    check_type("backend", backend, str, "a name, or None for one process")
    available = available_backends()
    if _backends.ALIASES.get(backend, backend) in available:
        return
    known = {*dist.Backend.backend_list, "xla", *_backends.ALIASES}.difference(_NOT_FOR_USERS)
    trouble = "cannot be used here (no library or no device)" if backend in known else "unknown"
    expected = ", ".join(repr(name) for name in available)
    raise ValueError(
        f"backend {backend!r}: {trouble}; expected one of {expected}, or None for one process"
    )


def initialize(backend: str, **kwargs: Any) -> None:
    """Bring up the process group that this process's launcher described.

    The place of this process comes from torchrun's variables (``RANK``, ``WORLD_SIZE``, ...), from
    SLURM's where srun started it, or from ``kwargs``; where nothing says anything, the group has
    this one process. No collective is run beyond torch's own rendezvous. With nccl, this process's
    device becomes the one of its local rank.

    Args:
        backend: One of :func:`available_backends`; ``"xla-tpu"`` is another name of ``"xla"``.
        **kwargs: Passed to ``torch.distributed.init_process_group``: ``timeout``,
            ``init_method`` or ``store`` with ``rank`` and ``world_size``, ... Of a backend that was
            plugged in, passed to its ``initialize``.

    Raises:
        ValueError: The backend is unknown or cannot be used here.
        RuntimeError: A process group is up already, or this process has no device of its own.

    Example:
        >>> initialize("gloo")
        >>> backend()
        'gloo'
        >>> finalize()
    """
    check_backend(backend)
    backend = _backends.ALIASES.get(backend, backend)
    if is_active():
        raise RuntimeError(
            f"a process group with backend {dist.get_backend()!r} is up already: "
            "call finalize() before initialize()"
        )
    said = launched()
    if backend != "mpi":  # mpirun tells torch itself
        if said is not None and may_restart() and not kwargs.keys() & {"init_method", "store"}:
            kwargs = meet(said.rank, said.world_size, kwargs) | kwargs
        elif said is not None:
            kwargs = {"rank": said.rank, "world_size": said.world_size} | kwargs
            name_slurm_master()
        elif not kwargs.keys() & {"rank", "world_size", "init_method", "store"}:
            kwargs = {"store": HashStore(), "rank": 0, "world_size": 1} | kwargs
    if (plugged := _backends.find_backend(backend)) is not None:
        _backends.join(backend, plugged, kwargs)
        return
    if "cpu" not in dist.Backend.backend_capability.get(backend, ["cpu"]):
        local_rank = kwargs.get("rank", 0) if said is None else said.local_rank
        index = _device_index(local_rank if _local_rank_hint is None else _local_rank_hint)
        torch.accelerator.set_device_index(index)
        kwargs.setdefault("device_id", torch.device(_accelerator_type(), index))
    dist.init_process_group(backend, **kwargs)


def finalize() -> None:
    """Take the process group down; nothing happens where there is none."""
    global _local_rank_hint
    _local_rank_hint = None
    if is_active():
        _groups_of_lists.clear()
        plugged = plugged_backend()
        # Garbage may hold the group (a DDP model that its trainer's handlers know, and it them),
        # and with it gloo's threads. Python aborts if one of them still lets go of a tensor when
        # Python ends.
        gc.collect()
        dist.destroy_process_group()
        if plugged is not None:
            plugged.finalize()


def sync(temporary: bool = False) -> None:
    """Do nothing: every function here sees a group that was initialized elsewhere.

    Kept so that scripts which had to call it run unchanged.
    """


def backend() -> str | None:
    """The process group's backend, None if there is no group."""
    return dist.get_backend() if is_active() else None


def model_name() -> str:
    """``'native-dist'``, ``'xla-dist'`` with XLA, or ``'serial'`` when no process group is up."""
    if not is_active():
        return "serial"
    return "xla-dist" if backend() == "xla" else "native-dist"


def plugged_backend() -> _backends.Backend | None:
    """The backend behind the group that is up, unless it is one of torch's own; else None."""
    name = backend()
    return None if name is None else _backends.find_backend(name)


def get_rank() -> int:
    """This process's number among all processes, from 0; 0 when serial."""
    return dist.get_rank() if is_active() else 0


def get_world_size() -> int:
    """How many processes there are; 1 when serial."""
    return dist.get_world_size() if is_active() else 1


def get_local_rank() -> int:
    """This process's number on its node, from 0; 0 when serial."""
    return place().local_rank


def get_nproc_per_node() -> int:
    """How many processes there are on this node; 1 when serial."""
    return place().nproc_per_node


def get_nnodes() -> int:
    """How many nodes there are; 1 when serial."""
    return place().nnodes


def get_node_rank() -> int:
    """This node's number, from 0; 0 when serial."""
    return place().node_rank


def set_local_rank(index: int) -> None:
    """Say this process's local rank, where a group was initialized without torchrun's variables.

    It holds until :func:`finalize`. Raises ValueError if ``index`` is negative, TypeError if it is
    no whole number.
    """
    global _local_rank_hint
    check_whole("local rank", index, 0)
    _local_rank_hint = index


def place() -> Place:
    """This process's place in the group that is up, the only process if none is."""
    if not is_active():
        return Place()
    plugged = plugged_backend()
    said = _launched_into_group() if plugged is None else plugged.place()
    if _local_rank_hint is not None:
        return dataclasses.replace(said, local_rank=_local_rank_hint)
    return said


def _launched_into_group() -> Place:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    said = launched()
    # The environment may tell of another group, such as that of the process which started this one.
    if said is None or (said.rank, said.world_size) != (rank, world_size):
        return Place.on_one_node(rank, world_size)
    return said


def hostname() -> str:
    """The name of this machine."""
    return socket.gethostname()


def device() -> torch.device:
    """The device to compute on: the accelerator's current one where there is one, else the CPU.

    In a process group it is the device on which the backend communicates: the CPU with gloo; with
    nccl the one bound to the group, else the current one if somebody chose it, else the one whose
    number is the local rank. A backend that was plugged in says itself.
    """
    plugged = plugged_backend()
    if plugged is not None:
        return plugged.device()
    kind = _accelerator_type()
    if kind == "cpu":
        return torch.device("cpu")
    current = torch.accelerator.current_device_index()
    if not is_active():
        return torch.device(kind, current)
    group = dist.group.WORLD
    assert group is not None
    if not communicates_on(kind, group):
        return torch.device("cpu")
    bound: torch.device | None = group.bound_device_id
    if bound is not None:
        return bound
    return torch.device(kind, current or _device_index(get_local_rank()))


def new_group(ranks: list[int], **kwargs: Any) -> Any:
    """A group of some of the processes, to give to a collective; all processes must call this.

    Args:
        ranks: The ranks of its members.
        **kwargs: Passed to ``torch.distributed.new_group``: ``backend``, ``timeout``, ...

    Returns:
        A torch process group; ``ranks`` themselves when serial.

    Raises:
        ValueError: ``ranks`` is not a list of whole numbers, each once, or there is no such rank.
        NotImplementedError: Some of the processes, with a backend that was plugged in.
    """
    _check_ranks(ranks)
    return dist.new_group(ranks, **kwargs) if is_active() else ranks


def members(group: ProcessGroup | Sequence[int] | None) -> ProcessGroup | None:
    """The process group that a collective's ``group`` argument names; None for an outsider.

    A list of ranks makes a group the first time, in which all processes must take part. Where none
    is up, the answer is None for whatever could be a group.

    Raises:
        TypeError: It is no group.
        ValueError: It is a list, and not of ranks.
    """
    if isinstance(group, list | tuple):
        _check_ranks(group)
    elif group is not None and _inside(group) is not None:
        check_type("group", group, ProcessGroup, "one of new_group, a list of ranks, or None")
    if not is_active():
        return None
    world = dist.group.WORLD
    assert world is not None
    if group is None:
        return world
    if isinstance(group, list | tuple):
        made = _groups_of_lists.setdefault(world, {})
        ranks = tuple(sorted(group))
        if ranks not in made:
            made[ranks] = _inside(dist.new_group(list(ranks)))
        return made[ranks]
    return _inside(group)


def communicates_on(kind: str, group: ProcessGroup) -> bool:
    """Whether the group's backend takes tensors that live on this type of device.

    Gloo takes CUDA tensors for some collectives, by way of the CPU; that counts as the CPU here.
    """
    backends = dict(part.split(":") for part in dist.get_backend_config(group).split(","))
    return kind in backends and (kind == "cpu" or backends[kind] != "gloo")


def _inside(group: Any) -> ProcessGroup | None:
    return None if group is dist.GroupMember.NON_GROUP_MEMBER else group


def _check_ranks(ranks: Sequence[int]) -> None:
    if not isinstance(ranks, list | tuple) or not all(
        isinstance(rank, Integral) and not isinstance(rank, bool) for rank in ranks
    ):
        raise ValueError(f"ranks {ranks!r}: expected a list of whole numbers, such as [0, 1]")
    if not ranks or len(set(ranks)) < len(ranks) or min(ranks) < 0:
        raise ValueError(f"ranks {ranks!r}: expected at least one rank, each once, from 0")
    # Serial, a script for many processes runs as well.
    if is_active() and max(ranks) >= get_world_size():
        raise ValueError(f"ranks {ranks!r}: expected ranks from 0 to {get_world_size() - 1}")
    # Torch asks only the members, so that outsiders would go on and wait for the others later.
    if plugged_backend() is not None and sorted(ranks) != list(range(get_world_size())):
        raise NotImplementedError(
            f"backend {backend()!r} has no groups of some of the processes: given ranks "
            f"{list(ranks)}, expected all {get_world_size()}"
        )


def _accelerator_type() -> str:
    if not torch.accelerator.is_available():
        return "cpu"
    accelerator = torch.accelerator.current_accelerator()
    return "cpu" if accelerator is None else accelerator.type


def _device_index(local_rank: int) -> int:
    count = torch.accelerator.device_count()
    if local_rank < count:
        return local_rank
    if count == 1:  # the cluster shows each process only its own
        return 0
    raise RuntimeError(
        f"local rank {local_rank} has no device: {count} are visible; "
        "start at most as many processes on a node as it has devices"
    )
