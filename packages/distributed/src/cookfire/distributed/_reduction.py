"""Reducing a tensor of any dtype over a group, with the arithmetic of that dtype."""

from __future__ import annotations

import functools
import operator
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

_OPS: Final = {
    "SUM": dist.ReduceOp.SUM,
    "AVERAGE": dist.ReduceOp.SUM,
    "PRODUCT": dist.ReduceOp.PRODUCT,
    "MIN": dist.ReduceOp.MIN,
    "MAX": dist.ReduceOp.MAX,
    "AND": dist.ReduceOp.BAND,
    "OR": dist.ReduceOp.BOR,
}
# Backends reduce few dtypes. The others are carried by one that holds their values: integers that
# overflow the wider dtype wrap in the narrow one to the same bits.
_CARRIERS: Final = {
    torch.bool: torch.uint8,
    torch.int16: torch.int32,
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
}
_BOOL_OPS: Final = {"SUM": "MAX", "OR": "MAX", "PRODUCT": "MIN", "AND": "MIN"}
_LOWEST: Final = torch.iinfo(torch.int64).min


def check_reducible(dtype: torch.dtype, op: str) -> None:
    """Raise TypeError unless ``op`` has a meaning for ``dtype``."""
    fractional = dtype.is_floating_point or dtype.is_complex
    ordered = not dtype.is_complex
    if dtype.is_floating_point and dtype.itemsize == 1:
        raise TypeError(f"all_reduce: torch has no arithmetic for {dtype}; convert the tensor")
    if op == "AVERAGE" and not fractional:
        raise TypeError(
            f"all_reduce: AVERAGE of {dtype} would not fit its dtype; convert the tensor to float"
        )
    if op in ("AND", "OR") and fractional:
        raise TypeError(f"all_reduce: {op} takes integers and bools, given {dtype}")
    if op in ("MIN", "MAX") and not ordered:
        raise TypeError(f"all_reduce: {op} needs an order, which {dtype} has not")


def reduce_tensor(tensor: Tensor, op: str, group: ProcessGroup) -> Tensor:
    """The reduction of every member's ``tensor``, which lives where the group communicates."""
    data, dtype = tensor.detach().resolve_conj().resolve_neg(), tensor.dtype
    if dtype.is_complex:
        if op == "PRODUCT":  # no backend has it
            return _fold(data, op, group)
        parts = torch.view_as_real(data)
        return torch.view_as_complex(reduce_tensor(parts, op, group))
    if dtype == torch.uint64:
        # Two's complement: the same bits for all but the order, which the sign bit turns around.
        flip = _LOWEST if op in ("MIN", "MAX") else 0
        return (reduce_tensor(data.view(torch.int64) ^ flip, op, group) ^ flip).view(dtype)
    if dtype == torch.bool:
        op = _BOOL_OPS.get(op, op)
    if op in ("AND", "OR") and data.device.type != "cpu":
        return _fold(data, op, group)  # nccl has no bitwise operations
    carrier = _CARRIERS.get(dtype, dtype)
    data = data.to(carrier, copy=True, memory_format=torch.contiguous_format)
    dist.all_reduce(data, _OPS[op], group)
    if op == "AVERAGE":
        data /= dist.get_world_size(group)
    return data.to(dtype)


def _fold(data: Tensor, op: str, group: ProcessGroup) -> Tensor:
    combine = {"AND": operator.and_, "OR": operator.or_, "PRODUCT": operator.mul}[op]
    everyone = [torch.empty_like(data) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, data.contiguous(), group)
    reduced: Tensor = functools.reduce(combine, everyone)
    return reduced
