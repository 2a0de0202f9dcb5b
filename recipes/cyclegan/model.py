"""Generators and discriminators, two of each, as in arXiv 1703.10593 (section 4 and appendix).

Each two are one module with one forward pass for their phase of the step: among several processes
each is wrapped once, and all of its weights take part in each of its passes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import Config


class Pictures(NamedTuple):
    """The pictures of a step, each (B, 3, height, width) from -1 to 1."""

    real_a: Tensor
    real_b: Tensor
    fake_a: Tensor
    """B turned into A."""
    fake_b: Tensor
    cycled_a: Tensor
    """A turned into B and back."""
    cycled_b: Tensor
    same_a: Tensor | None
    """A "turned into A", which should change nothing; None if that is not asked for."""
    same_b: Tensor | None


class Generators(nn.Module):
    """``a_to_b`` and ``b_to_a``, initialised from torch's random state."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.a_to_b = Generator(config.width, config.residual_blocks)
        self.b_to_a = Generator(config.width, config.residual_blocks)

    def forward(self, real_a: Tensor, real_b: Tensor, identity: bool = False) -> Pictures:
        """Return all that a training step makes of a batch of each domain.

        Every picture is normalised by itself, so that two batches in one pass are as good as two.
        """
        same_a = same_b = None
        if identity:
            fake_b, same_b = self.a_to_b(torch.cat([real_a, real_b])).chunk(2)
            fake_a, same_a = self.b_to_a(torch.cat([real_b, real_a])).chunk(2)
        else:
            fake_b, fake_a = self.a_to_b(real_a), self.b_to_a(real_b)
        cycled_a, cycled_b = self.b_to_a(fake_b), self.a_to_b(fake_a)
        return Pictures(real_a, real_b, fake_a, fake_b, cycled_a, cycled_b, same_a, same_b)


class Discriminators(nn.Module):
    """``of_a`` and ``of_b``, initialised from torch's random state."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.of_a = Discriminator(config.discriminator_width, config.discriminator_layers)
        self.of_b = Discriminator(config.discriminator_width, config.discriminator_layers)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return how real pictures look, patch by patch; 1 is meant to be real, 0 generated."""
        return self.of_a(a), self.of_b(b)


class Generator(nn.Sequential):
    """Pictures (B, 3, H, W) from -1 to 1 to such pictures; H and W are multiples of 4.

    Convolutions ahead of a normalisation have no bias: it would take each away again, and leave
    Adam to follow their rounding errors.

    Args:
        width: channels of the first layer.
        residual_blocks: how many there are, between two halvings and two doublings of the size.
    """

    def __init__(self, width: int, residual_blocks: int) -> None:
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, width, 7, bias=False),
            nn.InstanceNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        for channels in (width, 2 * width):
            layers += [
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False),
                nn.InstanceNorm2d(2 * channels),
                nn.ReLU(inplace=True),
            ]
        layers += [ResidualBlock(4 * width) for _ in range(residual_blocks)]
        for channels in (4 * width, 2 * width):
            layers += [
                nn.ConvTranspose2d(
                    channels, channels // 2, 3, stride=2, padding=1, output_padding=1, bias=False
                ),
                nn.InstanceNorm2d(channels // 2),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        super().__init__(*layers)
        self.apply(_initialise)


class ResidualBlock(nn.Module):
    """Two convolutions, whose result is added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, H, W)."""
        changed: Tensor = self.layers(x)
        return x + changed


class Discriminator(nn.Sequential):
    """Pictures (B, 3, H, W) to a number for each patch, (B, 1, h, w).

    Args:
        width: channels of the first layer; they double in each that follows, up to eightfold.
        layers: how many halve the size. With 3, a number sees 70x70 pixels.
    """

    def __init__(self, width: int, layers: int) -> None:
        modules: list[nn.Module] = [
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        channels = width
        for number in range(1, layers + 1):
            wider = width * min(2**number, 8)
            stride = 2 if number < layers else 1
            modules += [
                nn.Conv2d(channels, wider, 4, stride=stride, padding=1, bias=False),
                nn.InstanceNorm2d(wider),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            channels = wider
        super().__init__(*modules, nn.Conv2d(channels, 1, 4, padding=1))
        self.apply(_initialise)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def load_generator(weights: dict[str, Tensor]) -> Generator:
    """Return the generator that has these weights, whatever its width and depth.

    Raises:
        ValueError: they are not those of a generator.
    """
    try:
        width = len(weights["1.weight"])
        blocks = sum(name.endswith("layers.1.weight") for name in weights)
        net = Generator(width, blocks)
        net.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError("not the weights of a generator") from error
    return net
