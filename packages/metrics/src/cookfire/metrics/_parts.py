"""How each kind of state travels between ranks.

- :class:`Small`: of declared shape, a few elements: within the message that all ranks exchange;
  also whatever a function reduces.
- :class:`Large`: of declared shape: in an ``all_reduce``.
- :class:`Told`: its shape is in the message, since a rank without data can't know it; and its
  elements too if there are few, else they follow in an ``all_reduce``.
- :class:`History`: rows, any number on any rank: sizes in the message, then the bytes.

A message is a list of 64-bit integers, of the same length on all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cookfire.metrics._state import MetricState, Shape, Value

if TYPE_CHECKING:
    from cookfire.metrics.metric import Metric

SMALL = 64
"""Elements up to which a state travels within the message."""

ROOM = 256
"""Elements of a state of unknown shape for which every message has room: 2 kB are sent faster than
a second collective is started."""

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
)

Bucket = tuple[str, torch.dtype]
"""An operation of ``all_reduce``, and the dtype of what goes through it."""


class Large:
    """A tensor of a shape that all ranks know.

    Args:
        owner: of what, for messages: ``Accuracy: the state 'correct'``.
        state: its declaration.
        value: this rank's; what changes nothing where it has none.
    """

    words = 0
    """Integers that it adds to the message."""

    def __init__(self, owner: str, state: MetricState, value: Tensor) -> None:
        assert state.dtype is not None
        self.owner = owner
        self.state = state
        self.value = value
        self.dtype: torch.dtype = state.dtype
        self.result: Value = None

    @property
    def bucket(self) -> Bucket:
        return _operation(self.state), self.dtype

    def write(self) -> list[int]:
        """Return this rank's integers of the message."""
        return []

    def read(self, rows: list[list[int]]) -> None:
        """Take in the integers of all ranks, a row each."""

    def settle(self, value: Tensor) -> None:
        """Take what ``all_reduce`` gave."""
        self.result = value


class Small(Large):
    """A few numbers of a shape that all ranks know; combined in the order of the ranks."""

    def __init__(self, owner: str, state: MetricState, value: Tensor, *, known: bool) -> None:
        super().__init__(owner, state, value)
        self.known = known
        self.words = 1 + value.numel()

    @property
    def bucket(self) -> Bucket:
        # An all_reduce does not know how many ranks have a value, nor other operations than its
        # own: no bucket carries a mean, or what a function reduces.
        alone = self.state.reduction == "mean" or callable(self.state.reduction)
        return ("NONE", self.dtype) if alone else super().bucket

    def write(self) -> list[int]:
        return [int(self.known), *_to_words(self.value)]

    def read(self, rows: list[list[int]]) -> None:
        known = [row[1:] for row in rows if row[0]]
        if known:
            self.result = _combine(known, self.state, self.value.shape)
        elif self.state.reduction != "mean" and not callable(self.state.reduction):
            self.result = self.value


class Told(Large):
    """A tensor whose shape only the ranks with data know."""

    words = 2 + MAX_DIMENSIONS + ROOM

    def __init__(self, owner: str, state: MetricState, value: Tensor, *, known: bool) -> None:
        super().__init__(owner, state, value)
        self.known = known
        self.ranks = 0
        """How many have a value."""
        self.follows = False
        """Whether it needs an ``all_reduce``."""

    def write(self) -> list[int]:
        room = [0] * ROOM
        if self.known and self._has_room(self.value.shape):
            room[: self.value.numel()] = _to_words(self.value)
        return _describe(self.owner, int(self.known), self.value, self.value.shape) + room

    def read(self, rows: list[list[int]]) -> None:
        known, shape, _ = _understand(self.owner, rows)
        self.ranks = sum(map(bool, known))
        if self.ranks and self._has_room(shape):
            begin = 2 + MAX_DIMENSIONS
            end = begin + torch.Size(shape).numel()
            self.result = _combine([row[begin:end] for row in rows if row[0]], self.state, shape)
            return
        self.follows = self.ranks > 0
        if not self.known:
            fill = self.state.identity
            self.value = torch.full(shape, fill, dtype=self.dtype, device=self.value.device)

    def _has_room(self, shape: Sequence[int]) -> bool:
        return torch.Size(shape).numel() <= ROOM and not self.dtype.is_complex

    def settle(self, value: Tensor) -> None:
        self.result = value / self.ranks if self.state.reduction == "mean" else value


class History:
    """Rows, any number on any rank; dtype and shape of a row are those of the ranks with data."""

    words = 2 + MAX_DIMENSIONS

    def __init__(self, owner: str, value: Tensor, *, known: bool) -> None:
        self.owner = owner
        self.value = value
        self.known = known
        self.rows: list[int] = []
        self.shape: Shape = ()
        self.dtype = value.dtype
        self.result: Value = None

    def write(self) -> list[int]:
        rows = self.value.shape[0] if self.known else 0
        return _describe(self.owner, rows, self.value, self.value.shape[1:])

    def read(self, rows: list[list[int]]) -> None:
        self.rows, self.shape, dtype = _understand(self.owner, rows)
        self.dtype = dtype or self.dtype

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * torch.Size(self.shape).numel()

    def pack(self) -> Tensor:
        """Return this rank's rows as bytes."""
        if not self.known:
            return torch.empty(0, dtype=torch.uint8)
        rows = self.value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
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
    """Return how a metric's state travels; the kind is the same on all ranks."""
    value = metric._store.local.values[state.name]
    owner, known = f"{type(metric).__name__}: the state {state.name!r}", value is not None
    tensor = state.to_tensor(value, metric)
    if state.reduction == "cat":
        return History(owner, tensor, known=known)
    shape = state.shape_in(metric)
    if callable(state.reduction) or (shape is not None and torch.Size(shape).numel() <= SMALL):
        return Small(owner, state, tensor, known=known)
    if shape is None or state.reduction == "mean":
        return Told(owner, state, tensor, known=known)
    return Large(owner, state, tensor)


def _operation(state: MetricState) -> str:
    assert isinstance(state.reduction, str)
    return _OPERATIONS[state.reduction]


def _to_words(value: Tensor) -> list[int]:
    """Return each element as 64 bits."""
    flat = value.reshape(-1)
    words = flat.double().view(torch.int64) if value.is_floating_point() else flat.long()
    found: list[int] = words.tolist()
    return found


def _combine(rows: list[list[int]], state: MetricState, shape: Sequence[int]) -> Tensor:
    """Return what the ranks wrote as one, combined in their order."""
    assert state.dtype is not None
    words = torch.tensor(rows, dtype=torch.int64)
    numbers = words.view(torch.float64) if state.dtype.is_floating_point else words
    if callable(state.reduction):
        return state.reduction(numbers.to(state.dtype).reshape(len(rows), *shape))
    match state.reduction:
        case "min":
            combined = numbers.amin(0)
        case "max":
            combined = numbers.amax(0)
        case "mean":
            return numbers.double().mean(0).reshape(tuple(shape))
        case _:
            combined = numbers.sum(0)
    return combined.to(state.dtype).reshape(tuple(shape))


def _describe(owner: str, rows: int, value: Tensor, shape: Sequence[int]) -> list[int]:
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(
            f"{owner} has {len(shape)} dimensions, more than the {MAX_DIMENSIONS} that can be "
            "combined over ranks: flatten some of them"
        )
    code = 100 * _DTYPES.index(value.dtype) + len(shape)
    return [rows, code, *shape, *[0] * (MAX_DIMENSIONS - len(shape))]


def _understand(owner: str, table: list[list[int]]) -> tuple[list[int], Shape, torch.dtype | None]:
    """Return the rows of each rank, and shape and dtype of those that have any."""
    rows = [row[0] for row in table]
    full = [rank for rank, count in enumerate(rows) if count]
    if not full:
        return rows, (), None
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
