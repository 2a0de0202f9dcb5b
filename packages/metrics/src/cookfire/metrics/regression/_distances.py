"""Distances of all predictions from all targets: sums, not means."""

from __future__ import annotations

import torch
from torch import Tensor

from cookfire.metrics.regression._column import SumOverColumn, ratio


class ManhattanDistance(SumOverColumn):
    """The sum of absolute errors, ``sum |A - P|``, a float.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = ManhattanDistance()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
        >>> metric.compute()
        2.0
    """

    def compute(self) -> float | Tensor:
        """Return the sum as a float.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        return self.total

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return self._absolute(y_pred, y).sum()


class CanberraMetric(ManhattanDistance):
    """The Canberra distance, ``sum |A - P| / (|A| + |P|)``, a float; 0 where both are 0.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = CanberraMetric()
        >>> metric.update((torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])))
        >>> metric.compute()
        0.5
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        errors = self._absolute(y_pred, y)
        y_pred, y = self._pair(y_pred, y)
        return ratio(errors, y_pred.abs().add_(y.abs())).sum()


class WaveHedgesDistance(ManhattanDistance):
    """The Wave Hedges distance, ``sum |A - P| / max(A, P)``, a float; 0 where both are 0.

    It is meant for numbers that are not negative.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = WaveHedgesDistance()
        >>> metric.update((torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0])))
        >>> metric.compute()
        0.75
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        errors = self._absolute(y_pred, y)
        y_pred, y = self._pair(y_pred, y)
        return ratio(errors, torch.maximum(y_pred, y)).sum()
