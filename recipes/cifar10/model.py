"""The two nets: a small one that is fast to train, and the ResNet-18 that everybody knows."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config

CLASSES = 10
PATCH = 2  # pixels, in height and width, of what the first convolution of FastNet looks at


def create_model(config: Config, images: Tensor) -> nn.Module:
    """Return the profile's net, initialised from torch's random state, its weights channels last.

    Args:
        config: says which net.
        images: (N, 3, 32, 32), normalised, of the training: FastNet's first layer is made of them.
    """
    net: nn.Module
    if config.net == "resnet18":
        net = ResNet18()
    else:
        net = FastNet(config.widths)
        net.whiten(images)
    return net.to(memory_format=torch.channels_last)


class FastNet(nn.Module):
    """Six convolutions behind a whitening layer: images (B, 3, 32, 32) to logits (B, 10).

    The shape is that of the CIFAR-10 speed records (tysam-code/hlb-CIFAR10, Keller Jordan's
    airbench94, arXiv 2404.00498): patches are decorrelated by a layer that is computed rather than
    learned, convolutions begin as the identity, normalisation learns no scale, and the logits are
    scaled down so that training starts with soft predictions.

    Args:
        widths: channels of the three groups.
    """

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        whitened = 2 * 3 * PATCH**2  # each direction, and its negative for what a GELU cuts off
        self.whitening = nn.Conv2d(3, whitened, PATCH)
        self.whitening.weight.requires_grad = False
        nn.init.zeros_(cast("Tensor", self.whitening.bias))
        sizes = (whitened, *widths)
        self.groups = nn.Sequential(
            *(ConvolutionGroup(size, wider) for size, wider in zip(sizes, widths, strict=False))
        )
        self.head = nn.Linear(widths[-1], CLASSES, bias=False)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first layer so that its outputs on ``images`` are uncorrelated, of variance 1."""
        patches = F.unfold(images, PATCH).transpose(1, 2).flatten(0, 1).double()
        covariance = patches.T @ patches / len(patches)
        variances, directions = torch.linalg.eigh(covariance)
        # Directions of hardly any variance are mostly noise: not blown up beyond measure.
        scaled = (directions / torch.sqrt(variances + 5e-4)).T
        scaled = scaled.reshape(-1, 3, PATCH, PATCH)
        self.whitening.weight.copy_(torch.cat([scaled, -scaled]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        x = F.gelu(self.whitening(x))  # (B, 24, 31, 31)
        x = self.groups(x)  # (B, widths[-1], 3, 3)
        logits: Tensor = self.head(x.amax(dim=(2, 3))) / 9
        return logits


class ConvolutionGroup(nn.Module):
    """Two convolutions, the first followed by a 2x2 maximum: half the size, other channels."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.conv1 = _identity_convolution(channels, wider)
        self.norm1 = _shifting_norm(wider)
        self.conv2 = _identity_convolution(wider, wider)
        self.norm2 = _shifting_norm(wider)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, wider, height // 2, width // 2)."""
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


def _identity_convolution(channels: int, wider: int) -> nn.Conv2d:
    """A 3x3 convolution whose first outputs are its inputs, the others random."""
    convolution = nn.Conv2d(channels, wider, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:channels])
    return convolution


def _shifting_norm(channels: int) -> nn.BatchNorm2d:
    """A batch normalisation that learns a shift but no scale, and forgets fast: epochs are few."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad = False
    return norm


class ResNet18(nn.Sequential):
    """ResNet-18 for images of 32x32 (arXiv 1512.03385, section 4.2): logits (B, 10).

    A 3x3 convolution of stride 1 takes the place of ImageNet's 7x7 of stride 2 and its maximum;
    the four stages have 64, 128, 256 and 512 channels.
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        ]
        channels = 64
        for width in (64, 128, 256, 512):
            layers += [ResidualBlock(channels, width), ResidualBlock(width, width)]
            channels = width
        super().__init__(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResidualBlock(nn.Module):
    """Two convolutions around which the input passes; where the width grows, the size halves."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        stride = 1 if channels == wider else 2
        self.conv1 = nn.Conv2d(channels, wider, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wider)
        self.conv2 = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wider)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, wider, 1, stride, bias=False), nn.BatchNorm2d(wider)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, wider, ...), of half the size where the width grows."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
