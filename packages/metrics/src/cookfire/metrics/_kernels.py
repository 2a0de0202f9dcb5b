"""Whether samples have one distribution, or depend on each other, by a Gaussian kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._pairs import median, to_precise
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_number, need_pair, need_tensors, same
from cookfire.metrics.metric import Metric


class _MeanOverBatches(Metric):
    total = MetricState(torch.float64)
    batches = MetricState(torch.int64)

    def compute(self) -> float | Tensor:
        """Return the mean over the batches as a float.

        Raises:
            NotComputableError: there was no batch that is large enough.
        """
        self._require("batches")
        return self.total / self.batches

    def _samples(self, output: Sequence[Tensor], names: tuple[str, str]) -> list[Tensor]:
        owner = type(self).__name__
        x, y = need_pair(owner, output, ", ".join(names))
        need_tensors(owner, x, y)
        if min(x.ndim, y.ndim) < 2 or len(x) != len(y):
            raise ValueError(
                f"{owner}: expected {names[0]} and {names[1]} of the shapes (batch, ...), with "
                f"equally many samples of one dimension at least, got {tuple(x.shape)} and "
                f"{tuple(y.shape)}: reshape them by output_transform"
            )
        x, y = (
            to_precise(owner, name, tensor).flatten(1)
            for name, tensor in zip(names, (x, y), strict=True)
        )
        dtype = torch.promote_types(x.dtype, y.dtype)
        return [x.to(dtype), y.to(dtype)]


class MaximumMeanDiscrepancy(_MeanOverBatches):
    """The maximum mean discrepancy of two sets of samples, by the kernel ``exp(-d^2 / (2 var))``.

    The root of the mean over batches of ``mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x, y)``,
    the first two over ``i != j`` (Gretton et al., "A kernel two-sample test", 2012, lemma 6, but
    for the diagonal of the last); 0 if that is negative. The batches should be of one size; one
    with a single sample says nothing and is left out.

    ``x`` and ``y`` have one shape ``(batch, ...)``, each sample one vector; half precision is
    calculated in float32.

    Args:
        var: the kernel's bandwidth, sigma squared.
        output_transform: turns the engine's output into ``(x, y)``.
        device: where the sum is kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: ``var`` is not positive; by ``update``, shapes that don't fit.
        TypeError: by ``update``, booleans or complex numbers.

    Example:
        >>> metric = MaximumMeanDiscrepancy()
        >>> metric.update((torch.zeros(3, 2), torch.ones(3, 2)))
        >>> round(metric.compute(), 4)
        1.1244
    """

    _settings = ("_var",)

    def __init__(
        self,
        var: float = 1.0,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        need_number("var", var)
        if not var > 0:
            raise ValueError(f"var must be positive, got {var!r}")
        self._var = var
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Add a batch."""
        x, y = self._samples(output, ("x", "y"))
        if x.shape != y.shape:
            raise ValueError(
                "MaximumMeanDiscrepancy: x and y must have one shape, got "
                f"{tuple(output[0].shape)} and {tuple(output[1].shape)}"
            )
        number = len(x)
        if number < 2:
            return
        both = torch.cat([x, y])
        kernel = torch.exp(_squared_distances(both) / (-2 * self._var))
        within = kernel[:number, :number].sum() + kernel[number:, number:].sum() - 2 * number
        between = kernel[:number, number:].mean()
        self.accumulate(total=within / (number * (number - 1)) - 2 * between, batches=1)

    def compute(self) -> float | Tensor:
        """Return the discrepancy as a float.

        Raises:
            NotComputableError: there was no batch of two or more.
        """
        return torch.as_tensor(super().compute()).clamp(min=0).sqrt()


class HSIC(_MeanOverBatches):
    """The Hilbert-Schmidt independence criterion: 0 where ``y_pred`` and ``y`` are independent.

    The mean over batches of its unbiased estimate by Gaussian kernels (Song et al., "Feature
    selection via dependence maximization", 2012, equation 5), 0 where that is negative. An
    estimate needs four samples; batches should be of one size.

    ``y_pred`` and ``y`` have the shapes ``(batch, ...)``, each sample one vector; half precision
    is calculated in float32.

    Args:
        sigma_x: the bandwidth of the kernel of ``y_pred``; negative: sigma squared is the median
            of the squared distances within the batch.
        sigma_y: the same of ``y``.
        ignore_invalid_batch: leave out a batch of less than four samples; False: raise.
        output_transform: turns the engine's output into ``(y_pred, y)``.
        device: where the sum is kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: a bandwidth of 0; by ``update``, shapes that don't fit, or too few samples.
        TypeError: by ``update``, booleans or complex numbers.

    Example:
        >>> metric = HSIC()
        >>> x = torch.arange(6.0).reshape(6, 1)
        >>> metric.update((x, x))
        >>> round(metric.compute(), 4)
        0.0974
    """

    _settings = ("sigma_x", "sigma_y")

    def __init__(
        self,
        sigma_x: float = -1,
        sigma_y: float = -1,
        ignore_invalid_batch: bool = True,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        for name, sigma in (("sigma_x", sigma_x), ("sigma_y", sigma_y)):
            need_number(name, sigma)
            if sigma == 0:
                raise ValueError(
                    f"{name} must be positive, or negative to be chosen from the data, got 0"
                )
        self.sigma_x = sigma_x
        self.sigma_y = sigma_y
        self.ignore_invalid_batch = ignore_invalid_batch
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Add a batch."""
        x, y = self._samples(output, ("y_pred", "y"))
        number = len(x)
        if number < 4:
            if self.ignore_invalid_batch:
                return
            raise ValueError(
                f"HSIC needs at least 4 samples a batch, got {number}: use larger batches, or "
                "ignore_invalid_batch=True"
            )
        k, m = _kernel(x, self.sigma_x), _kernel(y, self.sigma_y)
        k_rows, m_rows = k.sum(0), m.sum(0)
        estimate = (
            (k * m).sum()
            + k_rows.sum() * m_rows.sum() / ((number - 1) * (number - 2))
            - 2 * (k_rows @ m_rows) / (number - 2)
        )
        self.accumulate(total=estimate.clamp(min=0) / (number * (number - 3)), batches=1)


def _kernel(samples: Tensor, sigma: float) -> Tensor:
    """Return the kernel of all pairs, 0 for a sample and itself."""
    distances = _squared_distances(samples)
    if sigma < 0:
        # Where most samples are equal the median is 0: then only equal ones are alike.
        variance = median(distances.flatten()).clamp(min=torch.finfo(distances.dtype).tiny)
        kernel = torch.exp(distances / variance * -0.5)
    else:
        kernel = torch.exp(distances / (-2 * sigma**2))
    return kernel.fill_diagonal_(0)


def _squared_distances(samples: Tensor) -> Tensor:
    """Return the squared distances of all pairs of ``(n, features)``.

    About the mean, as a large one would take the digits.
    """
    centred = samples - samples.mean(0)
    squares = centred.square().sum(1)
    distances = squares.unsqueeze(1) + squares - 2 * centred @ centred.T
    return distances.clamp(min=0).fill_diagonal_(0)
