"""What metrics of predicted and true numbers share: two tensors that fit, and their differences."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import need_pair, need_tensors
from cookfire.metrics.metric import Metric

_FEW = 4096
_PRECISE = (torch.float32, torch.float64)


def to_precise(owner: str, name: str, tensor: Tensor) -> Tensor:
    """Return float32 and float64 as they are, half precision as float32, integers as float64.

    Raises:
        TypeError: booleans or complex numbers.
    """
    need_tensors(owner, tensor)
    if tensor.dtype in _PRECISE:
        return tensor
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise TypeError(f"{owner}: {name} must hold real numbers, got {tensor.dtype}: convert it")
    if tensor.is_floating_point() or tensor.device.type in WITHOUT_FLOAT64:
        return tensor.float()
    return tensor.double()


def check_column(owner: str, y_pred: Tensor, y: Tensor) -> None:
    """Refuse other shapes than ``(batch,)`` and ``(batch, 1)``."""
    if isinstance(y_pred, Tensor) and isinstance(y, Tensor) and y_pred.ndim == 1 == y.ndim:
        return
    need_tensors(owner, y_pred, y)
    for tensor in (y_pred, y):
        if tensor.ndim != 1 and (tensor.ndim != 2 or tensor.shape[1] != 1):
            raise ValueError(
                f"{owner}: expected y_pred and y of the shape (batch,) or (batch, 1), got "
                f"{tuple(y_pred.shape)} and {tuple(y.shape)}: reshape them, or choose one of "
                "their columns, by output_transform"
            )


def sum_of_squares(values: Tensor, *, own: bool = False) -> Tensor:
    """Return the sum of squares; a tensor of one's own may be written into.

    Few are added up most quickly by a dot product, many most exactly by ``sum``, which adds halves.
    """
    if values.numel() <= _FEW:
        flat = values.flatten()
        return torch.dot(flat, flat)
    return (values.square_() if own else values.square()).sum()


def median(values: Tensor) -> Tensor:
    """Return the median of a column; of an even number, the mean of the two in the middle.

    If there is a nan it is nan.
    """
    last = len(values) - 1
    lower, upper = last // 2, -(-last // 2)
    if values.device.type == "cpu":  # where it is faster than a sort
        first, second = (torch.kthvalue(values, place + 1).values for place in (lower, upper))
    else:
        ordered = values.sort().values
        first, second = ordered[lower], ordered[upper]
    return torch.where(values.isnan().any(), torch.nan, (first + second) / 2)


class PairMetric(Metric):
    """A metric of ``(y_pred, y)`` that are numbers of one shape, but for dimensions of size 1."""

    def _pair(self, y_pred: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return both in one shape, precise enough to calculate with."""
        try:
            is_same = y_pred.shape == y.shape
        except AttributeError:
            need_tensors(type(self).__name__, y_pred, y)
            raise
        if not is_same or y_pred.ndim == 0:
            if y_pred.ndim == 0 or y.ndim == 0 or _sizes(y_pred) != _sizes(y):
                raise ValueError(
                    f"{type(self).__name__}: expected y_pred and y of one shape (batch, ...), got "
                    f"{tuple(y_pred.shape)} and {tuple(y.shape)}: reshape them by output_transform"
                )
            y = y.reshape(y_pred.shape)
        if y_pred.dtype not in _PRECISE or y.dtype not in _PRECISE:
            owner = type(self).__name__
            return to_precise(owner, "y_pred", y_pred), to_precise(owner, "y", y)
        return y_pred, y

    def _once_of(
        self, what: str, y_pred: Tensor, y: Tensor, function: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Return ``function(y_pred, y)``, worked out once for all of an engine's iteration."""
        scratch = self._scratch
        if scratch is None:
            return function(y_pred, y)
        key = (what, id(y_pred), id(y))
        if key not in scratch:
            scratch[key] = function(y_pred, y), y_pred, y  # the ids are valid while they are kept
        result: Tensor = scratch[key][0]
        return result

    def _differences(self, y_pred: Tensor, y: Tensor) -> Tensor:
        """Return ``y_pred - y``."""
        return self._once_of("differences", y_pred, y, self._subtract)

    def _absolute(self, y_pred: Tensor, y: Tensor) -> Tensor:
        """Return ``|y_pred - y|``, a tensor of the caller's own."""
        differences = self._differences(y_pred, y)
        return differences.abs_() if self._scratch is None else differences.abs()

    def _subtract(self, y_pred: Tensor, y: Tensor) -> Tensor:
        y_pred, y = self._pair(y_pred, y)
        return y_pred - y


class SumOverPairs(PairMetric):
    """A sum over all pairs of what a formula makes of each, and how many examples there were."""

    total = MetricState(torch.float64)
    count = MetricState(torch.int64)

    def update(self, output: Sequence[Tensor]) -> None:
        """Add a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        self.accumulate(total=self._sum(y_pred, y), count=y.shape[0])

    def compute(self) -> float | Tensor:
        """Return the mean over the examples as a float.

        Raises:
            NotComputableError: there was no example.
        """
        return self._mean("total", "count")

    @abstractmethod
    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        """Return a batch's sum, a tensor without dimensions."""


def _sizes(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.shape[0], *(size for size in tensor.shape[1:] if size != 1))
