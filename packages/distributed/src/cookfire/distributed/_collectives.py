"""Collectives over tensors, numbers, strings and objects.

All processes of the group must call the same ones in the same order. All are exact, none changes
its argument, and all give the value back where a process is alone. Gradients do not flow through.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from ._group import communicates_on, device, get_world_size, is_active, members
from ._numbers import REDUCTIONS, is_number, pack, unpack
from ._ragged import as_bytes, from_bytes, gather_integers, gather_known, gather_rows
from ._reduction import check_reducible, reduce_tensor

T = TypeVar("T")
Sent = TypeVar("Sent", bound=Tensor | float | str | Path)


@overload
def all_reduce(tensor: Tensor, op: str = "SUM", group: Any = None) -> Tensor: ...
@overload
def all_reduce(tensor: float, op: str = "SUM", group: Any = None) -> float: ...
def all_reduce(tensor: Tensor | float, op: str = "SUM", group: Any = None) -> Tensor | float:
    """Combine every process's value into one, which all get.

    Args:
        tensor: A tensor (same shape and dtype everywhere; any dtype) or a number. Ints are combined
            as ints and floats as float64, in the order of the ranks.
        op: ``SUM``, ``AVERAGE``, ``PRODUCT``, ``MIN``, ``MAX``, or the bitwise ``AND``, ``OR``. Of
            bool tensors SUM is "any" and PRODUCT is "all".
        group: The processes that take part: a group of :func:`new_group` or a list of ranks (which
            all processes must name). None means all. An outsider is alone.

    Returns:
        A tensor of the same dtype, shape and device, or a number.

    Raises:
        ValueError: ``op`` is unknown, or an int does not fit in 64 bits.
        TypeError: ``op`` has no meaning for the dtype, as AVERAGE for integer tensors.

    Example:
        >>> all_reduce(2**24 + 1)  # in one process
        16777217
    """
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
    among = _company(group)
    return REDUCTIONS[op](_gather_numbers(tensor, among))


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
            number, a string, any object that can be pickled. A tensor without elements
            contributes nothing, whatever its shape and dtype: a rank without data needs to know
            neither.
        group: As in :func:`all_reduce`.

    Returns:
        Tensors concatenated along their first dimension (scalars become one tensor of shape
        ``(world size,)``), on this process's device; otherwise the list of the values.

    Raises:
        TypeError: The dtypes differ; raised on all ranks.
        ValueError: The shapes past the first dimension differ; raised on all ranks.

    Example:
        >>> all_gather("a")  # in one process
        ['a']
    """
    among = _company(group)
    if isinstance(tensor, Tensor):
        rows = tensor.reshape(1) if tensor.dim() == 0 else tensor
        return rows if among is None else gather_rows(rows, among, _wire(rows.device, among))
    if is_number(tensor):
        return _gather_numbers(tensor, among)
    if among is None:
        return [tensor]
    values: list[Any] = [None] * dist.get_world_size(among)
    dist.all_gather_object(values, tensor, among)
    return values


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
            shape and dtype. With it, the others may give anything or None: the sender announces
            the kind first, which costs one more exchange.

    Returns:
        The sender's value: as exact as it was there, and a tensor on the device of this rank's own
        (without one, on :func:`device`).

    Raises:
        ValueError: ``src`` is not a rank; the value is None on ``src`` or without ``safe_mode``.
        TypeError: The value can't be sent.

    Example:
        >>> broadcast(0.1)  # in one process
        0.1
    """
    if not 0 <= src < get_world_size():
        raise ValueError(f"broadcast: src {src}: expected a rank from 0 to {get_world_size() - 1}")
    among = _company(None)
    sends = among is None or dist.get_rank() == src
    if tensor is None and (sends or not safe_mode):
        raise ValueError(
            "broadcast: given None: the sender needs a value, and the others may leave theirs out "
            "with safe_mode=True only"
        )
    if (sends or not safe_mode) and not (
        isinstance(tensor, Tensor | str | Path) or is_number(tensor)
    ):
        raise TypeError(
            f"broadcast: expected a tensor, a number, a string or a path, given {_kind(tensor)}"
        )
    if among is None:
        return tensor
    if safe_mode:
        # Tensors are announced by their dtype and shape; all else is small and comes along.
        is_tensor = sends and isinstance(tensor, Tensor)
        says = _send_object((tensor.dtype, tensor.shape) if is_tensor else tensor, src)
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
        data = torch.tensor(pack(tensor), device=_wire(torch.device("cpu"), among))
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
    if not is_active():
        return None
    among = members(group)
    return None if among is None or dist.get_world_size(among) == 1 else among


def _wire(where: torch.device, group: ProcessGroup) -> torch.device:
    """Where a tensor must be to be communicated: where it is, if the backend takes it there."""
    if communicates_on(where.type, group):
        return where
    return torch.device("cpu") if communicates_on("cpu", group) else device()


def _gather_numbers(number: float, group: ProcessGroup | None) -> list[float]:
    packed = pack(number)
    if group is None:
        return [unpack(*packed)]
    wire = _wire(torch.device("cpu"), group)
    return [unpack(*pair) for pair in gather_integers(packed, group, wire)]


def _send_object(value: object, src: int) -> Any:
    values = [value]
    dist.broadcast_object_list(values, src)
    return values[0]


def _kind(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
