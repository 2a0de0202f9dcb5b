"""How each kind of state travels between ranks.

- :class:`Small`: of declared shape, a few elements: within the message that all ranks exchange;
  also whatever a function reduces.
- :class:`Agreed`: what must be the same on all ranks: within the message.
- :class:`Told`: its shape is in the message, since a rank without data can't know it; and its
  elements too if there are few, else they follow in an ``all_reduce``.
- :class:`Large`: more elements, of declared shape: in an ``all_reduce``.
- :class:`History`: rows, any number on any rank: sizes in the message, then the bytes.

A message is 64-bit integers, as many on all ranks: first every part's head, a few of them that
Python looks at, then the room that parts have for elements, which stay in tensors.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cookfire.metrics._state import MetricState, Shape, Value, greatest, least

if TYPE_CHECKING:
    from cookfire.metrics.metric import Metric

SMALL = 16
"""Elements up to which a state travels in the message's head."""

ROOM = 512
"""Elements up to which a state travels within the message, which has so much room for each: 4 kB
are sent faster than a second collective is started."""

MAX_DIMENSIONS = 8

_OPERATIONS = {"sum": "SUM", "mean": "SUM", "min": "MIN", "max": "MAX"}
_DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
_CAN_NOT = -1
"""In the place of a dtype: what a rank has can't be combined."""

Bucket = tuple[str, torch.dtype]
"""An operation of ``all_reduce``, and the dtype of what goes through it."""


class Part:
    """A metric's state on its way; the kind of part is the same on all ranks.

    Args:
        metric: whose state.
        state: its declaration.
        value: this rank's; None if it has none.
    """

    head = 0
    """Integers that it adds to the message's head."""
    room = 0
    """Elements for which it has room in the message."""

    def __init__(self, metric: Metric, state: MetricState, value: Value) -> None:
        self.metric = metric
        self.state = state
        self.value = value
        self.result: Value = None
        """What all ranks have together; None if none of them has a value."""

    @property
    def owner(self) -> str:
        return f"{type(self.metric).__name__}: the state {self.state.name!r}"

    @property
    def tensor(self) -> Tensor:
        """This rank's value; where it has none, what changes nothing."""
        return self.state.to_tensor(self.value, self.metric)

    def write(self) -> list[int]:
        """Return this rank's integers of the head."""
        return []

    def fill(self, message: Tensor, begin: int) -> None:
        """Put this rank's elements into the message, where its room begins."""

    def read(self, heads: list[list[int]]) -> None:
        """Take in what all ranks wrote."""

    def take(self, messages: Tensor, begin: int) -> None:
        """Take in what they put there; a message each."""


class Large(Part):
    """A tensor of a shape that all ranks know."""

    @property
    def bucket(self) -> Bucket:
        assert self.state.dtype is not None
        assert isinstance(self.state.reduction, str)
        return _OPERATIONS[self.state.reduction], self.state.dtype

    def settle(self, value: Tensor) -> None:
        """Take what ``all_reduce`` gave."""
        self.result = value


class Small(Large):
    """A few numbers of a shape that all ranks know; combined in the order of the ranks."""

    def __init__(self, metric: Metric, state: MetricState, value: Value, shape: Shape) -> None:
        super().__init__(metric, state, value)
        self.shape = shape
        self.head = 1 + math.prod(shape)

    @property
    def bucket(self) -> Bucket:
        # An all_reduce does not know how many ranks have a value, nor other operations than its
        # own: no bucket carries a mean, or what a function reduces.
        alone = self.state.reduction == "mean" or callable(self.state.reduction)
        return ("NONE", torch.float64) if alone else super().bucket

    def write(self) -> list[int]:
        value = self.value
        if value is None:
            return [0] * self.head
        numbers = [value] if isinstance(value, int | float) else self.tensor.reshape(-1).tolist()
        if not _is_float(self.state):
            return [1, *map(int, numbers)]
        return [1, *struct.unpack(f"{len(numbers)}q", struct.pack(f"{len(numbers)}d", *numbers))]

    def read(self, heads: list[list[int]]) -> None:
        rows: list[Sequence[float]] = [row[1:] for row in heads if row[0]]
        if not rows:
            return
        if _is_float(self.state):
            size = self.head - 1
            rows = [struct.unpack(f"{size}d", struct.pack(f"{size}q", *row)) for row in rows]
        combine = _OF_NUMBERS.get(self.state.reduction)
        if self.shape == () and combine is not None:
            self.result = combine([row[0] for row in rows])
            return
        dtype = torch.float64 if _is_float(self.state) else torch.int64
        self.result = _combine(torch.tensor(rows, dtype=dtype), self.state, self.shape)


class Agreed(Small):
    """What must be the same on all ranks that have it."""

    @property
    def bucket(self) -> Bucket:
        return ("NONE", torch.float64)  # it is compared, in the message

    def read(self, heads: list[list[int]]) -> None:
        said = {rank: head for rank, head in enumerate(heads) if head[0]}
        if not said:
            return
        first = min(said)
        for rank, head in said.items():
            if head != said[first]:
                one, other = (self.state.tell(self._value(of)) for of in (said[first], head))
                raise ValueError(
                    f"{type(self.metric).__name__} has {one} on rank {first}, but {other} on rank "
                    f"{rank}: feed the metric alike on all ranks"
                )
        self.result = self._value(said[first])

    def _value(self, head: list[int]) -> Value:
        super().read([head])
        return self.result


class Told(Large):
    """A tensor whose shape only the ranks with data know."""

    head = 2 + MAX_DIMENSIONS
    room = ROOM

    def __init__(self, metric: Metric, state: MetricState, value: Value) -> None:
        super().__init__(metric, state, value)
        self.shape: Shape = ()
        self.ranks: list[int] = []
        """Those that have a value."""
        self.follows = False
        """Whether it needs an ``all_reduce``."""

    @property
    def tensor(self) -> Tensor:
        if self.value is not None:
            return super().tensor
        return torch.full(self.shape, self.state.identity, dtype=self.state.dtype)

    def write(self) -> list[int]:
        if self.value is None:
            return [0] * self.head
        tensor = self.tensor
        return _describe(1, tensor, tensor.shape)

    def fill(self, message: Tensor, begin: int) -> None:
        if self.value is not None and self._has_room(self.tensor.shape):
            flat = self.tensor.reshape(-1)
            self._as_elements(message)[begin : begin + flat.numel()] = flat

    def read(self, heads: list[list[int]]) -> None:
        known, self.shape, _ = _understand(self.owner, heads)
        self.ranks = [rank for rank, has_value in enumerate(known) if has_value]
        self.follows = bool(self.ranks) and not self._has_room(self.shape)

    def take(self, messages: Tensor, begin: int) -> None:
        if self.ranks and not self.follows:
            of_ranks = messages if len(self.ranks) == len(messages) else messages[self.ranks]
            rows = self._as_elements(of_ranks)[:, begin : begin + math.prod(self.shape)]
            self.result = _combine(rows, self.state, self.shape)

    def _as_elements(self, words: Tensor) -> Tensor:
        return words.view(torch.float64) if _is_float(self.state) else words

    def _has_room(self, shape: Sequence[int]) -> bool:
        return math.prod(shape) <= ROOM and not _is_complex(self.state)

    def settle(self, value: Tensor) -> None:
        self.result = value / len(self.ranks) if self.state.reduction == "mean" else value


class History(Part):
    """Rows, any number on any rank; dtype and shape of a row are those of the ranks with data."""

    head = 2 + MAX_DIMENSIONS

    def __init__(self, metric: Metric, state: MetricState, value: Value) -> None:
        super().__init__(metric, state, value)
        self.rows: list[int] = []
        self.shape: Shape = ()
        self.dtype = torch.uint8

    def write(self) -> list[int]:
        if not isinstance(self.value, list):
            return [0] * self.head
        first = self.value[0]
        return _describe(sum(map(len, self.value)), first, first.shape[1:])

    def read(self, heads: list[list[int]]) -> None:
        self.rows, self.shape, dtype = _understand(self.owner, heads)
        self.dtype = dtype or self.dtype

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    def pack(self) -> Tensor:
        """Return this rank's rows as bytes."""
        if self.value is None:
            return torch.empty(0, dtype=torch.uint8)
        rows = self.tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        if rows.stride(0) != 1:  # a single number is contiguous whatever its stride
            rows = rows.clone(memory_format=torch.contiguous_format)
        return rows.view(torch.uint8)

    def unpack(self, pieces: Sequence[Tensor]) -> None:
        """Take every rank's bytes."""
        self.result = [
            piece.clone().view(self.dtype).reshape(rows, *self.shape)
            for piece, rows in zip(pieces, self.rows, strict=True)
            if rows
        ]


def make_part(metric: Metric, state: MetricState) -> Large | History:
    """Return how a metric's state travels."""
    value = metric._store.local.values[state.name]
    if state.reduction == "cat":
        return History(metric, state, value)
    if state.reduction == "same":
        shape = state.shape_in(metric)
        assert shape is not None  # else the declaration would have raised
        return Agreed(metric, state, value, shape)
    shape = state.shape_in(metric)
    if callable(state.reduction) or (
        shape is not None and math.prod(shape) <= SMALL and not _is_complex(state)
    ):
        assert shape is not None  # else the declaration would have raised
        return Small(metric, state, value, shape)
    if shape is None or state.reduction == "mean" or math.prod(shape) <= ROOM:
        return Told(metric, state, value)
    return Large(metric, state, value)


_OF_NUMBERS: dict[object, Callable[[Sequence[float]], float]] = {
    "sum": sum,
    "min": least,
    "max": greatest,
}


def _combine(rows: Tensor, state: MetricState, shape: Shape) -> Tensor:
    """Return the ranks' elements, a row each, as one; combined in the order of the ranks."""
    assert state.dtype is not None
    if callable(state.reduction):
        return state.reduction(rows.to(state.dtype).reshape(len(rows), *shape))
    match state.reduction:
        case "min":
            combined = rows.amin(0)
        case "max":
            combined = rows.amax(0)
        case "mean":
            return rows.double().mean(0).reshape(shape)
        case _:
            combined = rows.sum(0)
    return combined.to(state.dtype).reshape(shape)


def _is_float(state: MetricState) -> bool:
    assert state.dtype is not None
    return state.dtype.is_floating_point


def _is_complex(state: MetricState) -> bool:
    assert state.dtype is not None
    return state.dtype.is_complex


def _describe(rows: int, value: Tensor, shape: Sequence[int]) -> list[int]:
    if len(shape) > MAX_DIMENSIONS or value.dtype not in _DTYPES:
        # Told to all: a rank that raised by itself would leave the others waiting.
        return [rows, _CAN_NOT, len(shape), *[0] * (MAX_DIMENSIONS - 1)]
    code = 100 * _DTYPES.index(value.dtype) + len(shape)
    return [rows, code, *shape, *[0] * (MAX_DIMENSIONS - len(shape))]


def _understand(owner: str, table: list[list[int]]) -> tuple[list[int], Shape, torch.dtype | None]:
    """Return the rows of each rank, and shape and dtype of those that have any."""
    rows = [row[0] for row in table]
    full = [rank for rank, count in enumerate(rows) if count]
    if not full:
        return rows, (), None
    for rank in full:
        _, code, dimensions, *_ = table[rank]
        if code == _CAN_NOT:
            raise ValueError(
                f"{owner} has {dimensions} dimensions on rank {rank}, more than the "
                f"{MAX_DIMENSIONS} that can be combined over ranks: flatten some of them"
                if dimensions > MAX_DIMENSIONS
                else f"{owner} has a dtype on rank {rank} that can't be combined over ranks: "
                "convert it, as to torch.float32"
            )
    said = {rank: _read(table[rank][1:]) for rank in full}
    dtype, shape = said[full[0]]
    for rank, other in said.items():
        if other != (dtype, shape):
            raise ValueError(
                f"{owner} has {dtype} of shape {shape} on rank {full[0]}, but {other[0]} of shape "
                f"{other[1]} on rank {rank}: feed the metric alike on all ranks"
            )
    return rows, shape, dtype


def _read(words: Sequence[int]) -> tuple[torch.dtype, Shape]:
    dtype, dimensions = divmod(words[0], 100)
    return _DTYPES[dtype], tuple(words[1 : 1 + dimensions])
