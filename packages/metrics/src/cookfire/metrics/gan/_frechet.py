"""The Frechet distance of two sets of images' features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair
from cookfire.metrics.gan._features import FeatureMetric


class FID(FeatureMetric):
    """The Frechet distance of the features of two sets of images, a float; 0 for equal sets.

    ``|m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))``, with the means m and covariances S of
    the features (Heusel et al., "GANs trained by a two time-scale update rule", 2017). Sums and
    sums of products are kept in float64: memory for ``2 num_features^2`` numbers, however many
    images there are.

    **It is the FID of the literature only with the literature's network**, the Inception v3 that
    was ported from TensorFlow, and its preprocessing. By default the 2048 pooled features of
    torchvision's Inception v3 are taken (:class:`~cookfire.metrics.gan.utils.InceptionModel`);
    values by this or any other extractor compare only with values by the same one: say which it
    was, as in "Frechet distance of ResNet-18 features". Small samples give too large values.

    Args:
        num_features: the width of the features; None: Inception's.
        feature_extractor: a module, ``images -> (batch, num_features)``; it is put into evaluation
            mode. None with ``num_features``: what comes are the features.
        output_transform: turns the engine's output into ``(images, images)``, of the true and of
            the generated distribution or the other way round. Their numbers may differ.
        device: where the extractor is brought and sums are kept; None: nothing is brought
            anywhere.

    Raises:
        TypeError: ``feature_extractor`` is no module.
        ValueError: it came without ``num_features``; by ``update``, features of another shape; by
            ``compute``, features that are nan or infinite.
        FileNotFoundError: there are no weights for the default extractor; it says what to do.
        NotComputableError: by ``compute``, less than two images of either kind.

    Example:
        >>> metric = FID(num_features=2)
        >>> generator = torch.Generator().manual_seed(0)
        >>> features = torch.randn(100, 2, generator=generator)
        >>> metric.update((features, features + torch.tensor([3.0, 0.0])))
        >>> round(metric.compute(), 4)
        9.0

        >>> extractor = InceptionModel(return_features=True, weights="inception.pth")
        ...                                                             # doctest: +SKIP
        >>> metric = FID(num_features=2048, feature_extractor=extractor)  # doctest: +SKIP
    """

    _inception_features = True

    first_sum = MetricState(torch.float64, shape=("_num_features",))
    first_products = MetricState(torch.float64, shape=("_num_features", "_num_features"))
    first_count = MetricState(torch.int64)
    second_sum = MetricState(torch.float64, shape=("_num_features",))
    second_products = MetricState(torch.float64, shape=("_num_features", "_num_features"))
    second_count = MetricState(torch.int64)

    def update(self, output: Sequence[Tensor]) -> None:
        """Add a batch of each kind."""
        first, second = (
            self._extract(images)
            for images in need_pair(type(self).__name__, output, "images, images")
        )
        self.accumulate(
            first_sum=first.sum(0),
            first_products=first.T @ first,
            first_count=len(first),
            second_sum=second.sum(0),
            second_products=second.T @ second,
            second_count=len(second),
        )

    def compute(self) -> float | Tensor:
        """Return the distance as a float.

        Raises:
            NotComputableError: there were less than two images of either kind.
        """
        if self.first_count < 2 or self.second_count < 2:
            raise NotComputableError(
                f"{type(self).__name__} needs two images of either kind at least, for a "
                f"covariance; there were {int(self.first_count)} and {int(self.second_count)}"
            )
        for kind, total in (("first", self.first_sum), ("second", self.second_sum)):
            if not total.isfinite().all():
                raise ValueError(
                    f"{type(self).__name__}: features of the {kind} images are nan or infinite, "
                    "so that they have no covariance: look at what the feature extractor returns"
                )
        return frechet_distance(
            *_mean_and_covariance(self.first_sum, self.first_products, self.first_count),
            *_mean_and_covariance(self.second_sum, self.second_products, self.second_count),
        )


def frechet_distance(
    first_mean: Tensor, first_covariance: Tensor, second_mean: Tensor, second_covariance: Tensor
) -> Tensor:
    """Return the Frechet distance of two normal distributions.

    The trace of ``(S_1 S_2)^(1/2)`` is that of ``(R S_2 R)^(1/2)`` with R the root of S_1, a
    symmetric matrix: its eigenvalues are real, and well defined where the covariances are singular.
    """
    values, vectors = torch.linalg.eigh(first_covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ second_covariance @ root
    roots = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt()
    traces = first_covariance.trace() + second_covariance.trace()
    distance: Tensor = (first_mean - second_mean).square().sum() + traces - 2 * roots.sum()
    return distance


def _mean_and_covariance(total: Tensor, products: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    mean = total / count
    return mean, (products - torch.outer(total, mean)) / (count - 1)
