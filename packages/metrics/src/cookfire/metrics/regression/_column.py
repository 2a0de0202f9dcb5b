"""What the metrics of this package share: one predicted and one true number an example."""

from __future__ import annotations

import torch
from torch import Tensor

from cookfire.metrics._pairs import PairMetric, SumOverPairs, check_column


class ColumnMetric(PairMetric):
    """A metric of ``(y_pred, y)`` with the shapes ``(batch,)`` or ``(batch, 1)``."""

    def _pair(self, y_pred: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        check_column(type(self).__name__, y_pred, y)
        y_pred, y = super()._pair(y_pred, y)
        return (y_pred, y) if y_pred.ndim == 1 else (y_pred[:, 0], y[:, 0])


class SumOverColumn(ColumnMetric, SumOverPairs):
    """A sum over the examples."""


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return ``part / whole``, 0 where both are 0 and huge where only ``whole`` is.

    ``whole`` is a tensor of the caller's own.
    """
    return part / whole.add_(torch.finfo(whole.dtype).tiny)  # which changes nothing but a 0
