"""Mean absolute and squared errors."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from cookfire.metrics._pairs import SumOverPairs


class MeanAbsoluteError(SumOverPairs):
    """The mean absolute error, ``sum |y_pred - y| / N`` over N examples.

    ``y_pred`` and ``y`` have one shape ``(batch, ...)``, but for dimensions of size 1. The errors
    within an example are summed; for the mean over all numbers give them as ``(numbers,)``, by
    ``output_transform=lambda output: (output[0].flatten(), output[1].flatten())``. Any real dtype;
    half precision is calculated in float32, integers in float64, and the sum kept in float64.

    Arguments are those of :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: by ``update``, shapes that don't fit.
        TypeError: by ``update``, booleans or complex numbers.

    Example:
        >>> metric = MeanAbsoluteError()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
        >>> metric.compute()
        1.0
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return self._differences(y_pred, y).abs().sum()


class MeanSquaredError(SumOverPairs):
    """The mean squared error, ``sum (y_pred - y)^2 / N`` over N examples.

    Shapes, dtypes, arguments and errors are those of
    :class:`~cookfire.metrics.MeanAbsoluteError`. In one engine it shares its state with
    :class:`~cookfire.metrics.RootMeanSquaredError`.

    Example:
        >>> metric = MeanSquaredError()
        >>> metric.update((torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
        >>> metric.compute()
        2.0
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return self._squares(y_pred, y)

    def _sharing_key(self) -> Hashable:
        if type(self)._sum is not MeanSquaredError._sum:
            return None
        return self._share_updates_of(MeanSquaredError)


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
