"""Collectives over tensors, numbers, strings and objects.

All processes of the group must call the same ones in the same order. All are exact, none changes
its argument, and all give the value back where a process is alone. Gradients do not flow through.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from ._checks import check_type, kind
from ._group import communicates_on, device, get_world_size, is_active, members
from ._numbers import REDUCTIONS, fits, is_number, pack, unpack
from ._ragged import (
    as_bytes,
    from_bytes,
    gather_integers,
    gather_known,
    gather_rows,
    gather_values,
)
from ._reduction import check_reducible, reduce_tensor

T = TypeVar("T")
_CPU: Final = torch.device("cpu")
Sent = TypeVar("Sent", bound=Tensor | float | str | Path)


@overload
def all_reduce(
    tensor: Tensor, op: str = "SUM", group: Any = None, *, safe_mode: bool = False
) -> Tensor: ...
@overload
def all_reduce(
    tensor: float, op: str = "SUM", group: Any = None, *, safe_mode: bool = False
) -> float: ...
def all_reduce(
    tensor: Tensor | float, op: str = "SUM", group: Any = None, *, safe_mode: bool = False
) -> Tensor | float:
    """Combine every process's value into one, which all get.

    Args:
        tensor: A tensor (same shape and dtype everywhere; any dtype) or a number. Ints are combined
            as ints and floats as float64, in the order of the ranks.
        op: ``SUM``, ``AVERAGE``, ``PRODUCT``, ``MIN``, ``MAX``, or the bitwise ``AND``, ``OR``. Of
            bool tensors SUM is "any" and PRODUCT is "all".
        group: The processes that take part: a group of :func:`new_group` or a list of ranks (which
            all processes must name). None means all. An outsider is alone.
        safe_mode: Let all processes say first what they have, and raise on all if they differ;
            this costs two more exchanges. Without it, tensors of other shapes or dtypes, or
            another ``op``, give numbers without a meaning or wait for ever: looking would take
            longer than reducing. Different ``op`` of numbers are noticed in any case.

    Returns:
        A tensor of the same dtype, shape and device, or a number.

    Raises:
        ValueError: ``op`` is unknown, or an int does not fit in 64 bits. On all ranks: ranks were
            seen to differ.
        TypeError: ``op`` has no meaning for the dtype, as AVERAGE for integer tensors.

    Example:
        >>> all_reduce(2**24 + 1)  # in one process
        16777217
    """
    if safe_mode:
        _check_alike("all_reduce", f"{op!r} of {_describe(tensor)}", group)
    if op not in REDUCTIONS:
        raise ValueError(f"all_reduce: op {op!r}: expected one of {', '.join(REDUCTIONS)}")
    if isinstance(tensor, Tensor):
        check_reducible(tensor.dtype, op)
        among = _company(group)
        if among is None:
            return tensor
        wired = tensor.to(_wire(tensor.device, among))
        return reduce_tensor(wired, op, among).to(tensor.device)
    if not is_number(tensor):
        raise TypeError(f"all_reduce: expected a tensor or a number, given {_kind(tensor)}")
    return REDUCTIONS[op](_gather_numbers(tensor, op, _company(group)))


@overload
def all_gather(  # type: ignore[overload-overlap]  # T cannot exclude tensors
    tensor: Tensor, group: Any = None
) -> Tensor: ...
@overload
def all_gather(tensor: T, group: Any = None) -> list[T]: ...
def all_gather(tensor: Any, group: Any = None) -> Any:
    """Collect every process's value, in the order of the ranks.

    Args:
        tensor: A tensor, whose first dimension may differ from rank to rank, the others not; or a
            number, a string, any object that can be pickled, also of different types. A tensor
            without elements contributes nothing, whatever its shape and dtype: a rank without data
            needs to know neither.
        group: As in :func:`all_reduce`.

    Returns:
        Tensors concatenated along their first dimension (scalars become one tensor of shape
        ``(world size,)``), on this process's device; otherwise the list of the values.

    Raises:
        TypeError: The dtypes differ, or only some ranks have a tensor, or an object can't be
            pickled; raised on all ranks.
        ValueError: The shapes past the first dimension differ; raised on all ranks.

    Example:
        >>> all_gather("a")  # in one process
        ['a']
    """
    among = _company(group)
    if isinstance(tensor, Tensor):
        rows = tensor.reshape(1) if tensor.dim() == 0 else tensor
        if among is None:
            return rows
        return gather_rows(rows, among, _wire(_CPU, among), _wire(rows.device, among))
    if among is None:
        return [unpack(*pack(tensor)) if is_number(tensor) and fits(tensor) else tensor]
    return gather_values(tensor, among, _wire(_CPU, among))


def all_gather_tensors_with_shapes(
    tensor: Tensor, shapes: Sequence[Sequence[int]], group: Any = None
) -> list[Tensor]:
    """Collect tensors of different shapes that every process knows beforehand.

    Args:
        tensor: This process's tensor; the same dtype everywhere.
        shapes: The shape of every process's tensor, in the order of the ranks.
        group: As in :func:`all_reduce`.

    Returns:
        Every process's tensor, on this process's device.

    Raises:
        ValueError: ``shapes`` has not one shape a process, or not this process's shape.

    Example:
        >>> all_gather_tensors_with_shapes(torch.zeros(2), [(2,)])  # in one process
        [tensor([0., 0.])]
    """
    among = _company(group)
    rank, size = (0, 1) if among is None else (dist.get_rank(among), dist.get_world_size(among))
    if len(shapes) != size or tuple(shapes[rank]) != tuple(tensor.shape):
        raise ValueError(
            f"all_gather_tensors_with_shapes: shapes {[tuple(shape) for shape in shapes]}: "
            f"expected {size} of them, with {tuple(tensor.shape)} for rank {rank}"
        )
    if among is None:
        return [tensor]
    known = [torch.Size(shape) for shape in shapes]
    return gather_known(tensor, known, among, _wire(tensor.device, among))


@overload
def broadcast(tensor: Sent, src: int = 0, safe_mode: bool = False) -> Sent: ...
@overload
def broadcast(tensor: None, src: int = 0, safe_mode: bool = False) -> Any: ...
def broadcast(tensor: Any, src: int = 0, safe_mode: bool = False) -> Any:
    """Give every process the value that process ``src`` has.

    Args:
        tensor: A tensor, a number, a string or a path.
        src: The rank that sends.
        safe_mode: Without it all ranks give a value of the same kind, and a tensor of the same
            shape and dtype; nobody looks whether they do. With it, the others may give anything or
            None: the sender announces the kind first, which costs one more exchange.

    Returns:
        The sender's value: as exact as it was there, and a tensor on the device of this rank's own
        (without one, on :func:`device`).

    Raises:
        ValueError: ``src`` is not a rank; the value is None on ``src`` or without ``safe_mode``.
        TypeError: The value can't be sent. With ``safe_mode``, these are raised on all ranks.

    Example:
        >>> broadcast(0.1)  # in one process
        0.1
    """
    check_type("broadcast: src", src, int, "a rank")
    if not 0 <= src < get_world_size():
        raise ValueError(f"broadcast: src {src}: expected a rank from 0 to {get_world_size() - 1}")
    among = _company(None)
    sends = among is None or dist.get_rank() == src
    trouble = _unfit(tensor) if sends or not safe_mode else None
    if trouble is not None and (among is None or not safe_mode):
        raise trouble
    if among is None:
        return tensor
    if safe_mode:
        # Tensors are announced by their dtype and shape; all else is small and comes along.
        is_tensor = sends and isinstance(tensor, Tensor)
        announced = (tensor.dtype, tensor.shape) if is_tensor else tensor
        says = _send_object(trouble or announced, src)
        if isinstance(says, Exception):
            raise says
        if not isinstance(says, tuple):
            return says
        if not sends:
            where = tensor.device if isinstance(tensor, Tensor) else device()
            tensor = torch.empty(says[1], dtype=says[0], device=where)
    if isinstance(tensor, Tensor):
        data = as_bytes(tensor).to(_wire(tensor.device, among), copy=True)
        dist.broadcast(data, src)
        return tensor if sends else from_bytes(data.to(tensor.device), tensor.dtype, tensor.shape)
    if is_number(tensor):
        data = torch.tensor(pack(tensor), device=_wire(_CPU, among))
        dist.broadcast(data, src)
        return unpack(*data.tolist())
    return _send_object(tensor, src)


def barrier() -> None:
    """Wait until every process has come here."""
    if is_active():
        where = device()
        dist.barrier(device_ids=None if where.index is None else [where.index])


def _company(group: Any) -> ProcessGroup | None:
    """The group to communicate in; None if this process is alone: serial, or an outsider."""
    if group is None and not is_active():
        return None
    among = members(group)
    return None if among is None or dist.get_world_size(among) == 1 else among


def _wire(where: torch.device, group: ProcessGroup) -> torch.device:
    """Where a tensor must be to be communicated: where it is, if the backend takes it there."""
    if communicates_on(where.type, group):
        return where
    return torch.device("cpu") if communicates_on("cpu", group) else device()


def _gather_numbers(number: float, op: str, group: ProcessGroup | None) -> list[float]:
    """Every member's number, and a look whether all reduce them in one way."""
    packed = pack(number)
    if group is None:
        return [unpack(*packed)]
    names = list(REDUCTIONS)
    said = gather_integers([*packed, names.index(op)], group, _wire(_CPU, group))
    _compare("all_reduce", [f"{names[number]!r} of a number" for *_, number in said])
    return [unpack(kind, bits) for kind, bits, _ in said]


def _check_alike(name: str, mine: str, group: Any) -> None:
    """Raise ValueError on all ranks unless all say the same of what they have."""
    if (among := _company(group)) is not None:
        _compare(name, gather_values(mine, among, _wire(_CPU, among)))


def _compare(name: str, said: list[str]) -> None:
    if len(set(said)) > 1:
        each = ", ".join(f"rank {rank} has {it}" for rank, it in enumerate(said))
        raise ValueError(f"{name}: {each}: expected the same on all ranks")


def _unfit(value: object) -> Exception | None:
    """What to raise where somebody is to broadcast this; None if it can be sent."""
    if value is None:
        return ValueError(
            "broadcast: given None: the sender needs a value, and the others may leave theirs out "
            "with safe_mode=True only"
        )
    if isinstance(value, Tensor | str | Path) or is_number(value):
        return None
    return TypeError(
        f"broadcast: expected a tensor, a number, a string or a path, given {_kind(value)}"
    )


def _send_object(value: object, src: int) -> Any:
    values = [value]
    dist.broadcast_object_list(values, src)
    return values[0]


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if is_number(value):
        return "a number" if fits(value) else "a number of more than 64 bits"
    return kind(value)


def _kind(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
