"""Metrics that need all examples at once: medians, and what is relative to the targets' mean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from cookfire.metrics._pairs import median
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair
from cookfire.metrics.regression._column import ColumnMetric, SumOverColumn


class MedianOfErrors(ColumnMetric):
    """The median of what a formula makes of each example: one number of each is kept."""

    errors = MetricState(reduction="cat")

    def update(self, output: Sequence[Tensor]) -> None:
        """Keep a batch's errors."""
        y_pred, y = need_pair(type(self).__name__, output)
        self.accumulate(errors=self._errors(y_pred, y))

    def compute(self) -> float | Tensor:
        """Return the median as a float; of an even number, the mean of the two in the middle.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("errors")
        return median(self.errors.double())

    @abstractmethod
    def _errors(self, y_pred: Tensor, y: Tensor) -> Tensor:
        """Return the errors of a batch, ``(batch,)``."""


class MedianAbsoluteError(MedianOfErrors):
    """The median of ``|A - P|``, a float. It keeps one number an example.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = MedianAbsoluteError()
        >>> metric.update((torch.zeros(3), torch.tensor([1.0, 9.0, 2.0])))
        >>> metric.compute()
        2.0
    """

    def _errors(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return self._absolute(y_pred, y)


class MedianAbsolutePercentageError(MedianOfErrors):
    """The median of ``100 |A - P| / |A|``, a float. It keeps one number an example.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = MedianAbsolutePercentageError()
        >>> metric.update((torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2.0, 2.0, 4.0])))
        >>> metric.compute()
        25.0
    """

    def _errors(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return 100 * (self._differences(y_pred, y) / self._pair(y_pred, y)[1]).abs()


class MedianRelativeAbsoluteError(ColumnMetric):
    """The median of ``|A - P| / |A - mean(A)|``, a float. It keeps two numbers an example.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = MedianRelativeAbsoluteError()
        >>> metric.update((torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2.0, 3.0, 7.0])))
        >>> metric.compute()
        0.6666666666666666
    """

    errors = MetricState(reduction="cat")
    targets = MetricState(reduction="cat")

    def update(self, output: Sequence[Tensor]) -> None:
        """Keep a batch's errors and targets."""
        y_pred, y = need_pair(type(self).__name__, output)
        errors = self._absolute(y_pred, y)
        self.accumulate(errors=errors, targets=self._pair(y_pred, y)[1])

    def compute(self) -> float | Tensor:
        """Return the median as a float.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("targets")
        return median(self.errors.double() / _deviations(self.targets))


class GeometricMeanRelativeAbsoluteError(SumOverColumn):
    """``exp(sum ln(|A - P| / |A - mean(A)|) / n)``, a float. It keeps all targets.

    One prediction without an error makes it 0, one target that is the mean infinite.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = GeometricMeanRelativeAbsoluteError()
        >>> metric.update((torch.tensor([1.0, 5.0]), torch.tensor([2.0, 4.0])))
        >>> metric.compute()
        1.0
    """

    targets = MetricState(reduction="cat")

    def update(self, output: Sequence[Tensor]) -> None:
        """Add a batch's errors, and keep its targets."""
        y_pred, y = need_pair(type(self).__name__, output)
        total = self._sum(y_pred, y)
        self.accumulate(total=total, count=len(y), targets=self._pair(y_pred, y)[1])

    def compute(self) -> float | Tensor:
        """Return the geometric mean as a float.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        return torch.exp((self.total - _deviations(self.targets).log().sum()) / self.count)

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return self._absolute(y_pred, y).log().sum()


def _deviations(targets: Tensor) -> Tensor:
    """Return how far each is from their mean."""
    precise = targets.double()
    return (precise - precise.mean()).abs()
