"""MNIST's four files as batches. They are small: they stay in memory, as the bytes they are."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .config import Config

Batch: TypeAlias = tuple[Tensor, Tensor]  # images (B, 28, 28) of uint8, labels (B,) of int64

CLASSES = 10
SIZE = 28  # pixels, in height and width
MEAN, STD = 0.1307, 0.3081  # of the pixels of MNIST's training images, scaled to [0, 1]


class Digits(Dataset[Batch]):
    """Images (N, 28, 28) of uint8 with labels (N,) of int64, in memory."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch in one go, which a DataLoader prefers: as fast as memory."""
        chosen = torch.as_tensor(indices)
        return self.images[chosen], self.labels[chosen]


class Loaders(NamedTuple):
    """Batches for each purpose, of this process's share."""

    training: DataLoader[Batch]
    """Shuffled anew each epoch; the last images that fill no batch wait for another epoch."""

    training_in_order: DataLoader[Batch]
    """All training images, to evaluate on."""

    validation: DataLoader[Batch]
    """All validation images, to evaluate on."""


def read(folder: Path, split: str) -> Digits:
    """Read the training (``train``) or validation (``t10k``) images of ``folder/MNIST/raw``.

    Raises:
        RecipeError: a file is missing or damaged, or the two don't belong together.
    """
    images_path = folder / "MNIST" / "raw" / f"{split}-images-idx3-ubyte"
    labels_path = folder / "MNIST" / "raw" / f"{split}-labels-idx1-ubyte"
    images = _read_idx(images_path, dimensions=3)
    labels = _read_idx(labels_path, dimensions=1).long()
    if images.shape[1:] != (SIZE, SIZE):
        height, width = images.shape[1:]
        raise recipe.RecipeError(f"{images_path}: images of {height}x{width}, expected 28x28")
    if len(images) != len(labels):
        raise recipe.RecipeError(
            f"{images_path}: {len(images)} images, but {labels_path.name} has {len(labels)} labels"
        )
    if len(labels) == 0:
        raise recipe.RecipeError(f"{images_path}: no images in it; fetch it again")
    if labels.max() >= CLASSES:
        raise recipe.RecipeError(f"{labels_path}: label {int(labels.max())}, expected 0 to 9")
    return Digits(images, labels)


def _read_idx(path: Path, *, dimensions: int) -> Tensor:
    """Read a file of bytes: two zeros, 8 for their type, how many dimensions, each one's size."""
    if not path.is_file():
        raise recipe.RecipeError(
            f"{path}: no such file; --data takes a folder with MNIST/raw/*-ubyte in it, and "
            "`dvc repro data/dvc.yaml:mnist` (or :tiny_mnist) makes one"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise recipe.RecipeError(f"{path}: can't be read: {error.strerror}") from error
    header = 4 + 4 * dimensions  # bytes; the sizes are big-endian numbers of four
    sizes = struct.unpack_from(f">{dimensions}I", content.ljust(header, b"\0"), offset=4)
    if content[:4] != bytes([0, 0, 8, dimensions]):
        wrong = f"no IDX file of bytes in {dimensions} dimensions"
    elif (expected := header + math.prod(sizes)) != len(content):
        wrong = f"damaged or cut short: {len(content):,} bytes, its header says {expected:,}"
    else:
        # A bytearray, since tensors must be writable.
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].view(sizes)
    raise recipe.RecipeError(f"{path}: {wrong}; fetch it again")


def load(config: Config, folder: Path) -> Loaders:
    """Return the loaders; batch ``k`` of epoch ``e`` depends on (seed, e, k) alone."""
    training, validation = read(folder, "train"), read(folder, "t10k")
    if len(training) < config.batch_size:
        raise recipe.RecipeError(
            f"{folder}: {len(training)} training images, fewer than a batch of {config.batch_size}"
        )

    def loader(digits: Digits, batch_size: int, *, training: bool) -> DataLoader[Batch]:
        return idist.auto_dataloader(
            digits,
            batch_size=batch_size,
            shuffle=training,
            drop_last=training,  # every step averages over equally many images, in every process
            seed=config.seed,
            collate_fn=_as_it_is,
        )

    return Loaders(
        training=loader(training, config.batch_size, training=True),
        training_in_order=loader(training, config.validation_batch_size, training=False),
        validation=loader(validation, config.validation_batch_size, training=False),
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


def prepare_batch(
    batch: Batch, device: torch.device | str | None = None, non_blocking: bool = False
) -> Batch:
    """Bring a batch to the device, a quarter of the bytes, and normalise it there.

    Returns:
        Images (B, 1, 28, 28) of float32, labels (B,) of int64.
    """
    images, labels = (tensor.to(device, non_blocking=non_blocking) for tensor in batch)
    return (images.unsqueeze(1).float() / 255 - MEAN) / STD, labels
