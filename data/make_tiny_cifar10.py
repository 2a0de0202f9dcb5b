"""Write ``data/tiny_cifar10``: ``python -m data.make_tiny_cifar10``. No network.

Ten classes that a small net learns in seconds, in the files and the layout of CIFAR-10: five
shapes, in warm or in cold colours, of any size and place, on a noisy ground. There are 400 images
in each of the five training files, and 500 to test on.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ._command import make
from ._folder import check, files_of

FOLDER = "cifar-10-batches-py"
SHAPES = ("disc", "square", "ring", "cross", "stripes")
CLASSES = [f"{temperature} {shape}" for temperature in ("warm", "cold") for shape in SHAPES]
SIZE = 32  # pixels, in height and width

Pixels = npt.NDArray[np.uint8]


def draw(label: int, chance: np.random.RandomState) -> Pixels:
    """Return an image (3, 32, 32) of a class."""
    temperature, shape = divmod(label, len(SHAPES))
    radius, (row, column) = chance.randint(6, 11), chance.randint(11, 21, size=2)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    down, right = rows - row, columns - column
    distance, farther = down**2 + right**2, np.maximum(abs(down), abs(right))
    inside = {
        "disc": distance <= radius**2,
        "square": farther <= radius * 4 // 5,
        "ring": (distance <= radius**2) & (distance >= (radius * 3 // 5) ** 2),
        "cross": (np.minimum(abs(down), abs(right)) <= radius // 4) & (farther <= radius),
        "stripes": (farther <= radius) & (down // 2 % 2 == 0),
    }[SHAPES[shape]]
    image = chance.randint(0, 120, size=(3, SIZE, SIZE))
    strong, weak = chance.randint(160, 256), chance.randint(0, 90)
    middle = chance.randint(60, 200)
    color = (strong, middle, weak) if temperature == 0 else (weak, middle, strong)
    for channel, value in zip(image, color, strict=True):
        channel[inside] = value
    return image.astype(np.uint8)


def batch(name: str, count: int, chance: np.random.RandomState) -> bytes:
    """Return the contents of a batch file: ``count`` images, equally many of each class."""
    labels = [number % len(CLASSES) for number in range(count)]
    images = np.stack([draw(label, chance) for label in labels])
    content = {
        "batch_label": name,
        "labels": labels,
        "data": images.reshape(count, -1),
        "filenames": [f"{CLASSES[label]} {number}.png" for number, label in enumerate(labels)],
    }
    return pickle.dumps(content, protocol=4)


def write(folder: Path) -> None:
    """Write the batch files to ``folder/cifar-10-batches-py``."""
    chance = np.random.RandomState(0)  # numpy promises that its numbers never change
    destination = folder / FOLDER
    destination.mkdir()
    for number in range(1, 6):
        name = f"data_batch_{number}"
        contents = batch(f"training batch {number} of 5", 400, chance)
        (destination / name).write_bytes(contents)
    (destination / "test_batch").write_bytes(batch("testing batch 1 of 1", 500, chance))
    meta = {"num_cases_per_batch": 400, "label_names": CLASSES, "num_vis": 3 * SIZE**2}
    (destination / "batches.meta").write_bytes(pickle.dumps(meta, protocol=4))
    check(folder, files_of("tiny_cifar10"), "numpy's pickles or make_tiny_cifar10.py changed")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    make("tiny_cifar10", write, __doc__, argv)


if __name__ == "__main__":
    main()
