"""Write ``data/tiny_imagenet``: ``python -m data.make_tiny_imagenet``. No network.

Ten classes that a small net learns in seconds, as JPEGs in ImageNet's layout, ``train/<class>`` and
``val/<class>``: five shapes, in warm or in cold colours, on a noisy ground, in pictures of odd
sizes. There are 24 images of each class to train on and 10 to validate; one of the former is cut
short and one has no colours, as happens in ImageNet. ``manifest.tsv`` says which.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._command import make
from ._folder import check, files_of
from ._images import MANIFEST, describe, images_of, scan, write_manifest

SHAPES = ("disc", "square", "ring", "cross", "stripes")
CLASSES = [f"{temperature}_{shape}" for temperature in ("warm", "cold") for shape in SHAPES]
COUNTS = {"train": 24, "val": 10}  # images of each class
CUT_SHORT, GRAYSCALE = "train/warm_ring/warm_ring_7.JPEG", "train/cold_cross/cold_cross_5.JPEG"

Pixels = npt.NDArray[np.uint8]


def draw(label: int, chance: np.random.RandomState) -> Pixels:
    """Return an image (height, width, 3) of a class, from 41 to 89 pixels either way."""
    temperature, shape = divmod(label, len(SHAPES))
    height, width = 2 * chance.randint(20, 45, size=2) + 1
    radius = min(height, width) * chance.randint(28, 42) // 100
    row = height // 2 + chance.randint(-height // 12, height // 12 + 1)
    column = width // 2 + chance.randint(-width // 12, width // 12 + 1)
    rows, columns = np.mgrid[:height, :width]
    down, right = rows - row, columns - column
    distance, farther = down**2 + right**2, np.maximum(abs(down), abs(right))
    inside = {
        "disc": distance <= radius**2,
        "square": farther <= radius * 4 // 5,
        "ring": (distance <= radius**2) & (distance >= (radius * 3 // 5) ** 2),
        "cross": (np.minimum(abs(down), abs(right)) <= radius // 4) & (farther <= radius),
        "stripes": (farther <= radius) & (down // 4 % 2 == 0),
    }[SHAPES[shape]]
    image = chance.randint(0, 120, size=(height, width, 3))
    strong, weak = chance.randint(160, 256), chance.randint(0, 90)
    middle = chance.randint(60, 200)
    image[inside] = (strong, middle, weak) if temperature == 0 else (weak, middle, strong)
    return image.astype(np.uint8)


def write(folder: Path) -> None:
    """Write the JPEGs and their manifest to ``folder``."""
    chance = np.random.RandomState(0)  # numpy promises that its numbers never change
    for split, count in COUNTS.items():
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                path = f"{split}/{name}/{name}_{number}.JPEG"
                picture = Image.fromarray(draw(label, chance))
                if path == GRAYSCALE:
                    picture = picture.convert("L")
                buffer = BytesIO()
                picture.save(buffer, "JPEG", quality=85)
                content = buffer.getvalue()
                if path == CUT_SHORT:
                    content = content[: len(content) // 2]
                (folder / path).write_bytes(content)
    entries = list(scan(folder, images_of(folder)))
    write_manifest(folder / MANIFEST, entries)
    print(describe(entries), file=sys.stderr)
    check(folder, files_of("tiny_imagenet"), "Pillow's JPEGs or make_tiny_imagenet.py changed")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    make("tiny_imagenet", write, __doc__, argv)


if __name__ == "__main__":
    main()
