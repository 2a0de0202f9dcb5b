"""Write ``data/tiny_mnist``: ``python -m data.make_tiny_mnist``. No network, no randomness.

These are real handwritten digits, the 1,797 that scikit-learn carries (UCI's optical recognition
of handwritten digits, 8x8 pixels of 0 to 16), written in the files and the layout of MNIST: pixels
of 0 to 255, scaled by three to 24x24 and framed by two empty pixels to 28x28. Every fifth image,
360 of them, is for validation; the other 1,437 are for training.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from ._command import make
from ._folder import check, files_of


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    """``array`` as an IDX file: magic number (8: unsigned bytes), big-endian sizes, the bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write(folder: Path) -> None:
    """Write the four files to ``folder/MNIST/raw``."""
    digits = load_digits()
    pixels = digits.images.astype(np.int64) * 255 // 16  # whole numbers: the same on any machine
    images = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    held_out = np.arange(len(images)) % 5 == 0

    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, chosen in (("train", ~held_out), ("t10k", held_out)):
        for kind, array in (("images-idx3", images), ("labels-idx1", digits.target)):
            (raw / f"{split}-{kind}-ubyte").write_bytes(idx(array[chosen].astype(np.uint8)))
    check(folder, files_of("tiny_mnist"), "scikit-learn's digits or make_tiny_mnist.py changed")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    make("tiny_mnist", write, __doc__, argv)


if __name__ == "__main__":
    main()
