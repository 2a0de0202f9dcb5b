"""The same augmentation image by image, by albumentations: where a fork begins to add its own.

It takes some ten times as long as batches of tensors (``benchmarks/cifar10.py``).
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from cookfire import distributed as idist

from .data import SIZE, Batch, Images

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network when imported
import albumentations
import cv2


def create_transform(translate: int) -> albumentations.Compose:
    """Return what is done to a training image, (32, 32, 3) of uint8."""
    size = SIZE + 2 * translate
    return albumentations.Compose(
        [
            albumentations.PadIfNeeded(size, size, border_mode=cv2.BORDER_REFLECT_101),
            albumentations.RandomCrop(SIZE, SIZE),
            albumentations.HorizontalFlip(p=0.5),
        ]
    )


class AlbumentationsImages(Dataset[Batch]):
    """Images transformed one by one, each as a function of (seed, epoch, index) alone.

    Args:
        images: what is augmented.
        translate: pixels of a shift at most, either way; borders are reflected.
        seed: what chance is derived from.
    """

    def __init__(self, images: Images, *, translate: int, seed: int) -> None:
        self.labels = images.labels
        self._pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self._transform = create_transform(translate)
        self._seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        images, labels = self.__getitems__([key])
        return images[0], labels[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """A batch of (epoch, index)."""
        transformed = []
        for epoch, index in keys:
            seed = idist.derive_seed(self._seed, epoch, index)
            # One source for all transforms: set_random_seed would give each the same numbers.
            self._transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
            image = self._transform(image=self._pixels[index])["image"]
            transformed.append(torch.from_numpy(image))
        images = torch.stack(transformed).permute(0, 3, 1, 2).contiguous()
        return images, self.labels[torch.tensor([index for _, index in keys])]
