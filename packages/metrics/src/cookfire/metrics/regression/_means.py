"""Means of errors, and the largest one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair
from cookfire.metrics.regression._column import ColumnMetric, SumOverColumn, ratio


class MeanError(SumOverColumn):
    """The mean error, ``sum (A - P) / n``, a float.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = MeanError()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
        >>> metric.compute()
        1.0
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return -self._differences(y_pred, y).sum()


class FractionalAbsoluteError(SumOverColumn):
    """The fractional absolute error, ``sum 2 |A - P| / (|A| + |P|) / n``, a float.

    It is from 0 to 2; an example where both are 0 counts 0.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = FractionalAbsoluteError()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])))
        >>> metric.compute()
        0.5
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        errors = self._absolute(y_pred, y)
        y_pred, y = self._pair(y_pred, y)
        return 2 * ratio(errors, y_pred.abs().add_(y.abs())).sum()


class FractionalBias(SumOverColumn):
    """The fractional bias, ``sum 2 (A - P) / (A + P) / n``, a float.

    An example where both are 0 counts 0; where they cancel, the value is huge.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = FractionalBias()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])))
        >>> metric.compute()
        0.5
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        differences = self._differences(y_pred, y)
        y_pred, y = self._pair(y_pred, y)
        return -2 * ratio(differences, y_pred + y).sum()


class GeometricMeanAbsoluteError(SumOverColumn):
    """The geometric mean of the absolute errors, ``exp(sum ln |A - P| / n)``, a float.

    One prediction without an error makes it 0.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = GeometricMeanAbsoluteError()
        >>> metric.update((torch.zeros(2), torch.tensor([1.0, 4.0])))
        >>> round(metric.compute(), 6)
        2.0
    """

    def compute(self) -> float | Tensor:
        """Return the geometric mean as a float.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        return torch.exp(self.total / self.count)

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return self._absolute(y_pred, y).log().sum()


class RelativeToTargets(SumOverColumn):
    """A mean of errors divided by the targets, none of which may be 0."""

    zeros = MetricState(torch.int64)
    """Targets that are 0; counted, so that ``update`` need not look at them."""

    def update(self, output: Sequence[Tensor]) -> None:
        """Add a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        total = self._sum(y_pred, y)
        self.accumulate(total=total, count=len(y), zeros=y.numel() - torch.count_nonzero(y))

    def _check_input(self) -> None:
        if self.count > 0 and self.zeros > 0:
            raise NotComputableError(
                f"{type(self).__name__}: {int(self.zeros)} targets are 0, which errors can't be "
                "relative to: leave them out by output_transform"
            )


class MeanAbsoluteRelativeError(RelativeToTargets):
    """The mean absolute relative error, ``sum |A - P| / |A| / n``, a float.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Raises:
        NotComputableError: by ``compute``, a target was 0.

    Example:
        >>> metric = MeanAbsoluteRelativeError()
        >>> metric.update((torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])))
        >>> metric.compute()
        0.25
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        differences = self._differences(y_pred, y)
        return (differences / self._pair(y_pred, y)[1]).abs().sum()


class MeanNormalizedBias(RelativeToTargets):
    """The mean normalised bias, ``sum (A - P) / A / n``, a float.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Raises:
        NotComputableError: by ``compute``, a target was 0.

    Example:
        >>> metric = MeanNormalizedBias()
        >>> metric.update((torch.tensor([1.0, 1.0]), torch.tensor([1.0, 2.0])))
        >>> metric.compute()
        0.25
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        differences = self._differences(y_pred, y)
        return -(differences / self._pair(y_pred, y)[1]).sum()


class MaximumAbsoluteError(ColumnMetric):
    """The largest absolute error, ``max |A - P|``, a float.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = MaximumAbsoluteError()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
        >>> metric.compute()
        2.0
    """

    largest = MetricState(torch.float64, reduction="max")
    count = MetricState(torch.int64)

    def update(self, output: Sequence[Tensor]) -> None:
        """Take in a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        errors = self._absolute(y_pred, y)
        if len(y) > 0:
            self.accumulate(largest=errors.max(), count=len(y))

    def compute(self) -> float | Tensor:
        """Return the largest error as a float.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        return self.largest
