"""VOC's classes, and the colours in which its masks are drawn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
VOID = 255  # of a mask's pixels that are no class: borders, and what is too hard to tell

Pixels = npt.NDArray[np.uint8]


def create_palette() -> Pixels:
    """Return the colour of each value of a mask, (256, 3).

    Bits 0, 1, 2 of the value are the highest of red, green and blue, bits 3, 4, 5 the second
    highest, and so on (the VOC development kit's rule): neighbours look different.
    """
    values = np.arange(256, dtype=np.int64)
    colors = np.zeros((256, 3), np.int64)
    for place in range(3):
        for channel in range(3):
            bit = values >> (3 * place + channel) & 1
            colors[:, channel] |= bit << (7 - place)
    return colors.astype(np.uint8)


PALETTE = create_palette()


def to_picture(mask: Pixels) -> Image.Image:
    """Return a mask (height, width) of values as a picture with VOC's palette."""
    picture = Image.fromarray(mask)
    picture.putpalette(PALETTE.tobytes())
    return picture


def overlay(image: Pixels, mask: Pixels, share: float = 0.6) -> Pixels:
    """Return an image (height, width, 3) under a mask's colours; the background stays as it is."""
    mixed = (1 - share) * image + share * PALETTE[mask]
    return np.where((mask > 0)[..., None], np.rint(mixed), image).astype(np.uint8)
