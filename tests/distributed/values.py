"""Values of every dtype for tests of collectives, and what these raise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ODD = 2**24 + 1  # float32 rounds it
DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
]


def raised(function: Callable[[], object]) -> tuple[str, str] | None:
    """Return the type and text of what ``function`` raises; None if nothing."""
    try:
        function()
    except Exception as error:  # which one is what the tests look at
        return type(error).__name__, str(error)
    return None


def values_of(dtype: torch.dtype, rank: int) -> Tensor:
    """A tensor of this dtype with values that no smaller dtype of the same kind holds."""
    if dtype == torch.bool:
        return torch.tensor([[False, True], [rank == 0, rank == 1]])
    if dtype.is_complex:
        return torch.tensor([[1 + 2j, 3j], [rank + 1 - 1j, 0.25]], dtype=dtype)
    if dtype.is_floating_point:
        return torch.tensor([[1.5, -2.0], [rank + 0.5, 0.25]], dtype=dtype)
    top = torch.iinfo(dtype).max
    values = [[1, 5 + rank], [top - rank, top // 2 + 1]]
    # torch makes no unsigned 64-bit tensor of large Python ints everywhere; its bits are the same.
    if dtype == torch.uint64:
        return torch.tensor([[1, 5 + rank], [-1 - rank, -(2**63)]]).view(dtype)
    return torch.tensor(values, dtype=dtype)
