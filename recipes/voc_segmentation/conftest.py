"""What the tests share: squares of three colours with their masks in VOC's files, a small net."""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cookfire.handlers import recipe

from . import train
from .config import Config
from .pairs import FOLDER, IMAGES, LISTS, MASKS
from .palette import VOID, Pixels, to_picture

HERE = Path(__file__).resolve().parent
TRAINING, VALIDATION = 24, 7  # pairs: six steps of 4, and 7 evaluation steps
CONFIG = replace(
    recipe.load(HERE / "params.yaml", "tiny", Config),
    widths=(8, 16),
    head_width=8,
    epochs=9,
    batch_size=4,
    validate_every=4,
    lr=0.3,
    size=32,
    views=(1.0,),
    flip=False,
    mlflow=False,
)
COLORS = {1: (230, 30, 30), 2: (30, 220, 30), 15: (40, 40, 230)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    chance = np.random.RandomState(0)
    for split, count in (("train", TRAINING), ("val", VALIDATION)):
        for number in range(count):
            write_pair(folder, split, f"{split}_{number}", *draw(chance))
    return folder


def draw(chance: np.random.RandomState) -> tuple[Pixels, Pixels]:
    """An odd-sized image with a square, and its mask, in which the square has a border of void."""
    height, width = chance.randint(25, 46, size=2)
    image = chance.randint(80, 150, size=(height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    top, left = chance.randint(1, 8, size=2)
    of_class = list(COLORS)[chance.randint(3)]
    image[top : top + 16, left : left + 16] = COLORS[of_class]
    mask[top : top + 16, left : left + 16] = VOID
    mask[top + 1 : top + 15, left + 1 : left + 15] = of_class
    return image, mask


def write_pair(folder: Path, split: str, name: str, image: Pixels, mask: Pixels) -> None:
    root = folder / FOLDER
    for part in (IMAGES, MASKS, LISTS):
        (root / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / IMAGES / f"{name}.jpg", quality=95)
    to_picture(mask).save(root / MASKS / f"{name}.png")
    with (root / LISTS / f"{split}.txt").open("a") as file:
        file.write(f"{name}\n")


def run_in(out: Path, pairs: Path, *, resumable: bool = False) -> recipe.Run:
    states = out / "states" if resumable else None
    if states is not None:
        states.mkdir(parents=True, exist_ok=True)
    return recipe.Run(
        "tiny", outputs=out / "outs", logs=out / "logs", data=pairs, states=states, save_every=3
    )


def outs(out: Path) -> dict[str, bytes]:
    """Return what a training hands to DVC."""
    return {name: (out / "outs" / name).read_bytes() for name in ("model.pt", "curves.tsv")}


def curves(out: Path) -> list[dict[str, float]]:
    with (out / "outs" / "curves.tsv").open() as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [{name: float(value) for name, value in row.items()} for row in rows]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    out = tmp_path_factory.mktemp("trained")
    torch.set_num_threads(1)
    train.train(CONFIG, run_in(out, pairs))
    return out


def in_processes(number: int, function: Callable[..., object], *args: object) -> list[int | None]:
    """Run ``function(rank, *args)`` in fresh processes; return their exit codes."""
    context = multiprocessing.get_context("forkserver")
    # The fork server imports these once, for all tests.
    context.set_forkserver_preload([train.__name__])
    processes = [context.Process(target=function, args=(rank, *args)) for rank in range(number)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]
