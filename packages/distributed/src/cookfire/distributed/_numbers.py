"""Python numbers through collectives without loss: an int stays an int, a float64 keeps its bits.

A number travels as two 64-bit integers, its kind and its bits, so that one rank may hold the int 0
of a sum that never started while another holds a float.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Sequence
from functools import reduce
from numbers import Real
from typing import Final, SupportsFloat, SupportsIndex, TypeGuard

Number = int | float
_INT, _FLOAT, _BOOL = 0, 1, 2


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a real number: Python's own or NumPy's, not a tensor."""
    return isinstance(value, Real)


def fits(number: SupportsFloat | SupportsIndex) -> bool:
    """Whether :func:`pack` can take the number: a float, or an int of 64 bits."""
    return not isinstance(number, SupportsIndex) or -(2**63) <= operator.index(number) < 2**63


def pack(number: SupportsFloat | SupportsIndex) -> list[int]:
    """``[kind, bits]`` of a number.

    Raises:
        ValueError: An int does not fit in 64 bits.
    """
    if isinstance(number, bool):
        return [_BOOL, int(number)]
    if not isinstance(number, SupportsIndex):
        (bits,) = struct.unpack("<q", struct.pack("<d", float(number)))
        return [_FLOAT, bits]
    whole = operator.index(number)
    if not fits(number):
        raise ValueError(f"{whole}: expected an int that fits in 64 bits; give a float instead")
    return [_INT, whole]


def unpack(kind: int, bits: int) -> Number:
    """The number that :func:`pack` took apart."""
    if kind == _FLOAT:
        (number,) = struct.unpack("<d", struct.pack("<q", bits))
        return float(number)
    return bool(bits) if kind == _BOOL else bits


def _extreme(choose: Callable[[Sequence[Number]], Number]) -> Callable[[Sequence[Number]], Number]:
    """``min`` or ``max`` as torch has them: NaN if any is NaN."""
    return lambda numbers: next((n for n in numbers if n != n), choose(numbers))


REDUCTIONS: Final[dict[str, Callable[[Sequence[Number]], Number]]] = {
    "SUM": sum,
    "AVERAGE": lambda numbers: sum(numbers) / len(numbers),
    "PRODUCT": math.prod,
    "MIN": _extreme(min),
    "MAX": _extreme(max),
    "AND": lambda numbers: reduce(operator.and_, _whole("AND", numbers)),
    "OR": lambda numbers: reduce(operator.or_, _whole("OR", numbers)),
}


def _whole(op: str, numbers: Sequence[Number]) -> list[int]:
    whole = [number for number in numbers if isinstance(number, int)]
    if len(whole) < len(numbers):
        raise TypeError(f"all_reduce: {op} takes ints and bools, given {list(numbers)}")
    return whole
