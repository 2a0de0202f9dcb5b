"""What is done to a training image and its mask together, behind one function."""

from __future__ import annotations

import os

from .config import Config
from .palette import VOID

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network when imported
import albumentations
import cv2

MEAN_COLOR = (124, 116, 104)  # of ImageNet's images, in bytes: 0 once it is normalised


def create_transform(config: Config) -> albumentations.Compose:
    """Return the joint transform of an image (height, width, 3) of uint8 and a mask of classes.

    Both are resized by the same factor, the mask without mixing classes; filled up, with void and
    the mean colour, where they are smaller than ``config.size``; cut and mirrored alike. Only the
    image's colours change.
    """
    low, high = config.scales
    steps = [
        albumentations.RandomScale(
            (low - 1, high - 1),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_NEAREST,
            p=1.0,
        ),
        albumentations.PadIfNeeded(
            config.size,
            config.size,
            border_mode=cv2.BORDER_CONSTANT,
            fill=MEAN_COLOR,
            fill_mask=VOID,
        ),
        albumentations.RandomCrop(config.size, config.size),
        albumentations.HorizontalFlip(p=0.5),
    ]
    if config.jitter:
        around = (1 - config.jitter, 1 + config.jitter)
        steps.append(albumentations.ColorJitter(around, around, around, (0, 0), p=1.0))
    return albumentations.Compose(steps)
