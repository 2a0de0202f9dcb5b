"""What sets of pictures are compared by: features whose Frechet distance is measured.

Either Inception's, where its weights are, or ``colors_and_edges``, which need none. Distances by
one never compare with distances by the other, so the metrics' names say which it was.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cookfire.handlers import recipe
from cookfire.metrics.gan.utils import InceptionModel

# What torchvision's weights were trained with.
INCEPTION_SIZE = 299
INCEPTION_MEAN = (0.485, 0.456, 0.406)
INCEPTION_STD = (0.229, 0.224, 0.225)


class Extractor(NamedTuple):
    """A feature extractor, and how the distance is called by it."""

    name: str
    """``fid`` by Inception v3 alone."""
    num_features: int
    net: nn.Module
    """Pictures (B, 3, H, W) from -1 to 1 to features (B, num_features)."""


def create_extractor(kind: str, device: torch.device) -> Extractor:
    """Return the extractor that ``Config.features`` asks for.

    Raises:
        RecipeError: Inception is asked for, and its weights are not there.
    """
    if kind != "colors_and_edges":
        try:
            return Extractor("fid", 2048, Inception(device))
        except (FileNotFoundError, ModuleNotFoundError) as error:
            if kind == "inception_v3":
                raise recipe.RecipeError(f"features: {error}") from error
    return Extractor("colors_and_edges", ColorsAndEdges.num_features, ColorsAndEdges())


class Inception(nn.Module):
    """Torchvision's Inception v3, given pictures as it knows them."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.net = InceptionModel(return_features=True, device=device)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the 2048 pooled features."""
        size = (INCEPTION_SIZE, INCEPTION_SIZE)
        resized = F.interpolate((pictures + 1) / 2, size, mode="bilinear", antialias=True)
        mean, std = (
            torch.tensor(of, device=pictures.device).view(3, 1, 1)
            for of in (INCEPTION_MEAN, INCEPTION_STD)
        )
        features: Tensor = self.net((resized - mean) / std)
        return features


class ColorsAndEdges(nn.Module):
    """24 numbers a picture that nobody trained: how bright, how varied, how rough each colour is.

    They are each channel's mean and standard deviation, from -1 to 1, and the mean absolute
    difference of neighbours, across and down, at full, half and quarter size. Pictures of the same
    palette and texture have equal ones whatever they show: less than Inception's, but the same
    everywhere, and few enough for a dozen pictures.
    """

    num_features = 24

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the features (B, 24)."""
        pixels = pictures.flatten(2)
        features = [pixels.mean(2), pixels.std(2, correction=0)]
        for _ in range(3):
            features.append(pictures.diff(dim=3).abs().mean((2, 3)))
            features.append(pictures.diff(dim=2).abs().mean((2, 3)))
            pictures = F.avg_pool2d(pictures, 2)
        return torch.cat(features, dim=1)
