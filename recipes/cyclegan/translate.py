"""Turn a folder of pictures into the other domain, with trained generators.

    python -m recipes.cyclegan.translate --model FILE --direction a_to_b --data DIR --out DIR

Each picture is translated in its own size, and written under its own name as a PNG file.
Neighbours of equal size share a batch. What can't be read is named, and nothing is written then.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .data import find_pictures, read_picture, to_bytes, to_tensor
from .model import Generator, load_generator

DIRECTIONS = ("a_to_b", "b_to_a")
MULTIPLE, SMALLEST = 4, 16  # pixels, of what a generator takes: it halves a side twice


def translate(net: Generator, source: Path, destination: Path, batch_size: int = 8) -> list[Path]:
    """Translate all pictures of a folder into another; return the files written.

    Raises:
        RecipeError: a picture can't be used, or there is none; or two have one name, or the
            folders are the same.
    """
    paths = find_pictures(source)
    if destination.exists() and (not destination.is_dir() or destination.samefile(source)):
        raise recipe.RecipeError(f"{destination}: expected a folder, and another than {source}")
    names: dict[str, Path] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    for path in tqdm(paths, desc="checking", leave=False):
        other = names.setdefault(path.stem, path)
        if other is not path:
            raise recipe.RecipeError(f"{path}: {other.name} would be {path.stem}.png too; rename")
        sizes[path] = read_picture(path).size
        if min(sizes[path]) < SMALLEST:
            raise recipe.RecipeError(
                f"{path}: {sizes[path][0]}x{sizes[path][1]} pixels, expected at least {SMALLEST}"
            )
    destination.mkdir(parents=True, exist_ok=True)
    written = []
    with tqdm(total=len(paths), unit="picture", desc=str(destination)) as bar:
        for batch in _batches(paths, sizes, batch_size):
            pictures = torch.stack([to_tensor(read_picture(path)) for path in batch])
            for path, picture in zip(batch, apply(net, pictures), strict=True):
                target = destination / f"{path.stem}.png"
                Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(target)
                written.append(target)
            bar.update(len(batch))
    return written


@torch.no_grad()
def apply(net: Generator, pictures: Tensor) -> Tensor:
    """Translate a batch (B, 3, height, width) of uint8 of any size from 16 pixels.

    Sides that are no multiples of 4 are extended by reflection, and cut back.
    """
    device = next(net.parameters()).device
    height, width = pictures.shape[2:]
    scaled = pictures.to(device) / 127.5 - 1
    scaled = F.pad(scaled, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="reflect")
    return to_bytes(net(scaled)[:, :, :height, :width])


def _batches(
    paths: Sequence[Path], sizes: dict[Path, tuple[int, int]], batch_size: int
) -> Iterator[list[Path]]:
    for _, neighbours in groupby(paths, key=sizes.__getitem__):
        group = list(neighbours)
        for first in range(0, len(group), batch_size):
            yield group[first : first + batch_size]


def load_net(path: Path, direction: str) -> Generator:
    """Return the generator of ``model.pt`` for a direction, on this process's device.

    Raises:
        RecipeError: there is no such file, or it holds no generators.
    """
    if not path.is_file():
        raise recipe.RecipeError(f"--model {path}: no such file; train.py writes one, model.pt")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)["generators"]
        prefix = f"{direction}."
        net = load_generator(
            {
                name.removeprefix(prefix): value
                for name, value in weights.items()
                if name.startswith(prefix)
            }
        )
    except Exception as error:  # whatever a file that is no model.pt leads to
        raise recipe.RecipeError(
            f"--model {path}: expected a model.pt of this recipe ({type(error).__name__})"
        ) from error
    return net.to(idist.device()).eval()


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, and translate; 2 where that can't be."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.cyclegan.translate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="model.pt")
    parser.add_argument("--direction", choices=DIRECTIONS, required=True, help="from, to")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="of pictures")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the new ones")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="pictures (8)")
    given = parser.parse_args(argv)
    try:
        if given.batch_size < 1:
            raise recipe.RecipeError(f"--batch-size: expected at least 1, got {given.batch_size}")
        net = load_net(given.model, given.direction)
        written = translate(net, given.data, given.out, given.batch_size)
    except recipe.RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(written)} pictures in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
