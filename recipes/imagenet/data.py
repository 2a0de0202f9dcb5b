"""Images as batches of bytes: workers decode and crop, the device normalises and mixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .config import Config
from .sources import UNREADABLE, Source, find
from .transforms import middle_crop, random_crop

# Of ImageNet's channels, scaled to [0, 1]: what published weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
STEP = 32  # pixels by which images grow from epoch to epoch


class Item(NamedTuple):
    """An image as the net is to see it."""

    image: Tensor | None
    """(3, size, size) of uint8; None where it can't be decoded, and nothing is put in its place."""

    label: int

    corrupt: tuple[int, ...] = ()
    """Indices of the images that could not be decoded on the way here."""


class Batch(NamedTuple):
    """Images with labels, and what could not be decoded among them."""

    images: Tensor
    """(B, 3, size, size) of uint8, channels last."""

    labels: Tensor
    """(B,) of int64."""

    corrupt: Tensor
    """(K,) of int64: indices."""


class TrainingImages(Dataset[Item]):
    """Randomly cropped and mirrored images, each as a function of (seed, epoch, index) alone.

    An image that can't be decoded is replaced by the next one that can.
    """

    def __init__(self, source: Source, config: Config) -> None:
        self.source = source
        self._config = config

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        config, corrupt = self._config, []
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            try:
                with self.source.open(at) as image:
                    cropped = random_crop(
                        image, size_at(config, epoch),
                        smallest=config.smallest_crop, flip=config.flip,
                        seed=config.seed, epoch=epoch, index=at,
                    )  # fmt: skip
            except UNREADABLE:
                corrupt.append(at)
                continue
            return Item(cropped, int(self.source.labels[at]), tuple(corrupt))
        raise recipe.RecipeError(f"{self.source.name(index)}: neither it nor any image is readable")


class ValidationImages(Dataset[Item]):
    """The middles of images; one that can't be decoded is left out of its batch."""

    def __init__(self, source: Source, config: Config) -> None:
        self.source = source
        self._config = config

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, index: int) -> Item:
        size, share = self._config.validation_size, self._config.validation_crop
        try:
            with self.source.open(index) as image:
                cropped = middle_crop(image, size, share)
        except UNREADABLE:
            return Item(None, -1, (index,))
        return Item(cropped, int(self.source.labels[index]))


class Loaders(NamedTuple):
    """Batches for each purpose, of this process's share."""

    training: DataLoader[Batch]
    """Cropped by chance, and shuffled anew each epoch; images that fill no batch wait for another
    epoch."""

    validation: DataLoader[Batch]
    """All validation images, to evaluate on."""

    sources: dict[str, Source]
    """What these read: ``train`` and ``val``."""

    classes: list[str]


def size_at(config: Config, epoch: int) -> int:
    """Return the size of the training images in an epoch (from 1), in pixels."""
    if config.first_size is None:
        return config.size
    last = max(1, round(config.grown_at * config.epochs))  # the first epoch of full size
    progress = min(1.0, (epoch - 1) / last)
    grown = (config.size - config.first_size) * progress
    return config.size if progress == 1 else config.first_size + int(grown / STEP) * STEP


def load(config: Config, folder: Path) -> Loaders:
    """Return the loaders; batch ``k`` of epoch ``e`` depends on (seed, e, k) alone.

    Raises:
        RecipeError: there are no such images, or fewer than a batch, or the classes of training
            and validation differ.
    """
    sources = {split: find(folder, split) for split in ("train", "val")}
    classes = sources["train"].classes
    if odd := sorted(set(classes) ^ set(sources["val"].classes)):
        raise recipe.RecipeError(f"{folder}: class {odd[0]!r} is not in both train/ and val/")
    count = len(sources["train"].labels)
    if count < config.batch_size:
        raise recipe.RecipeError(
            f"{folder}: {count} training images, fewer than a batch of {config.batch_size}"
        )
    parallel: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": config.prefetch}
    loader: Callable[..., DataLoader[Batch]] = partial(
        idist.auto_dataloader,
        seed=config.seed,
        collate_fn=collate,
        num_workers=config.workers,
        **(parallel if config.workers else {}),
    )
    return Loaders(
        training=loader(
            TrainingImages(sources["train"], config),
            batch_size=config.batch_size, shuffle=True, drop_last=True, with_epoch=True,
        ),
        validation=loader(
            ValidationImages(sources["val"], config), batch_size=config.validation_batch_size
        ),
        sources=sources,
        classes=classes,
    )  # fmt: skip


def collate(items: Sequence[Item]) -> Batch:
    """Put items into a batch, without those that have no image."""
    images = [item.image for item in items if item.image is not None]
    corrupt = [index for item in items for index in item.corrupt]
    if images:
        # Written next to each other as they are: channels last, which convolutions are fastest on.
        stacked = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    else:
        stacked = torch.zeros(0, 3, STEP, STEP, dtype=torch.uint8)
    labels = [item.label for item in items if item.image is not None]
    return Batch(stacked, torch.tensor(labels), torch.tensor(corrupt, dtype=torch.int64))


def prepare_batch(
    batch: Batch, device: torch.device | str | None = None, non_blocking: bool = False
) -> tuple[Tensor, Tensor]:
    """Bring a batch to the device, a quarter of the bytes, and normalise it there.

    Returns:
        Images (B, 3, size, size) of float32, channels last; labels (B,) of int64.
    """
    images, labels = (tensor.to(device, non_blocking=non_blocking) for tensor in batch[:2])
    mean, std = (255 * torch.tensor(of, device=images.device).view(3, 1, 1) for of in (MEAN, STD))
    return (images - mean) / std, labels.long()


def create_mixing(
    config: Config, classes: int
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return what mixes a batch, as the profile has it; labels become (B, classes) then.

    It draws from torch's global random state, which is the same in all processes and which a
    resumed run has back: each mixes its own share of a batch alike.
    """
    choices: list[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = []
    if config.mixup:
        choices.append(v2.MixUp(alpha=config.mixup, num_classes=classes))
    if config.cutmix:
        choices.append(v2.CutMix(alpha=config.cutmix, num_classes=classes))
    if not choices:
        return lambda images, labels: (images, labels)
    return choices[0] if len(choices) == 1 else v2.RandomChoice(choices)
