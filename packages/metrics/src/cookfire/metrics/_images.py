"""How alike two batches of images are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from cookfire.metrics._pairs import SumOverPairs, to_precise
from cookfire.metrics._state import WITHOUT_FLOAT64
from cookfire.metrics._values import need_number, need_tensors, same

_EPSILON = 1e-10
"""Added to a mean squared error, so that equal images have a finite ratio."""
_ELEMENTS_IN_CACHE = 2**20
_ELEMENTS_AT_ONCE = 2**26
"""Of the four maps that SSIM filters together; on a CPU and elsewhere."""


class _ImageMetric(SumOverPairs):
    """A mean over images: pairs of one dtype and shape."""

    def _images(self, y_pred: Tensor, y: Tensor, dimensions: str) -> tuple[Tensor, Tensor]:
        owner = type(self).__name__
        need_tensors(owner, y_pred, y)
        if y_pred.dtype != y.dtype:
            raise TypeError(
                f"{owner}: y_pred and y must have one dtype, got {y_pred.dtype} and {y.dtype}: "
                "convert one, and mind its range"
            )
        if y_pred.shape != y.shape or y.ndim < 2:
            raise ValueError(
                f"{owner}: expected y_pred and y of one shape {dimensions}, got "
                f"{tuple(y_pred.shape)} and {tuple(y.shape)}"
            )
        if y.dtype == torch.uint8:
            return y_pred.float(), y.float()
        return to_precise(owner, "y_pred", y_pred), to_precise(owner, "y", y)


class PSNR(_ImageMetric):
    """The mean peak signal-to-noise ratio of images, ``10 log10(data_range^2 / MSE)``, in decibel.

    The mean squared error is of one image, over all its channels and pixels; 1e-10 is added to it,
    so that equal images have a finite ratio. ``y_pred`` and ``y`` have one shape ``(batch, ...)``
    and one dtype; uint8 and half precision are calculated in float32, other integers in float64.

    Args:
        data_range: the largest value that is possible less the smallest, as 255 for uint8 or 1.0.
        output_transform: turns the engine's output into ``(y_pred, y)``.
        device: where the sum is kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: ``data_range`` is not positive; by ``update``, shapes that don't fit.
        TypeError: by ``update``, different dtypes.

    Example:
        >>> metric = PSNR(data_range=1.0)
        >>> metric.update((torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.1)))
        >>> round(metric.compute(), 3)
        20.0
    """

    _settings = ("data_range",)

    def __init__(
        self,
        data_range: float,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        self.data_range = _positive("data_range", data_range)
        super().__init__(output_transform, device, skip_unrolling)

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        y_pred, y = self._images(y_pred, y, "(batch, ...)")
        errors = (y_pred - y).square_().flatten(1).mean(1)
        if errors.device.type not in WITHOUT_FLOAT64:
            errors = errors.double()
        return (self.data_range**2 / (errors + _EPSILON)).log10().sum() * 10


class SSIM(_ImageMetric):
    """The mean structural similarity of images, from -1 to 1.

    Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004):
    means mu, variances s and the covariance c are those of a window about each pixel, and
    ``(2 mu_x mu_y + c1) (2 c_xy + c2) / ((mu_x^2 + mu_y^2 + c1) (s_x + s_y + c2))`` is averaged
    over all pixels and channels; images go on beyond their border by reflection.

    ``y_pred`` and ``y`` have one shape ``(batch, channels, height, width)``, with ``ndims=3``
    ``(batch, channels, depth, height, width)``, and one dtype: float64 is calculated in float64,
    everything else in float32. The window is filtered along one dimension after the other.

    Args:
        data_range: the largest value that is possible less the smallest, as 255 for uint8 or 1.0.
        kernel_size: odd sides of the window; one number, or one a dimension.
        sigma: the Gaussian window's standard deviation, in pixels; one number, or one a dimension.
        k1: ``c1 = (k1 data_range)^2``.
        k2: ``c2 = (k2 data_range)^2``.
        gaussian: weights are Gaussian; False: all pixels of the window weigh the same.
        output_transform: turns the engine's output into ``(y_pred, y)``.
        device: where the sum is kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        ndims: how many dimensions an image has: 2 or 3.

    Raises:
        ValueError: settings out of range; by ``update``, shapes that don't fit, or images no
            larger than half of the window.
        TypeError: by ``update``, different dtypes.

    Example:
        >>> metric = SSIM(data_range=1.0)
        >>> images = torch.rand(2, 3, 16, 16)
        >>> metric.update((images, images))
        >>> round(metric.compute(), 6)
        1.0
    """

    _settings = ("data_range", "ndims", "kernel_size", "sigma", "_gaussian", "_c1", "_c2")

    def __init__(
        self,
        data_range: float,
        kernel_size: int | Sequence[int] = 11,
        sigma: float | Sequence[float] = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        gaussian: bool = True,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        ndims: int = 2,
    ) -> None:
        if ndims not in (2, 3):
            raise ValueError(f"ndims must be 2 or 3, got {ndims!r}")
        self.data_range = _positive("data_range", data_range)
        need_number("k1", k1)
        need_number("k2", k2)
        self.ndims = ndims
        self.kernel_size = _one_each("kernel_size", kernel_size, ndims)
        self.sigma = _one_each("sigma", sigma, ndims)
        if any(size < 1 or size % 2 != 1 for size in self.kernel_size):
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size!r}")
        if any(not width > 0 for width in self.sigma):
            raise ValueError(f"sigma must be positive, got {sigma!r}")
        self._c1, self._c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
        self._gaussian = gaussian
        self._windows: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        super().__init__(output_transform, device, skip_unrolling)

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        sizes = ("depth, height, width" if self.ndims == 3 else "height, width").split(", ")
        dimensions = f"(batch, channels, {', '.join(sizes)})"
        y_pred, y = self._images(y_pred, y, dimensions)
        if y.ndim != self.ndims + 2:
            raise ValueError(
                f"SSIM(ndims={self.ndims}): expected images {dimensions}, got {tuple(y.shape)}"
            )
        if any(side <= size // 2 for side, size in zip(y.shape[2:], self.kernel_size, strict=True)):
            raise ValueError(
                f"SSIM: images of {tuple(y.shape[2:])} are too small for the kernel_size "
                f"{tuple(self.kernel_size)}: a side must be longer than half of the window"
            )
        if y.numel() == 0:
            return y.new_zeros((), dtype=torch.float32)
        # Another device starts a kernel an operation, a CPU is fastest within its cache.
        limit = _ELEMENTS_IN_CACHE if y.device.type == "cpu" else _ELEMENTS_AT_ONCE
        number = max(1, limit // (4 * y[0].numel()))
        similarities = [
            self._similarities(*images)
            for images in zip(torch.split(y_pred, number), torch.split(y, number), strict=True)
        ]
        return torch.cat(similarities).sum()

    def _windows_for(self, maps: Tensor) -> list[Tensor]:
        """Return the weights of each dimension, made where they are used."""
        place = maps.device, maps.dtype
        if place not in self._windows:
            self._windows[place] = [
                _window(size, sigma if self._gaussian else math.inf, maps)
                for size, sigma in zip(self.kernel_size, self.sigma, strict=True)
            ]
        return self._windows[place]

    def _similarities(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the similarity of each pair of images."""
        number = len(x)
        maps = self._filter(self._maps(x, y)).reshape(4, number, -1)
        mean_x, mean_y, products, squares = maps
        mean_products = mean_x * mean_y
        mean_squares = mean_x.square_().add_(mean_y.square_())  # the maps are ours
        covariances = products.sub_(mean_products).mul_(2).add_(self._c2)
        variances = squares.sub_(mean_squares).add_(self._c2)
        upper = mean_products.mul_(2).add_(self._c1).mul_(covariances)
        similarities: Tensor = upper.div_(mean_squares.add_(self._c1).mul_(variances)).mean(1)
        return similarities

    def _maps(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x, y, x y and x^2 + y^2, all with a reflected border."""
        number = len(x)
        border = [size // 2 for size in reversed(self.kernel_size) for _ in range(2)]
        both = pad(torch.cat([x, y]).detach(), border, mode="reflect")
        maps = both.new_empty(4 * number, *both.shape[1:])
        maps[: 2 * number] = both
        x, y = both[:number], both[number:]
        torch.mul(x, y, out=maps[2 * number : 3 * number])
        torch.mul(x, x, out=maps[3 * number :]).addcmul_(y, y)
        return maps

    def _filter(self, maps: Tensor) -> Tensor:
        """Return the windows' means; each dimension in a convolution over its own columns."""
        shape = list(maps.shape)
        for dimension, window in enumerate(self._windows_for(maps), start=2):
            last = dimension == len(shape) - 1
            # All that lies before the filtered dimension, or before the two last, is channels.
            sides = shape[-2:] if last else [shape[dimension], _product(shape[dimension + 1 :])]
            columns = maps.reshape(1, -1, *sides)
            channels = columns.shape[1]
            weight = window.reshape((1, 1, 1, -1) if last else (1, 1, -1, 1))
            maps = conv2d(columns, weight.expand(channels, 1, -1, -1), groups=channels)
            shape[dimension] -= len(window) - 1
        return maps.reshape(shape)


def _window(size: int, sigma: float, like: Tensor) -> Tensor:
    """Return Gaussian weights; all are equal if sigma is infinite."""
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def _one_each(name: str, value: Any, dimensions: int) -> list[Any]:
    values = list(value) if isinstance(value, Sequence) else [value] * dimensions
    if len(values) != dimensions or not all(isinstance(item, int | float) for item in values):
        raise ValueError(f"{name} must be a number, or {dimensions} of them, got {value!r}")
    return values


def _positive(name: str, value: float) -> float:
    need_number(name, value)
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return value


def _product(sizes: Sequence[int]) -> int:
    return torch.Size(sizes).numel()
