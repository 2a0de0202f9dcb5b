"""What the VOC recipe's transforms and metrics cost, against a hand-written limit, in one run.

    uv run benchmarks/voc_segmentation.py            # print the tables
    uv run benchmarks/voc_segmentation.py --write    # and put them into benchmarks/README.md

Processor time, medians of interleaved repeats in one process, one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from _metric_cases import by_planes
from _table import environment, interleaved, table, write
from torchvision import tv_tensors
from torchvision.transforms import v2

from cookfire.handlers import recipe
from recipes.voc_segmentation.config import Config
from recipes.voc_segmentation.data import AugmentedPairs, prepare_batch
from recipes.voc_segmentation.metrics import create_evaluator
from recipes.voc_segmentation.pairs import Pair
from recipes.voc_segmentation.palette import VOID, to_picture

HEIGHT, WIDTH, IMAGES, PAIRS = 375, 500, 4, 16  # VOC's usual size
TARGET = 1.3


class Fixed(nn.Module):
    """A net that has its answer ready, so that only the measuring takes time."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, _: Tensor) -> dict[str, Tensor]:
        return {"out": self.logits}


def metrics(repeats: int) -> list[list[str]]:
    """Measure an evaluation of some whole images; return the table's rows."""
    torch.manual_seed(0)
    logits = torch.randn(1, 21, HEIGHT, WIDTH)
    images = torch.zeros(1, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    masks = torch.randint(21, (1, HEIGHT, WIDTH), dtype=torch.uint8)
    masks[:, :, :30] = VOID
    batches = [(images, masks, torch.tensor([place])) for place in range(IMAGES)]
    evaluator = create_evaluator(Fixed(logits))
    found = {}

    def limit() -> None:
        matrix, loss, count = torch.zeros(21, 21, dtype=torch.int64), 0.0, 0
        for batch in batches:
            _, y = prepare_batch(batch)
            known = y.masked_fill(y == VOID, 21)  # a row of its own, cut off
            (flat,) = by_planes(logits, known)
            matrix = matrix + F.pad(flat, (0, 22 * 21 - len(flat))).view(22, 21)[:21]
            loss += F.cross_entropy(logits, y, ignore_index=VOID, reduction="sum")
            count += (y != VOID).sum()
        hits = matrix.diagonal().double()
        found["limit"] = float((hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean())
        found["loss"] = float(loss / count)

    def ours() -> None:
        found["recipe"] = float(evaluator.run(batches).metrics["miou"])

    seconds = interleaved({"limit": limit, "recipe": ours}, repeats, process_time)
    assert abs(found["limit"] - found["recipe"]) < 1e-9
    rows = []
    for name, label in (("limit", "the hand-written limit"), ("recipe", "the recipe's evaluator")):
        target = f" (at most {TARGET}x)" if name == "recipe" else ""
        ratio = seconds[name] / seconds["limit"]
        rows.append([label, f"{seconds[name] / IMAGES * 1e3:.1f}", f"{ratio:.2f}x{target}"])
    return rows


def transforms(repeats: int) -> list[list[str]]:
    """Measure pairs a second, from files to a cut pair of tensors; return the table's rows."""
    config = recipe.load(
        Path(__file__).parents[1] / "recipes/voc_segmentation/params.yaml", "small", Config
    )
    with tempfile.TemporaryDirectory() as folder:
        pairs = write_pairs(Path(folder))
        rows = []
        for name, size, scales in (("256", 256, (0.45, 1.1)), ("513", 513, (0.5, 2.0))):
            ours = AugmentedPairs(pairs, replace(config, size=size, scales=scales, jitter=0.0))
            theirs = usual(pairs, size, scales)
            cases = {
                "the recipe's (albumentations)": each(lambda n, of=ours: of[1, n]),
                "torchvision v2": each(theirs),
                "reading alone": each(lambda n: pairs[n].read()),
            }
            seconds = interleaved(cases, repeats, process_time)
            for case, value in seconds.items():
                ratio = seconds["torchvision v2"] / value
                rows.append([f"{name} px: {case}", f"{PAIRS / value:,.0f}", f"{ratio:.1f}x"])
    return rows


def each(read: Callable[[int], object]) -> Callable[[], None]:
    def run() -> None:
        for number in range(PAIRS):
            read(number)

    return run


def write_pairs(folder: Path) -> list[Pair]:
    """Write images as smooth as photographs, with masks of a few regions."""
    chance = np.random.RandomState(0)
    pairs = []
    for number in range(PAIRS):
        pair = Pair(folder / f"{number}.jpg", folder / f"{number}.png")
        small = chance.randint(0, 256, size=(24, 32, 3)).astype(np.uint8)
        Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(pair.image)
        regions = chance.randint(0, 21, size=(3, 4)).astype(np.uint8)
        large = np.kron(regions, np.ones((HEIGHT // 3, WIDTH // 4), np.uint8)).astype(np.uint8)
        to_picture(large).save(pair.mask)
        pairs.append(pair)
    return pairs


def usual(pairs: list[Pair], size: int, scales: tuple[float, float]) -> Callable[[int], object]:
    """Return torchvision's joint transforms of a pair that PIL reads."""
    chance = v2.Compose(
        [
            v2.RandomCrop(size, pad_if_needed=True, fill={tv_tensors.Mask: VOID, "others": 0}),
            v2.RandomHorizontalFlip(),
        ]
    )
    random = np.random.default_rng(0)

    def read(number: int) -> object:
        image, mask = pairs[number].read()
        factor = random.uniform(*scales)
        resize = v2.Resize((round(HEIGHT * factor), round(WIDTH * factor)), antialias=False)
        picture = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        return chance(*resize(picture, tv_tensors.Mask(torch.from_numpy(mask))))

    return read


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="update benchmarks/README.md")
    parser.add_argument("--repeats", type=int, default=31, help="of each case (31)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = [f"an image of {HEIGHT}x{WIDTH}, 21 classes, measured", "CPU ms", "x limit"]
    read = ["pairs read, resized, cut and mirrored together on one core", "pairs/s", "x v2"]
    text = "\n\n".join(
        [
            table(measured, metrics(arguments.repeats)),
            table(read, transforms(arguments.repeats)),
            environment("torchvision", "albumentations", "pillow"),
        ]
    )
    print(text)
    if arguments.write:
        write("voc_segmentation", text)


if __name__ == "__main__":
    main()
