"""An image to the square of bytes that the net sees; chance is a function of arguments alone."""

from __future__ import annotations

import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cookfire import distributed as idist

ASPECTS = (3 / 4, 4 / 3)  # of random crops, as in the Inception papers


def random_crop(
    image: Image.Image,
    size: int,
    *,
    smallest: float,
    flip: float,
    seed: int,
    epoch: int,
    index: int,
) -> Tensor:
    """Return a random part of an image, resized, mirrored by chance.

    The part has a uniformly random share of the area and, on a logarithmic scale, a uniformly
    random aspect; where ten draws don't fit into the image, the middle of it is taken (as
    torchvision's RandomResizedCrop does). A JPEG is decoded at a half, a quarter or an eighth of
    its size where that is still enough: its own transform can do that, much faster.

    Args:
        image: yet to be decoded.
        size: height and width of the result.
        smallest: the least share of the area.
        flip: how probable mirroring is.
        seed: chance is a function of this,
        epoch: this,
        index: and this.
    """
    chance = random.Random(idist.derive_seed(seed, epoch, index))
    width, height = image.size
    for _ in range(10):
        area = height * width * chance.uniform(smallest, 1)
        aspect = math.exp(chance.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            top, left = chance.randint(0, height - high), chance.randint(0, width - wide)
            break
    else:
        wide, high = min(width, round(height * ASPECTS[1])), min(height, round(width / ASPECTS[0]))
        top, left = (height - high) // 2, (width - wide) // 2
    shrunk = next((scale for scale in (8, 4, 2) if min(wide, high) >= scale * size), 1)
    if shrunk > 1:
        image.draft(None, (width // shrunk, height // shrunk))
    x, y = image.size[0] / width, image.size[1] / height
    box = (round(left * x), round(top * y), round((left + wide) * x), round((top + high) * y))
    result = resize(pixels(image.crop(box)), size, size)
    return result.flip(-1) if chance.random() < flip else result


def middle_crop(image: Image.Image, size: int, share: float) -> Tensor:
    """Return the square in the middle of an image, resized to ``size``.

    Args:
        image: yet to be decoded.
        size: height and width of the result.
        share: of the shorter side.
    """
    width, height = image.size
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    return resize(pixels(image.crop((left, top, left + side, top + side))), size, size)


def pixels(image: Image.Image) -> Tensor:
    """Decode an image: (3, height, width) of uint8, whatever colours its file has."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize bytes by their neighbours' mean, smoothed where it shrinks (antialias)."""
    # Channels are last in memory, as decoders write them: torch has vector code for that.
    batch = image.unsqueeze(0)
    return F.interpolate(batch, size=(height, width), mode="bilinear", antialias=True)[0]
