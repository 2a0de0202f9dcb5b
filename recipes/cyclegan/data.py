"""Two folders of pictures as unpaired, augmented batches; all of them in memory, as bytes.

Pictures are decoded and resized once, when the training begins, so that a file that can't be used
ends it at once and no step waits for a decoder: 0.6 GB for horse2zebra.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .config import Config

Batch: TypeAlias = tuple[Tensor, Tensor]  # of A and of B, each (B, 3, height, width) of uint8

FOLDERS = ("trainA", "trainB", "testA", "testB")
SHOWN = 4  # pictures of each domain in a grid
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class Loaders(NamedTuple):
    """Batches for each purpose, of this process's share."""

    training: DataLoader[Batch]
    """A batch of A beside one of B, drawn anew each epoch; pictures that fill no batch wait."""

    test: DataLoader[Batch]
    """All test pictures, in order; at the end of the smaller domain its batches are empty."""

    shown: Batch
    """The first test pictures of each domain."""


def find_pictures(folder: Path) -> list[Path]:
    """Return a folder's pictures, by name.

    Raises:
        RecipeError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise recipe.RecipeError(
            f"{folder}: no such folder; --data takes one with {', '.join(FOLDERS)} in it, and "
            "`dvc repro data/dvc.yaml:horse2zebra` (or :tiny_horse2zebra) makes one"
        )
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise recipe.RecipeError(
            f"{folder}: no pictures in it; expected files that end in {', '.join(SUFFIXES)}"
        )
    return found


def read_picture(path: Path) -> Image.Image:
    """Decode a picture, in colours.

    Raises:
        RecipeError: it is damaged, cut short, or no picture.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise recipe.RecipeError(f"{path}: too large to be a picture of a data set") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise recipe.RecipeError(
            f"{path}: damaged, cut short or no picture; replace it, or take it away"
        ) from error


def read(folder: Path, split: str, size: int, sizes: str = "equal") -> tuple[Tensor, Tensor]:
    """Read the pictures of both domains, resized to ``size``: each (N, 3, size, size) of uint8.

    Args:
        folder: with ``trainA``, ``trainB``, ``testA`` and ``testB``.
        split: ``train`` or ``test``.
        size: pixels, in height and width.
        sizes: ``equal`` or ``any``; see ``Config.sizes``.

    Raises:
        RecipeError: there are no pictures, one is damaged, or they have several sizes where they
            should have one; names the file.
    """
    paths = {domain: find_pictures(folder / f"{split}{domain}") for domain in "AB"}
    first: tuple[Path, tuple[int, int]] | None = None
    domains = []
    quiet = idist.get_rank() > 0
    with tqdm(total=sum(map(len, paths.values())), desc=split, leave=False, disable=quiet) as bar:
        for of_domain in paths.values():
            pictures = torch.empty(len(of_domain), 3, size, size, dtype=torch.uint8)
            for number, path in enumerate(of_domain):
                image = read_picture(path)
                first = first or (path, image.size)
                if sizes == "equal" and image.size != first[1]:
                    raise recipe.RecipeError(
                        f"{path}: {_shown(image.size)} pixels, but {first[0]} has "
                        f"{_shown(first[1])}; `sizes: any` cuts each to a square and resizes it"
                    )
                pictures[number] = to_tensor(_resized(image, size, square=sizes == "any"))
                bar.update()
            domains.append(pictures)
    a, b = domains
    return a, b


def to_tensor(image: Image.Image) -> Tensor:
    """Return a picture as (3, height, width) of uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _resized(image: Image.Image, size: int, *, square: bool) -> Image.Image:
    if square:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BICUBIC)


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


class UnpairedPictures(Dataset[Batch]):
    """Pictures of two domains side by side, which pairs being a function of (seed, epoch) alone.

    An epoch has all pictures of the larger domain once, and those of the smaller one in turn. Each
    is cut and mirrored as a function of (seed, epoch, position).

    Args:
        a: (N, 3, size, size) of uint8.
        b: (M, 3, size, size) of uint8.
        image_size: pixels of the window that is cut out.
        seed: what chance is derived from.
    """

    def __init__(self, a: Tensor, b: Tensor, *, image_size: int, seed: int) -> None:
        self._domains = (a, b)
        self._image_size = image_size
        self._seed = seed
        self._epoch: int | None = None

    def __len__(self) -> int:
        return max(map(len, self._domains))

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        a, b = self.__getitems__([key])
        return a[0], b[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """A batch of (epoch, position), all of one epoch."""
        self._draw(keys[0][0])
        a, b = (
            torch.stack([self._cut(domain, position) for _, position in keys])
            for domain in range(2)
        )
        return a, b

    def _cut(self, domain: int, position: int) -> Tensor:
        pictures = self._domains[domain]
        picture = pictures[self._orders[domain][position % len(pictures)]]
        top, left, mirrored = self._chance[domain, position].tolist()
        size = self._image_size
        window = picture[:, top : top + size, left : left + size]
        return window.flip(-1) if mirrored else window

    def _draw(self, epoch: int) -> None:
        """Draw the order and what chance does to every picture in an epoch."""
        if epoch == self._epoch:
            return
        chance = torch.Generator().manual_seed(idist.derive_seed(self._seed, epoch, 1))
        self._orders = [torch.randperm(len(of), generator=chance).tolist() for of in self._domains]
        spare = self._domains[0].shape[-1] - self._image_size + 1
        shifts = torch.randint(spare, (2, len(self), 2), generator=chance)
        coins = torch.randint(2, (2, len(self), 1), generator=chance)
        self._chance = torch.cat([shifts, coins], dim=2)
        self._epoch = epoch


class TestPictures(Dataset[Batch]):
    """Pictures of two domains side by side, as they are; a batch past the end of one is empty."""

    __test__ = False  # pytest takes classes of such names for tests

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self._domains = (a, b)

    def __len__(self) -> int:
        return max(map(len, self._domains))

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch of each domain, which may be of different lengths."""
        a, b = (of[[index for index in indices if index < len(of)]] for of in self._domains)
        return a, b

    def first(self) -> Batch:
        """The first pictures of each domain, or all if there are fewer: those of the grids."""
        return self.__getitems__(range(SHOWN))


def load_test(config: Config, folder: Path) -> TestPictures:
    """Return the test pictures, whole, in the size of training.

    Raises:
        RecipeError: they can't be read, or are not the pairs that ``config`` says they are.
    """
    if config.paired:
        names = [[path.name for path in find_pictures(folder / f"test{of}")] for of in "AB"]
        if names[0] != names[1]:
            odd = min(set(names[0]) ^ set(names[1]))
            raise recipe.RecipeError(
                f"{folder}: {odd} is in one of testA and testB only; `paired: true` takes pictures "
                "of the same names"
            )
    return TestPictures(*read(folder, "test", config.image_size, config.sizes))


def load(config: Config, folder: Path) -> Loaders:
    """Return the loaders; batch ``k`` of epoch ``e`` depends on (seed, e, k) alone."""
    test = load_test(config, folder)
    a, b = read(folder, "train", config.load_size, config.sizes)
    training = UnpairedPictures(a, b, image_size=config.image_size, seed=config.seed)
    if len(training) < config.batch_size:
        raise recipe.RecipeError(
            f"{folder}: {len(training)} training pictures in the larger domain, fewer than a batch "
            f"of {config.batch_size}"
        )
    return Loaders(
        training=idist.auto_dataloader(
            training,
            batch_size=config.batch_size,
            drop_last=True,
            with_epoch=True,
            seed=config.seed,
            collate_fn=_as_it_is,
        ),
        test=create_test_loader(config, test),
        shown=test.first(),
    )


def create_test_loader(config: Config, pictures: TestPictures) -> DataLoader[Batch]:
    """Return batches of this process's share of the test pictures, in order."""
    size = config.validation_batch_size
    return idist.auto_dataloader(pictures, batch_size=size, seed=config.seed, collate_fn=_as_it_is)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def prepare_batch(
    batch: Batch, device: torch.device | str | None = None, non_blocking: bool = False
) -> Batch:
    """Bring a batch to the device, a quarter of the bytes, and scale it there, to -1 to 1."""
    a, b = (tensor.to(device, non_blocking=non_blocking) for tensor in batch)
    return a / 127.5 - 1, b / 127.5 - 1


def to_bytes(pictures: Tensor) -> Tensor:
    """Return pictures from -1 to 1 as uint8, on the CPU."""
    return ((pictures.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
