"""VOC's pairs as batches: cut and augmented to train on, whole and at native size to measure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .augmentation import MEAN_COLOR, create_transform
from .config import Config
from .pairs import Pair, find
from .palette import VOID, Pixels

Item: TypeAlias = tuple[Tensor, Tensor, int]  # an image, its mask, its place in the list
# Images (B, 3, H, W) of uint8, masks (B, H, W) of uint8, places (B,) of int64.
Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]

# Of ImageNet's images, scaled to [0, 1]: what a learned backbone expects.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class WholePairs(Dataset[Item]):
    """Images with their masks as they are on the disk."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        return _as_tensors(*self.pairs[index].read(), index)


class AugmentedPairs(Dataset[Item]):
    """Images and masks transformed together, each as a function of (seed, epoch, index) alone.

    Args:
        pairs: what is augmented.
        config: says how; see ``create_transform``.
    """

    def __init__(self, pairs: Sequence[Pair], config: Config) -> None:
        self.pairs = pairs
        self._transform = create_transform(config)
        self._seed = config.seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        image, mask = self.pairs[index].read()
        seed = idist.derive_seed(self._seed, epoch, index)
        # One source for all transforms: set_random_seed would give each the same numbers.
        self._transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        changed = self._transform(image=image, mask=mask)
        return _as_tensors(changed["image"], changed["mask"], index)


def _as_tensors(image: Pixels, mask: Pixels, index: int) -> Item:
    channels_first = np.ascontiguousarray(image.transpose(2, 0, 1))
    return torch.from_numpy(channels_first), torch.from_numpy(np.ascontiguousarray(mask)), index


def collate(items: Sequence[Item]) -> Batch:
    """Return a batch of pairs, padded at the right and below to the largest of them.

    The images are filled up with the mean colour, the masks with void, which no metric counts.
    """
    height, width = (max(mask.shape[side] for _, mask, _ in items) for side in (0, 1))
    color = torch.tensor(MEAN_COLOR, dtype=torch.uint8).view(1, 3, 1, 1)
    images = color.repeat(len(items), 1, height, width)
    masks = torch.full((len(items), height, width), VOID, dtype=torch.uint8)
    for place, (image, mask, _) in enumerate(items):
        rows, columns = mask.shape
        images[place, :, :rows, :columns] = image
        masks[place, :rows, :columns] = mask
    return images, masks, torch.tensor([index for *_, index in items])


class Loaders(NamedTuple):
    """Batches for each purpose, of this process's share."""

    training: DataLoader[Batch]
    """Augmented, and shuffled anew each epoch; images that fill no batch wait for another epoch."""

    validation: DataLoader[Batch]
    """All validation images, whole, to evaluate on."""


def load(config: Config, folder: Path) -> Loaders:
    """Check all pairs and return the loaders; batch ``k`` of epoch ``e`` depends on (seed, e, k).

    Raises:
        RecipeError: a pair can't be used (see ``find``), or there are too few.
    """
    pairs = find(folder, config.training_split)
    if len(pairs) < config.batch_size:
        raise recipe.RecipeError(
            f"{folder}: {len(pairs)} training images, fewer than a batch of {config.batch_size}"
        )
    options: dict[str, Any] = {"num_workers": config.workers}
    if config.workers:
        options["persistent_workers"] = True
    return Loaders(
        training=idist.auto_dataloader(
            AugmentedPairs(pairs, config),
            seed=config.seed,
            collate_fn=collate,
            batch_size=config.batch_size,
            shuffle=True,
            drop_last=True,
            with_epoch=True,
            **options,
        ),
        validation=load_validation(config, WholePairs(find(folder, "val"))),
    )


def load_validation(config: Config, pairs: WholePairs) -> DataLoader[Batch]:
    """Return the loader of whole pairs to evaluate on, in their order."""
    return idist.auto_dataloader(
        pairs,
        batch_size=config.validation_batch_size * idist.get_world_size(),
        seed=config.seed,
        collate_fn=collate,
        num_workers=config.workers,
    )


def prepare_batch(
    batch: Batch, device: torch.device | str | None = None, non_blocking: bool = False
) -> tuple[Tensor, Tensor]:
    """Bring a batch to the device, as bytes, and normalise it there.

    Returns:
        Images (B, 3, H, W) of float32 in channels-last order, masks (B, H, W) of int64.
    """
    images, masks = (tensor.to(device, non_blocking=non_blocking) for tensor in batch[:2])
    return normalise(images), masks.long()


def normalise(images: Tensor) -> Tensor:
    """Return images of uint8 as the nets take them: float32, in channels-last order."""
    mean, std = (torch.tensor(of, device=images.device).view(3, 1, 1) for of in (MEAN, STD))
    images = images.contiguous(memory_format=torch.channels_last)
    return (images / 255 - mean) / std
