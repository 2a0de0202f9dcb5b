"""Write ``data/tiny_fashion_mnist``: ``python -m data.make_tiny_fashion_mnist``. No network.

Ten classes of drawn clothes that a small net learns in seconds, in the files, the layout and the
order of Fashion-MNIST: grey silhouettes of any size and brightness on black, with a woven grain.
There are 1,200 images to train on, and 300 to test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ._command import make
from ._folder import check, files_of
from .make_tiny_mnist import idx

CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
SIZE = 28  # pixels, in height and width
COUNTS = {"train": 1200, "t10k": 300}

Pixels = npt.NDArray[np.uint8]


def silhouette(name: str, down: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> Pixels:
    """Return where a piece of clothing is: 0 or 1, by pixels down and right from its middle."""
    aside = abs(right)
    body = (abs(down) <= 10) & (aside <= 5)
    long_sleeves = (aside > 5) & (aside <= 10) & (down >= -10 + (aside - 5) // 2) & (down <= 7)
    shoe = (down >= 1) & (down <= 6) & (aside <= 11) & (down >= 4 - (right + 11) // 3)
    shapes: dict[str, npt.NDArray[np.bool_]] = {
        "T-shirt": body | ((aside <= 10) & (down >= -10) & (down <= -5)),
        "trouser": (abs(down) <= 11) & (aside <= 5) & ((down < -6) | (aside >= 2)),
        "pullover": body | (long_sleeves & (aside <= 9)),
        "dress": (abs(down) <= 12) & (aside <= 2 + (down + 12) // 4),
        "coat": (body | long_sleeves) & (aside >= 1),
        "sandal": shoe & (down + right // 2) % 3 != 0,
        "shirt": (body | (long_sleeves & (down <= 0))) & ((aside >= 1) | (down % 3 == 0)),
        "sneaker": shoe,
        "bag": ((down >= -2) & (down <= 9) & (aside <= 10))
        | ((down >= -8) & (down < -2) & (aside >= 5) & (aside <= 6))
        | ((down >= -9) & (down < -7) & (aside <= 6)),
        "ankle boot": shoe | ((down >= -10) & (down <= 2) & (right >= 1) & (right <= 10)),
    }
    return shapes[name].astype(np.uint8)


def draw(label: int, chance: np.random.RandomState) -> Pixels:
    """Return an image (28, 28) of a class."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    percent = chance.randint(80, 111)
    row, column = chance.randint(13, 16, size=2)
    down, right = ((rows - row) * 100) // percent, ((columns - column) * 100) // percent
    grain = chance.randint(0, 40, size=(SIZE, SIZE))
    bright = chance.randint(110, 216)
    return ((bright + grain) * silhouette(CLASSES[label], down, right)).astype(np.uint8)


def write(folder: Path) -> None:
    """Write the four files to ``folder/FashionMNIST/raw``."""
    chance = np.random.RandomState(0)  # numpy promises that its numbers never change
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in COUNTS.items():
        labels = [number % len(CLASSES) for number in range(count)]
        images = np.stack([draw(label, chance) for label in labels])
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(np.array(labels, np.uint8)))
    check(folder, files_of("tiny_fashion_mnist"), "make_tiny_fashion_mnist.py changed")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    make("tiny_fashion_mnist", write, __doc__, argv)


if __name__ == "__main__":
    main()
