"""The layout of VOC2012, and what its images and masks must be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ._folder import DataError

FOLDER = "VOCdevkit/VOC2012"
IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
CLASSES, VOID = 21, 255


def read_list(path: Path) -> list[str]:
    """Return the names on a list of images.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return path.read_text().split()


def check_pairs(root: Path, names: Sequence[str]) -> None:
    """Raise DataError for the first image or mask that can't be learned from, with its name.

    Args:
        root: ``VOCdevkit/VOC2012``.
        names: of the pairs, without their endings.
    """
    for name in tqdm(names, unit=" pairs", desc=f"checking {root.name}"):
        check_pair(root / IMAGES / f"{name}.jpg", root / MASKS / f"{name}.png")


def check_pair(image: Path, mask: Path) -> None:
    """Raise DataError unless both are there, of one size, and the mask has classes and void."""
    for path in (image, mask):
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    try:
        with Image.open(image) as opened:
            size = opened.size
        with Image.open(mask) as opened:
            mode, values = opened.mode, np.asarray(opened)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{mask} or its image: damaged or cut short ({error})") from error
    if mode not in ("P", "L"):
        raise DataError(f"{mask}: a mask of mode {mode}, expected a class index a pixel (P or L)")
    if values.shape[::-1] != size:
        width, height = size
        raise DataError(
            f"{mask}: {values.shape[1]}x{values.shape[0]} pixels, but its image has "
            f"{width}x{height}"
        )
    wrong = values[(values >= CLASSES) & (values != VOID)]
    if wrong.size:
        raise DataError(f"{mask}: class {wrong[0]}, expected 0 to {CLASSES - 1}, or {VOID}")
