"""What a metric accumulates: declared states, and how values of each are merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Self, overload

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cookfire.metrics.metric import Metric

Merge = Callable[[Tensor], Tensor]
"""Values stacked along a first dimension, to the one that they make together."""
Reduction = Literal["sum", "min", "max", "mean", "cat", "same"] | Merge
Shape = tuple[int, ...]

WITHOUT_FLOAT64 = ("mps", "xla")
"""Types of devices that have no float64, or a very slow one."""


class Pieces:
    """A value kept in pieces, because they are more exact, or cost less to add to."""

    __slots__ = ()

    def to_tensor(self) -> Tensor:
        """Return the value, in float64."""
        raise NotImplementedError


class Compensated(Pieces):
    """A float32 sum with its rounding error beside it: as exact as float64 where there is none.

    The error of each addition is found by Knuth's TwoSum (The Art of Computer Programming, 4.2.2).
    """

    __slots__ = ("error", "total")

    def __init__(self, total: Tensor, error: Tensor) -> None:
        self.total = total
        self.error = error

    @classmethod
    def split(cls, value: Tensor, device: torch.device) -> Compensated:
        """Hold a value of any precision on a device without float64."""
        total = value.to(torch.float32)
        error = (value - total.to(value.dtype)).to(torch.float32)
        return cls(total.to(device), error.to(device))

    def add(self, value: Tensor) -> Compensated:
        total = self.total + value
        virtual = total - self.total
        lost = (self.total - (total - virtual)) + (value - virtual)
        return Compensated(total, self.error + lost)

    def to_tensor(self) -> Tensor:
        return self.total.cpu().double() + self.error.cpu().double()


Value = Tensor | int | float | list[Tensor] | Pieces | None
"""A state's value. None: nothing yet. Numbers stay numbers, so that a count costs no kernel."""


class MetricState:
    """One named state of a metric; declared in the class, and read as a tensor.

    Args:
        dtype: what is accumulated: ``torch.int64`` for counts, ``torch.float64`` for sums of
            floats (kept as compensated float32 on a device without float64). A history
            (``"cat"``) may leave it out and keeps what comes.
        reduction: how values combine, over updates and over ranks: ``"sum"``, ``"min"``, ``"max"``;
            ``"cat"`` keeps the rows of every update (any number of them, and none on a rank
            without data); ``"mean"`` is assigned, not accumulated, and averages over the ranks
            that have a value; ``"same"`` is for what must be equal everywhere, such as a number of
            classes, or ValueError is raised, on all ranks. For what none of them does, a function
            that turns values stacked along a first dimension into one, whatever their order; best
            of few elements.
        shape: its shape; a name stands for the metric's attribute of that name. None: whatever
            shape comes first; the ranks tell each other, so that one without data needs not know.

    Raises:
        ValueError: an unknown reduction, or a function without a shape.
        TypeError: no dtype, and not a history.

    Example:
        >>> class MeanAbsoluteError(Metric):
        ...     error = MetricState(torch.float64)
        ...     count = MetricState(torch.int64)
        ...     def update(self, output):
        ...         y_pred, y = output
        ...         self.accumulate(error=(y_pred - y).abs().sum(), count=y.numel())
        ...     def compute(self):
        ...         return self.error / self.count
        >>> metric = MeanAbsoluteError()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
        >>> metric.compute()
        1.0
    """

    name: str

    def __init__(
        self,
        dtype: torch.dtype | None = None,
        *,
        reduction: Reduction = "sum",
        shape: Sequence[int | str] | None = (),
    ) -> None:
        merges: dict[str, Callable[[Value, Tensor | float, Metric], Value]] = {
            "sum": self._add,
            "min": self._extreme,
            "max": self._extreme,
            "mean": self._refuse,
            "cat": self._append,
            "same": self._agree,
        }
        if not callable(reduction) and reduction not in merges:
            raise ValueError(
                f"unknown reduction {reduction!r}; expected a function, or one of "
                f"{', '.join(merges)}"
            )
        if callable(reduction) and shape is None:
            raise ValueError("a state that a function reduces needs a shape, got None")
        if reduction == "same" and shape is None:
            raise ValueError("a state that is the same everywhere needs a shape, got None")
        if dtype is None and reduction != "cat":
            raise TypeError(f"a state with reduction {reduction!r} needs a dtype")
        self.dtype = dtype
        self.reduction = reduction
        self.shape = None if shape is None else tuple(shape)
        self.merge = self._merge if callable(reduction) else merges[reduction]
        """``merge(old, new, metric)``: the value after ``new`` came."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, metric: None, owner: type) -> Self: ...
    @overload
    def __get__(self, metric: Metric, owner: type) -> Tensor: ...
    def __get__(self, metric: Metric | None, owner: type) -> Self | Tensor:
        if metric is None:
            return self
        store = metric._store
        if store.reduced is None:
            return self.to_tensor(store.local.values[self.name], metric)
        tensor = self.to_tensor(store.reduced.values[self.name], metric)
        # A formula can rely on float64.
        return tensor.cpu() if tensor.device.type in WITHOUT_FLOAT64 else tensor

    def __set__(self, metric: Metric, value: Tensor | float) -> None:
        store = metric._store
        values = store.reduced or store.local
        values.values[self.name] = self._adopt(value, metric)
        values.updates += 1

    def shape_in(self, metric: Metric) -> Shape | None:
        """Return the declared shape, None as long as it is unknown."""
        if self.shape is None:
            return None
        sizes = [getattr(metric, size) if isinstance(size, str) else size for size in self.shape]
        return None if None in sizes else tuple(sizes)

    def to_tensor(self, value: Value, metric: Metric) -> Tensor:
        """Return the value as a tensor; where there is none, what changes nothing in a merge."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, list):
            return torch.cat(value) if len(value) > 1 else value[0]
        if isinstance(value, Pieces):
            return value.to_tensor()
        if value is None:
            if self.reduction == "cat":
                return torch.empty(0, dtype=self.dtype)
            return torch.full(self.shape_in(metric) or (), self.identity, dtype=self.dtype)
        return torch.tensor(value, dtype=self.dtype)

    def tell(self, value: Value) -> str:
        """Return how a message speaks of a value, when others are not the same."""
        shown = value.tolist() if isinstance(value, Tensor) else value
        return f"the state {self.name!r} of {shown}"

    @property
    def identity(self) -> float:
        """The number that changes nothing when it is merged."""
        if self.reduction not in ("min", "max"):
            return 0
        assert self.dtype is not None
        if self.dtype.is_floating_point:
            return math.inf if self.reduction == "min" else -math.inf
        limits = torch.iinfo(self.dtype)
        return limits.max if self.reduction == "min" else limits.min

    def _of(self, metric: Metric) -> str:
        return f"{type(metric).__name__}: the state {self.name!r}"

    def _adopt(self, value: Tensor | float, metric: Metric) -> Value:
        """Return a first value as it is kept: detached, with the state's dtype, where it lives."""
        if not isinstance(value, Tensor):
            if isinstance(value, int) or (isinstance(value, float) and self._is_float):
                return int(value) if not self._is_float else float(value)
            try:
                value = torch.as_tensor(value)
            except (RuntimeError, TypeError, ValueError):
                raise TypeError(
                    f"{self._of(metric)} takes a number or a tensor, got {type(value).__name__}: "
                    "choose one by output_transform"
                ) from None
        value = value.detach()
        if self.dtype is not None and not torch.can_cast(value.dtype, self.dtype):
            raise TypeError(
                f"{self._of(metric)} holds {self.dtype}, got {value.dtype}: "
                "convert it, or declare another dtype"
            )
        shape = self.shape_in(metric)
        if shape is not None and value.shape != shape and self.reduction != "cat":
            raise ValueError(
                f"{self._of(metric)} has the shape {shape}, got "
                f"{tuple(value.shape)}: reduce it to that, or declare shape=None"
            )
        device = metric._device or value.device
        if self.dtype == torch.float64 and device.type in WITHOUT_FLOAT64:
            if self.reduction == "sum":
                return Compensated.split(value, device)
            return value.to(device, torch.float32)
        value = value.to(device)
        return value if self.dtype is None else value.to(self.dtype)

    @property
    def _is_float(self) -> bool:
        return self.dtype is not None and self.dtype.is_floating_point

    def _add(self, old: Value, new: Tensor | float, metric: Metric) -> Value:
        if isinstance(new, Tensor):
            if (
                isinstance(old, Tensor)
                and metric._device is None
                and old.device == new.device
                and old.shape == new.shape
            ):
                total = old + new
                if total.dtype is self.dtype and not total.requires_grad:
                    return total
        elif type(new) is int and type(old) is int:
            return old + new
        added = self._adopt(new, metric)
        if old is None:
            return _own(added, new)
        if isinstance(old, Compensated) or isinstance(added, Compensated):
            return self._add_compensated(old, added)
        assert not isinstance(old, list | Pieces)
        assert not isinstance(added, list | Pieces)
        assert added is not None
        if isinstance(old, Tensor) and isinstance(added, Tensor):
            self._check_shapes(old, added, metric)
            return old.to(added.device) + added
        return old + added

    def _add_compensated(self, old: Value, added: Value) -> Compensated:
        pair = (old, added)
        held = next(value for value in pair if isinstance(value, Compensated))
        device = held.total.device
        left, right = (
            value
            if isinstance(value, Compensated)
            else Compensated.split(torch.as_tensor(value, dtype=torch.float64).cpu(), device)
            for value in pair
        )
        total = left.add(right.total)
        return Compensated(total.total, total.error + right.error)

    def _extreme(self, old: Value, new: Tensor | float, metric: Metric) -> Value:
        value = self._adopt(new, metric)
        if old is None:
            return _own(value, new)
        if isinstance(old, int | float) and isinstance(value, int | float):
            return (least if self.reduction == "min" else greatest)((old, value))
        left, right = self.to_tensor(old, metric), self.to_tensor(value, metric)
        self._check_shapes(left, right, metric)
        choose = torch.minimum if self.reduction == "min" else torch.maximum
        return choose(left.to(right.device), right)

    def _merge(self, old: Value, new: Tensor | float, metric: Metric) -> Value:
        value = self._adopt(new, metric)
        if old is None:
            return _own(value, new)
        assert callable(self.reduction)
        left, right = self.to_tensor(old, metric), self.to_tensor(value, metric)
        return self.reduction(torch.stack([left.to(right.device), right]))

    def _agree(self, old: Value, new: Tensor | float, metric: Metric) -> Value:
        value = self._adopt(new, metric)
        if old is None:
            return _own(value, new)
        if isinstance(old, int | float) and isinstance(value, int | float):
            agree = old == value
        else:
            agree = torch.equal(*(self.to_tensor(one, metric).cpu() for one in (old, value)))
        if agree:
            return old
        raise ValueError(
            f"{type(metric).__name__} had {self.tell(old)}, now it has {self.tell(value)}: use one "
            "metric for each, or reset() in between"
        )

    def _append(self, old: Value, new: Tensor | float, metric: Metric) -> Value:
        tensor = (new if isinstance(new, Tensor) else torch.as_tensor(new)).detach()
        # Always a copy: a model may write its next output where this one is.
        device = metric._device
        rows = tensor.clone() if device is None else tensor.to(device, copy=True)
        if self.dtype is not None:
            adopted = self._adopt(rows, metric)
            assert isinstance(adopted, Tensor)
            rows = adopted
        if rows.ndim == 0:
            rows = rows.reshape(1)
        if old is None:
            return [rows]
        assert isinstance(old, list)
        first = old[0]
        if rows.dtype != first.dtype or rows.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"{self._of(metric)} holds rows of {first.dtype} and shape "
                f"{tuple(first.shape[1:])}, got {rows.dtype} and {tuple(rows.shape[1:])}"
            )
        old.append(rows if rows.device == first.device else rows.to(first.device))
        return old

    def _refuse(self, _old: Value, _new: Tensor | float, metric: Metric) -> Value:
        raise TypeError(
            f"{self._of(metric)} has the reduction 'mean', which is over ranks "
            f"only: assign it (metric.{self.name} = ...), don't accumulate it"
        )

    def _check_shapes(self, old: Tensor, new: Tensor, metric: Metric) -> None:
        if old.shape != new.shape:
            raise ValueError(
                f"{self._of(metric)} has the shape {tuple(old.shape)}, got "
                f"{tuple(new.shape)}: updates must agree; reset() begins afresh"
            )


def _own(value: Value, given: Tensor | float) -> Value:
    """Return a first value that shares no memory with what was given: that may be written into."""
    if not isinstance(value, Tensor):
        return value
    is_converted = isinstance(given, Tensor) and (
        given.dtype is not value.dtype or given.device != value.device
    )
    return value if is_converted else value.clone()


def least(numbers: Sequence[float]) -> float:
    """Return the minimum as torch has it: nan if any is."""
    return next((number for number in numbers if number != number), min(numbers))


def greatest(numbers: Sequence[float]) -> float:
    """Return the maximum as torch has it: nan if any is."""
    return next((number for number in numbers if number != number), max(numbers))
