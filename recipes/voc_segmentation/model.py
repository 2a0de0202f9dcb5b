"""The nets: torchvision's of a name, timm's encoders, and a light one, all with one interface.

Each takes images (B, 3, H, W), normalised, and returns a dict as torchvision's do: ``out`` with
logits (B, classes, H, W), and ``aux`` with those of an auxiliary head, if there is one. What begins
as learned weights is its ``backbone``; the rest is the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cookfire.handlers import recipe

from .config import Config
from .palette import CLASSES


def create_model(config: Config, *, learned: bool = True) -> nn.Module:
    """Return the profile's net, initialised from torch's random state, its weights channels last.

    Args:
        config: says which net.
        learned: False to pass over ``weights_backbone``, where all weights are loaded anyway.

    Raises:
        RecipeError: timm has no such encoder.
    """
    weights = config.weights_backbone if learned else None
    if config.net == "light":
        net: nn.Module = LightNet(config.widths, config.head_width)
    elif config.net == "timm":
        net = TimmNet(config.encoder, config.head_width, learned=weights is not None)
    else:
        net = _of_torchvision(config, "IMAGENET1K_V1" if weights else None)
    return net.to(memory_format=torch.channels_last)


def _of_torchvision(config: Config, weights: str | None) -> nn.Module:
    from torchvision.models import segmentation  # seconds to import

    options = {} if config.net.startswith("lraspp") else {"aux_loss": config.auxiliary > 0}
    net: nn.Module = getattr(segmentation, config.net)(
        weights=None, weights_backbone=weights, num_classes=len(CLASSES), **options
    )
    return net


class LightNet(nn.Module):
    """A residual encoder with a head that adds up its stages: some 0.5 million weights.

    Args:
        widths: channels of the encoder's stages, the first at half the image's size.
        head_width: channels of the head.
    """

    def __init__(self, widths: Sequence[int], head_width: int) -> None:
        super().__init__()
        self.backbone = LightEncoder(widths)
        self.head = SumHead(widths[1:], head_width)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the logits of a batch."""
        return {"out": _resize(self.head(self.backbone(x)[1:]), x)}


class TimmNet(nn.Module):
    """An encoder of timm with the light net's head.

    Args:
        encoder: timm's name of it.
        head_width: channels of the head.
        learned: whether it begins with timm's weights, which are downloaded.
    """

    def __init__(self, encoder: str, head_width: int, *, learned: bool) -> None:
        super().__init__()
        import timm  # seconds to import

        try:
            backbone: Any = timm.create_model(encoder, pretrained=learned, features_only=True)
        except (RuntimeError, AttributeError) as error:  # unknown; without features
            raise recipe.RecipeError(
                f"encoder: timm {timm.__version__} has no {encoder!r} with features_only "
                f"({error}); timm.list_models() names all"
            ) from error
        # Stages at half the image's size are left to those at a quarter and beyond.
        channels: list[int] = backbone.feature_info.channels()
        self._first = sum(stride < 4 for stride in backbone.feature_info.reduction())
        self.backbone: nn.Module = backbone
        self.head = SumHead(channels[self._first :], head_width)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the logits of a batch."""
        return {"out": _resize(self.head(self.backbone(x)[self._first :]), x)}


class LightEncoder(nn.Module):
    """Stages of a residual block each, every one at half the size of the one before."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = _convolution(3, widths[0], stride=2)
        stages = pairwise(widths)
        self.stages = nn.ModuleList(ResidualBlock(width, wider) for width, wider in stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of each stage, the largest first."""
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class ResidualBlock(nn.Module):
    """Three convolutions, the first of which halves the size; the others have a way around."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.down = _convolution(channels, wider, stride=2)
        self.conv1 = _convolution(wider, wider)
        self.conv2 = _convolution(wider, wider, activated=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, wider, height / 2, width / 2), rounded up."""
        x = self.down(x)
        return F.relu(x + self.conv2(self.conv1(x)))


class SumHead(nn.Module):
    """Brings features of all sizes to one width and adds them up, from the smallest on.

    The smallest are joined by their mean over the image, so that each pixel knows what is on it.

    Args:
        channels: of the features, the largest first.
        width: channels in between.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(_convolution(number, width, 1) for number in channels)
        self.image = nn.Conv2d(channels[-1], width, 1)
        self.blend = _convolution(width, width)
        self.classify = nn.Conv2d(width, len(CLASSES), 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, classes, height, width) of the size of the largest features."""
        total = self.sides[-1](features[-1]) + self.image(features[-1].mean((2, 3), keepdim=True))
        for side, of_stage in zip(self.sides[-2::-1], features[-2::-1], strict=True):
            total = side(of_stage) + _resize(total, of_stage)
        logits: Tensor = self.classify(self.blend(total))
        return logits


def _convolution(
    channels: int, wider: int, kernel: int = 3, *, stride: int = 1, activated: bool = True
) -> nn.Sequential:
    convolution = nn.Conv2d(channels, wider, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    layers = [convolution, nn.BatchNorm2d(wider)]
    return nn.Sequential(*layers, *([nn.ReLU()] if activated else []))


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
