"""What the metrics of generated images share: features by a network that can be exchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cookfire.metrics._state import WITHOUT_FLOAT64
from cookfire.metrics._values import need_tensors, need_whole, same
from cookfire.metrics.gan.utils import InceptionModel
from cookfire.metrics.metric import Metric


class FeatureMetric(Metric):
    """A metric of what a feature extractor says of images."""

    _settings = ("_num_features",)

    _inception_features: bool
    """Whether Inception's features are taken by default, or its probabilities."""

    def __init__(
        self,
        num_features: int | None = None,
        feature_extractor: nn.Module | None = None,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
    ) -> None:
        owner = type(self).__name__
        if feature_extractor is not None and not isinstance(feature_extractor, nn.Module):
            raise TypeError(
                f"{owner}: feature_extractor must be a torch.nn.Module, got {feature_extractor!r}"
            )
        if num_features is None and feature_extractor is not None:
            raise ValueError(
                f"{owner}: a feature_extractor needs num_features, the width of what it returns"
            )
        if num_features is not None:
            need_whole(f"{owner}: num_features", num_features)
        if num_features is not None and num_features < 1:
            raise ValueError(f"{owner}: num_features must be positive, got {num_features}")
        if num_features is None:
            num_features = 2048 if self._inception_features else 1000
            feature_extractor = InceptionModel(self._inception_features, device or "cpu")
        extractor = nn.Identity() if feature_extractor is None else feature_extractor
        self._num_features = num_features
        self._feature_extractor = extractor if device is None else extractor.to(device)
        self._feature_extractor.eval()
        super().__init__(output_transform, device)

    def _extract(self, images: Tensor) -> Tensor:
        """Return the features of a batch, in float64 where there is that."""
        need_tensors(type(self).__name__, images)
        if self._device is not None:
            images = images.to(self._device)
        with torch.no_grad():
            features: Tensor = self._feature_extractor(images)
        if features.ndim != 2 or features.shape[1] != self._num_features:
            raise ValueError(
                f"{type(self).__name__}: expected features (batch, {self._num_features}), as "
                f"num_features says, got {tuple(features.shape)} of "
                f"{type(self._feature_extractor).__name__}"
            )
        return features if features.device.type in WITHOUT_FLOAT64 else features.double()
