"""Write ``data/tiny_horse2zebra``: ``python -m data.make_tiny_horse2zebra``. No network.

Two domains with a mapping that is known, in the folders of horse2zebra: A has warm shapes on a
green ground; B the same kind of pictures with red and blue in each other's place and the ground's
green as red, see ``translate``. There are 64 training pictures of each, of which none is another's
translation, and 16 test pictures, of which those of the same name are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._command import make
from ._folder import check, files_of, write_sums

SIZE = 36  # pixels, in height and width
TRAINING, TEST = 64, 16  # pictures of each domain

Pixels = npt.NDArray[np.uint8]


def draw(chance: np.random.RandomState) -> Pixels:
    """Return a picture (36, 36, 3) of the domain A: one to three discs and squares on grass."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    picture = np.zeros((SIZE, SIZE, 3))
    picture[:] = (50, chance.randint(120, 190), 40)
    picture += chance.randint(-15, 16, size=(SIZE, SIZE, 1))
    for _ in range(chance.randint(1, 4)):
        radius, (row, column) = chance.randint(4, 10), chance.randint(4, SIZE - 4, size=2)
        down, right = abs(rows - row), abs(columns - column)
        inside = down**2 + right**2 <= radius**2
        if chance.randint(2):
            inside = np.maximum(down, right) <= radius * 4 // 5
        picture[inside] = (chance.randint(190, 250), chance.randint(80, 160), 20)
    return picture.clip(0, 255).astype(np.uint8)


def translate(picture: Pixels) -> Pixels:
    """Return a picture of A as one of B: red becomes blue, green red, and blue green."""
    return picture[:, :, [1, 2, 0]]


def write(folder: Path) -> None:
    """Write the pictures, and the hashes of them all."""
    chance = np.random.RandomState(0)  # numpy promises that its numbers never change
    pictures = {
        "trainA": [draw(chance) for _ in range(TRAINING)],
        "trainB": [translate(draw(chance)) for _ in range(TRAINING)],
        "testA": [draw(chance) for _ in range(TEST)],
    }
    pictures["testB"] = [translate(picture) for picture in pictures["testA"]]
    for kind, drawn in pictures.items():
        (folder / kind).mkdir()
        for number, picture in enumerate(drawn):
            # Uncompressed, so that no version of zlib has a say in the bytes.
            path = folder / kind / f"{number:03d}.png"
            Image.fromarray(picture).save(path, compress_level=0)
    write_sums(folder)
    check(folder, files_of("tiny_horse2zebra"), "pillow or make_tiny_horse2zebra.py changed")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    make("tiny_horse2zebra", write, __doc__, argv)


if __name__ == "__main__":
    main()
