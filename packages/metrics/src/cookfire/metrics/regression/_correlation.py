"""How much of the targets the predictions explain, and how they correlate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._errors import Errors
from cookfire.metrics._moments import add_moments, central_moments, moments_state
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair, same
from cookfire.metrics.regression._column import ColumnMetric


class R2Score(Errors):
    """The coefficient of determination, ``1 - sum (A - P)^2 / sum (A - mean(A))^2``, a float.

    Targets whose mean is large against their deviation cost no digits. Constant targets: 1 if all
    predictions are right, else 0, as scikit-learn has it.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`. Arguments are those of
    :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = R2Score()
        >>> metric.update((torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])))
        >>> metric.compute()
        0.5
    """

    _wanted = frozenset({"squared", "moments"})

    def compute(self) -> float | Tensor:
        """Return the coefficient as a float.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        errors, deviations = self._as_number("squared"), self._deviations()
        if isinstance(errors, Tensor):
            constant = (errors == 0).to(errors.dtype)
            return torch.where(deviations == 0, constant, 1 - errors / deviations)
        return 1 - errors / deviations if deviations else float(errors == 0)

    def _deviations(self) -> Any:
        """Return the sum of the targets' squared deviations from their mean."""
        row = self.moments
        number, _, total, squares = row.unbind() if self._store.alone else row.tolist()
        return squares - total * total / number


class PearsonCorrelation(ColumnMetric):
    """Pearson's correlation, ``cov(P, A) / max(std(P) std(A), eps)``, a float.

    The moments are those of the population (divided by n). Numbers whose mean is large against
    their deviation cost no digits; constant ones give 0.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`.

    Args:
        eps: the least that is divided by.
        output_transform: turns the engine's output into ``(y_pred, y)``.
        device: where the moments are kept; None: where the data are.

    Example:
        >>> metric = PearsonCorrelation()
        >>> metric.update((torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 3.0])))
        >>> round(metric.compute(), 4)
        0.6547
    """

    count = MetricState(torch.int64)
    moments = moments_state(2)

    def __init__(
        self,
        eps: float = 1e-8,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        self.eps = eps
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Take in a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        values = torch.stack(self._pair(y_pred, y))
        self.accumulate(count=len(y))
        add_moments(self, "moments", values)

    def compute(self) -> float | Tensor:
        """Return the correlation as a float.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        number, _, products = central_moments(self.moments)
        covariances = products / number
        deviations = covariances.diagonal().clamp(min=0).sqrt()
        return covariances[0, 1] / deviations.prod().clamp(min=self.eps)
