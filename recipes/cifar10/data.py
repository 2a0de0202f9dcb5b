"""CIFAR-10's batch files as augmented batches: whole ones at a time, as bytes, in memory.

A batch of tensors is shifted and mirrored in one go, in this process: some ten times as fast as
image by image (``benchmarks/cifar10.py``), so there are no workers to wait for.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .config import Config

Batch: TypeAlias = tuple[Tensor, Tensor]  # images (B, 3, 32, 32) of uint8, labels (B,) of int64

FOLDER = "cifar-10-batches-py"
FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SIZE = 32  # pixels, in height and width
# Of the training images' channels, scaled to [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


class Images(Dataset[Batch]):
    """Images (N, 3, 32, 32) of uint8 with labels (N,) of int64, in memory, as they are."""

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

    def first(self, count: int) -> Batch:
        """The first images, or all if there are fewer."""
        return self.images[:count], self.labels[:count]


class AugmentedImages(Dataset[Batch]):
    """Images shifted and mirrored, each as a function of (seed, epoch, index) alone.

    Args:
        images: what is augmented.
        translate: pixels of a shift at most, either way; borders are reflected.
        alternate_flips: mirror an image every second epoch, beginning by chance, so that two epochs
            show all images both ways (arXiv 2404.00498, section 3.6).
        seed: what chance is derived from.
    """

    def __init__(self, images: Images, *, translate: int, alternate_flips: bool, seed: int) -> None:
        self.labels = images.labels
        self._translate = translate
        self._alternate_flips = alternate_flips
        self._seed = seed
        inside = torch.arange(-translate, SIZE + translate).abs()
        places = torch.minimum(inside, 2 * (SIZE - 1) - inside)  # reflected at both borders
        padded = images.images[:, :, places][:, :, :, places]
        # A view of every window, (N, 3, shifts, shifts, 32, 32), of which nothing is copied yet.
        self._windows = padded.unfold(2, SIZE, 1).unfold(3, SIZE, 1)
        self._epoch: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        images, labels = self.__getitems__([key])
        return images[0], labels[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """A batch of (epoch, index), all of one epoch."""
        self._draw(keys[0][0])
        chosen = torch.tensor([index for _, index in keys])
        rows, columns = self._shifts[:, chosen]
        images = self._windows[chosen, :, rows, columns]
        mirrored = self._mirrored[chosen]
        images[mirrored] = images[mirrored].flip(-1)
        return images, self.labels[chosen]

    def _draw(self, epoch: int) -> None:
        """Draw what chance does to every image in an epoch."""
        if epoch == self._epoch:
            return
        chance = torch.Generator().manual_seed(idist.derive_seed(self._seed, epoch, 1))
        self._shifts = torch.randint(2 * self._translate + 1, (2, len(self)), generator=chance)
        if self._alternate_flips:
            chance.manual_seed(idist.derive_seed(self._seed, 0, 1))
        coins = torch.randint(2, (len(self),), generator=chance)
        self._mirrored = (coins + epoch * self._alternate_flips) % 2 == 1
        self._epoch = epoch


class Loaders(NamedTuple):
    """Batches for each purpose, of this process's share, and the training images as they are."""

    training: DataLoader[Batch]
    """Augmented, and shuffled anew each epoch; images that fill no batch wait for another epoch."""

    test: DataLoader[Batch]
    """All test images, to evaluate on."""

    images: Images
    """All training images, not augmented."""


def read(folder: Path, split: str) -> Images:
    """Read the training (``train``) or the ``test`` images of ``folder/cifar-10-batches-py``.

    Raises:
        RecipeError: a file is missing or damaged.
    """
    parts = [_read_batch(folder / FOLDER / name) for name in FILES[split]]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Images(images, labels)


def _read_batch(path: Path) -> Batch:
    if not path.is_file():
        raise recipe.RecipeError(
            f"{path}: no such file; --data takes a folder with {FOLDER}/ in it, and "
            "`dvc repro data/dvc.yaml:cifar10` (or :tiny_cifar10) makes one"
        )
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        pixels, labels = batch["data"], torch.tensor(batch["labels"], dtype=torch.int64)
        images = torch.from_numpy(pixels).reshape(-1, 3, SIZE, SIZE)
    except OSError as error:
        raise recipe.RecipeError(f"{path}: can't be read: {error.strerror}") from error
    except Exception as error:  # whatever a damaged pickle leads to
        raise recipe.RecipeError(
            f"{path}: damaged or cut short, or no batch of CIFAR-10; fetch it again"
        ) from error
    if images.dtype != torch.uint8 or len(images) != len(labels) or not len(labels):
        raise recipe.RecipeError(
            f"{path}: {len(images)} images of {images.dtype} with {len(labels)} labels, expected "
            "as many of each, in bytes"
        )
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise recipe.RecipeError(
            f"{path}: labels from {labels.min()} to {labels.max()}, expected 0 to "
            f"{len(CLASSES) - 1}: not CIFAR-10 (CIFAR-100 has other files)"
        )
    return images, labels


class _ArraysOnly(pickle.Unpickler):
    """Loads arrays and plain values: a pickle from elsewhere must not run code of its own."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in self._ALLOWED:
            if name == "_reconstruct":
                return np.zeros(0).__reduce__()[0]
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def load(config: Config, folder: Path) -> Loaders:
    """Return the loaders; batch ``k`` of epoch ``e`` depends on (seed, e, k) alone."""
    images, test = read(folder, "train"), read(folder, "test")
    if len(images) < config.batch_size:
        raise recipe.RecipeError(
            f"{folder}: {len(images)} training images, fewer than a batch of {config.batch_size}"
        )
    if config.augmentation == "tensor":
        augmented: Dataset[Batch] = AugmentedImages(
            images,
            translate=config.translate,
            alternate_flips=config.alternate_flips,
            seed=config.seed,
        )
    else:
        from .augmentation import AlbumentationsImages  # seconds to import

        augmented = AlbumentationsImages(images, translate=config.translate, seed=config.seed)
    loader = partial(idist.auto_dataloader, seed=config.seed, collate_fn=_as_it_is)
    return Loaders(
        training=loader(
            augmented, batch_size=config.batch_size, shuffle=True, drop_last=True, with_epoch=True
        ),
        test=loader(test, batch_size=config.validation_batch_size),
        images=images,
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


def prepare_batch(
    batch: Batch, device: torch.device | str | None = None, non_blocking: bool = False
) -> Batch:
    """Bring a batch to the device, a quarter of the bytes, and normalise it there.

    Returns:
        Images (B, 3, 32, 32) of float32 in channels-last order, labels (B,) of int64.
    """
    images, labels = (tensor.to(device, non_blocking=non_blocking) for tensor in batch)
    mean, std = (torch.tensor(of, device=images.device).view(3, 1, 1) for of in (MEAN, STD))
    images = images.contiguous(memory_format=torch.channels_last)
    return (images / 255 - mean) / std, labels
