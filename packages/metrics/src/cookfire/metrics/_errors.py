"""Mean absolute and squared errors."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from cookfire.metrics._moments import add_moments, add_sum, moments_state
from cookfire.metrics._pairs import PairMetric, check_column, sum_of_squares
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair


class Errors(PairMetric):
    """Sums over errors, of which a metric needs some.

    All metrics of one engine that need them, with equal settings, share them.
    """

    absolute = MetricState(torch.float64)
    squared = MetricState(torch.float64)
    count = MetricState(torch.int64)
    moments = moments_state(1)
    """Those of the targets."""

    def update(self, output: Sequence[Tensor]) -> None:
        """Add a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        self._leave_others()
        wanted = self._store.wanted
        if "moments" in wanted:
            check_column("R2Score", y_pred, y)
        errors, own = self._differences(y_pred, y), self._scratch is None
        held, device = self._store.local, self._device
        values = held.values
        if "absolute" in wanted:
            errors, own = errors.abs_() if own else errors.abs(), True
            values["absolute"] = add_sum(values["absolute"], errors.sum(), device)
        if "squared" in wanted:
            total = sum_of_squares(errors, own=own)
            values["squared"] = add_sum(values["squared"], total, device)
        values["count"] = self._states["count"].merge(values["count"], y.shape[0], self)
        held.updates += 1
        if "moments" in wanted:
            add_moments(self, "moments", self._pair(y_pred, y)[1].flatten())

    def _sharing_key(self) -> Hashable:
        return self._share_updates_of(Errors)


class MeanAbsoluteError(Errors):
    """The mean absolute error, ``sum |y_pred - y| / N`` over N examples.

    ``y_pred`` and ``y`` have one shape ``(batch, ...)``, but for dimensions of size 1. The errors
    within an example are summed; for the mean over all numbers give them as ``(numbers,)``, by
    ``output_transform=lambda output: (output[0].flatten(), output[1].flatten())``. Any real dtype;
    half precision is calculated in float32, integers in float64, and the sum kept in float64.

    Arguments are those of :class:`~cookfire.metrics.Metric`. In one engine it, MeanSquaredError,
    RootMeanSquaredError and R2Score of the same output are updated together.

    Raises:
        ValueError: by ``update``, shapes that don't fit.
        TypeError: by ``update``, booleans or complex numbers.

    Example:
        >>> metric = MeanAbsoluteError()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
        >>> metric.compute()
        1.0
    """

    _wanted = frozenset({"absolute"})

    def compute(self) -> float | Tensor:
        """Return the mean as a float.

        Raises:
            NotComputableError: there was no example.
        """
        return self._mean("absolute", "count")


class MeanSquaredError(Errors):
    """The mean squared error, ``sum (y_pred - y)^2 / N`` over N examples.

    Shapes, dtypes, arguments and errors are those of
    :class:`~cookfire.metrics.MeanAbsoluteError`.

    Example:
        >>> metric = MeanSquaredError()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
        >>> metric.compute()
        2.0
    """

    _wanted = frozenset({"squared"})

    def compute(self) -> float | Tensor:
        """Return the mean as a float.

        Raises:
            NotComputableError: there was no example.
        """
        return self._mean("squared", "count")


class RootMeanSquaredError(MeanSquaredError):
    """The root of the mean squared error, which see: :class:`~cookfire.metrics.MeanSquaredError`.

    Example:
        >>> metric = RootMeanSquaredError()
        >>> metric.update((torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 6.0, 3.0, 4.0])))
        >>> metric.compute()
        2.0
    """

    def compute(self) -> float | Tensor:
        """Return the root as a float.

        Raises:
            NotComputableError: there was no example.
        """
        return super().compute() ** 0.5
