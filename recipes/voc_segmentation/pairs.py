"""VOC's images and masks on the disk, checked before anything is learned of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from cookfire.handlers import recipe

from .palette import CLASSES, VOID, Pixels

FOLDER = "VOCdevkit/VOC2012"
IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"


class Pair(NamedTuple):
    """An image and its mask."""

    image: Path
    mask: Path

    def read(self) -> tuple[Pixels, Pixels]:
        """Return the image (height, width, 3) and the mask (height, width) of classes and void."""
        return read_image(self.image), _read_mask(self.mask)


def read_image(path: Path) -> Pixels:
    """Return an image's pixels (height, width, 3).

    Raises:
        RecipeError: there is none, or it can't be read.
    """
    with _open(path) as image:
        return np.array(_loaded(path, image.convert, "RGB"))


def find(folder: Path, split: str) -> list[Pair]:
    """Return the pairs that ``ImageSets/Segmentation/<split>.txt`` names, all checked.

    Raises:
        RecipeError: the list, an image or a mask is missing or damaged, or a mask is not of its
            image's size, has colours instead of classes, or a class that VOC does not have.
    """
    root = folder / FOLDER
    listed = root / LISTS / f"{split}.txt"
    if not listed.is_file():
        raise recipe.RecipeError(
            f"{listed}: no such file; --data takes a folder with {FOLDER}/ in it, and "
            "`dvc repro data/dvc.yaml:voc2012` (or :tiny_voc) makes one"
        )
    try:
        names = listed.read_text(errors="replace").split()
    except OSError as error:
        raise recipe.RecipeError(f"{listed}: can't be read: {error.strerror}") from error
    if not names:
        raise recipe.RecipeError(f"{listed}: names no image")
    for name in names:
        if "/" in name or not name.isprintable():
            raise recipe.RecipeError(f"{listed}: {name[:60]!r} can't name an image")
    pairs = [Pair(root / IMAGES / f"{name}.jpg", root / MASKS / f"{name}.png") for name in names]
    check(pairs)
    return pairs


def check(pairs: Iterable[Pair]) -> None:
    """Raise RecipeError for the first pair that can't be learned from; see :func:`find`."""
    for pair in pairs:
        with _open(pair.image) as image:
            size = image.size
        mask = _read_mask(pair.mask)
        height, width = mask.shape
        if (width, height) != size:
            raise recipe.RecipeError(
                f"{pair.mask}: {width}x{height} pixels, but its image {pair.image.name} has "
                f"{size[0]}x{size[1]}; they must be of one size"
            )
        classes = np.flatnonzero(np.bincount(mask.ravel(), minlength=VOID + 1))
        wrong = [value for value in classes.tolist() if len(CLASSES) <= value != VOID]
        if wrong:
            raise recipe.RecipeError(
                f"{pair.mask}: class {wrong[0]}, expected 0 to {len(CLASSES) - 1}, or {VOID} for "
                "void"
            )


def _read_mask(path: Path) -> Pixels:
    with _open(path) as mask:
        if mask.mode not in ("P", "L"):
            raise recipe.RecipeError(
                f"{path}: a mask of mode {mask.mode}, expected one class index a pixel (mode P, "
                "with VOC's palette, or L); colours must be turned into indices first"
            )
        return np.array(_loaded(path, mask.copy))


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise recipe.RecipeError(
            f"{path}: no such file; every image of a list needs {IMAGES}/<name>.jpg and "
            f"{MASKS}/<name>.png"
        ) from None
    except Image.DecompressionBombError as error:
        raise recipe.RecipeError(f"{path}: too large to be an image of a data set") from error
    except (UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise recipe.RecipeError(f"{path}: damaged, or no image; fetch it again") from error
    except OSError as error:
        why = f"can't be read: {error.strerror}" if error.errno else "damaged or cut short"
        raise recipe.RecipeError(f"{path}: {why}") from error


def _loaded(path: Path, load: object, *arguments: str) -> Image.Image:
    try:
        loaded = load(*arguments) if callable(load) else None
    except (OSError, SyntaxError, ValueError) as error:  # what a file cut short leads to
        raise recipe.RecipeError(f"{path}: damaged or cut short; fetch it again") from error
    assert isinstance(loaded, Image.Image)
    return loaded
