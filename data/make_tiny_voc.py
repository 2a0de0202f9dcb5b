"""Write ``data/tiny_voc``: ``python -m data.make_tiny_voc``. No network.

Twenty classes that a small net learns in seconds, in the files and the layout of VOC2012: things of
ten colours in two patterns, of any shape and place, on a noisy ground, each with a border of
void. No two images need be of one size. There are 80 to train on, and 40 to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._command import make
from ._folder import check, files_of, write_sums

FOLDER = "VOCdevkit/VOC2012"
COUNTS = {"train": 80, "val": 40}
COLORS = (
    (230, 20, 20), (20, 210, 40), (40, 60, 240), (240, 220, 20), (220, 40, 230),
    (20, 220, 230), (245, 130, 10), (250, 250, 250), (110, 60, 10), (10, 90, 90),
)  # fmt: skip
PATTERNS = ("solid", "checks")
CLASSES, VOID = len(COLORS) * len(PATTERNS), 255

Pixels = npt.NDArray[np.uint8]


def draw(classes: Sequence[int], chance: np.random.RandomState) -> tuple[Pixels, Pixels]:
    """Return an image (height, width, 3) with things of these classes, and its mask."""
    height, width = chance.randint(48, 81, size=2)
    image = chance.randint(90, 160, size=(height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for of_class in classes:
        radius, shape = chance.randint(12, 20), chance.randint(3)
        down = abs(rows - chance.randint(radius, height - radius))
        right = abs(columns - chance.randint(radius, width - radius))
        distance = (np.hypot(down, right), np.maximum(down, right) * 8 / 7, (down + right) * 4 / 5)
        inside, around = (distance[shape] <= size for size in (radius - 1, radius))
        color, pattern = divmod(of_class - 1, len(PATTERNS))
        dark = {
            "solid": np.zeros_like(inside),
            "checks": (rows // 4 + columns // 4) % 2 == 0,
        }[PATTERNS[pattern]]
        mask[around] = VOID
        mask[inside] = of_class
        image[around] = COLORS[color]
        image[around & dark] = 20
    return image, mask


def palette() -> bytes:
    """Return the colours of a mask's values, by the rule of VOC's development kit."""
    colors = np.zeros((256, 3), np.int64)
    for bit in range(8):
        values = np.arange(256) >> bit & 1
        colors[:, bit % 3] |= values << (7 - bit // 3)
    return colors.astype(np.uint8).tobytes()


def write(folder: Path) -> None:
    """Write images, masks and lists to ``folder/VOCdevkit/VOC2012``."""
    chance = np.random.RandomState(0)  # numpy promises that its numbers never change
    root = folder / FOLDER
    images, masks, lists = (
        root / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
    )
    for path in (images, masks, lists):
        path.mkdir(parents=True)
    drawn = 0
    for split, count in COUNTS.items():
        names = [f"{split}_{number:03}" for number in range(count)]
        for name in names:
            things = chance.randint(2, 4)
            classes = [(drawn + thing) % CLASSES + 1 for thing in range(things)]
            drawn += things
            image, mask = draw(classes, chance)
            Image.fromarray(image).save(images / f"{name}.jpg", quality=95, subsampling=0)
            picture = Image.fromarray(mask)
            picture.putpalette(palette())
            picture.save(masks / f"{name}.png")
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    write_sums(folder)
    check(folder, files_of("tiny_voc"), "Pillow's JPEGs and PNGs or make_tiny_voc.py changed")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    make("tiny_voc", write, __doc__, argv)


if __name__ == "__main__":
    main()
