"""Averages of a single variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import same
from cookfire.metrics.metric import Metric

Operation = Callable[[Tensor, Tensor | float], Tensor]


class VariableAccumulation(Metric):
    """A variable accumulated by an operation, and how many examples it came from.

    A number or a tensor of at most one dimension counts as one example; a tensor of more as many
    as its first dimension has.

    Args:
        op: ``(accumulator, x) -> accumulator``; the accumulator begins as the float64 tensor 0,
            and x is a number or a float64 tensor. Over ranks accumulators are summed.
        output_transform: turns the engine's output into x.
        device: where the accumulator is kept; None: where x is.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        TypeError: ``op`` can't be called; by ``update``, neither a number nor a tensor.

    Example:
        >>> squares = VariableAccumulation(lambda total, x: total + x**2)
        >>> squares.update(2.0)
        >>> squares.update(torch.tensor(3.0))
        >>> squares.compute()
        (13.0, 2)
    """

    required_output_keys = None

    accumulator = MetricState(torch.float64, shape=None)
    num_examples = MetricState(torch.int64)

    def __init__(
        self,
        op: Operation,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        if not callable(op):
            raise TypeError(f"op must be callable, got {op!r}")
        self._op = op
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Tensor | float) -> None:
        """Take in x."""
        count = 1
        if isinstance(output, Tensor):
            count = output.shape[0] if output.ndim > 1 else 1
            precise = torch.float32 if output.device.type in WITHOUT_FLOAT64 else torch.float64
            output = output.detach().to(precise)
            if self._device is not None:
                output = output.to(self._device)
        elif not isinstance(output, int | float):
            raise TypeError(
                f"{type(self).__name__} takes a number or a tensor, got {output!r} "
                f"({type(output).__name__}): choose one by output_transform"
            )
        self._take_in(output, count)

    def _take_in(self, x: Tensor | float, count: int) -> None:
        total = self.accumulator
        if isinstance(x, Tensor) and x.device.type in WITHOUT_FLOAT64:
            total = total.to(x.device, x.dtype)  # kept as a pair, which no operation knows
        self.accumulator = self._op(total, x)
        self.accumulate(num_examples=count)

    def compute(self) -> Any:
        """Return the accumulator and the number of examples.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("num_examples")
        return self.accumulator, self.num_examples


class Average(VariableAccumulation):
    """The mean of a variable; of a tensor of several dimensions, over the first one.

    Arguments other than ``op``, and errors, are those of
    :class:`~cookfire.metrics.VariableAccumulation`.

    Example:
        >>> average = Average()
        >>> average.update(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
        >>> average.compute()
        tensor([2., 4.], dtype=torch.float64)
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        super().__init__(_add, output_transform, device, skip_unrolling)

    def _take_in(self, x: Tensor | float, count: int) -> None:
        self.accumulate(accumulator=_sum(x), num_examples=count)

    def compute(self) -> float | Tensor:
        """Return the mean, with the shape of one example.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("num_examples")
        return self.accumulator / self.num_examples


class GeometricAverage(VariableAccumulation):
    """The geometric mean of a positive variable; of tensors as for :class:`Average`.

    The mean is taken of logarithms, so that products can't overflow.

    Example:
        >>> average = GeometricAverage()
        >>> for x in (1.0, 4.0):
        ...     average.update(x)
        >>> average.compute()
        2.0
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        super().__init__(_add_logarithm, output_transform, device, skip_unrolling)

    def _take_in(self, x: Tensor | float, count: int) -> None:
        self.accumulate(accumulator=_sum(_logarithm(x)), num_examples=count)

    def compute(self) -> float | Tensor:
        """Return the geometric mean, with the shape of one example.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("num_examples")
        return torch.exp(self.accumulator / self.num_examples)


def _add(total: Tensor, x: Tensor | float) -> Tensor:
    return total + _sum(x)


def _add_logarithm(total: Tensor, x: Tensor | float) -> Tensor:
    return total + _sum(_logarithm(x))


def _sum(x: Tensor | float) -> Tensor | float:
    """What x adds: of several dimensions, the first one's sum."""
    return x.sum(0) if isinstance(x, Tensor) and x.ndim > 1 else x


def _logarithm(x: Tensor | float) -> Tensor:
    return (x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)).log()
