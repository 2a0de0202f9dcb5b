"""What the tests share: JPEGs of four coloured patterns, and a small net."""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from cookfire.handlers import recipe

from . import train
from .config import Config

HERE = Path(__file__).resolve().parent
CLASSES = ("ant", "bee", "cat", "dog")
TRAINING, VALIDATION = 9, 4  # images of each class; one of the former is cut short
CORRUPT = "train/bee/bee_3.JPEG"
CONFIG = replace(
    recipe.load(HERE / "params.yaml", "tiny", Config),
    options={"channels": [8, 8, 16, 16], "stem_width": 8, "norm_layer": "groupnorm1"},
    epochs=6,
    batch_size=8,
    lr=0.01,
    warmup=0,
    ema=0.3,
    validation_batch_size=7,
    size=32,
    validation_size=32,
    mlflow=False,
    environment={},
)
STEPS = 6 * (4 * TRAINING // 8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pattern(label: int, number: int) -> Tensor:
    """Return an image of a class, of odd height and width."""
    chance = torch.Generator().manual_seed(1000 * label + number)
    height, width = (2 * torch.randint(16, 30, (2,), generator=chance) + 1).tolist()
    image = torch.randint(0, 100, (3, height, width), generator=chance)
    image[[label] if label < 3 else [0, 1]] += 150
    return image.to(torch.uint8)


def write_images(folder: Path) -> Path:
    for split, count in (("train", TRAINING), ("val", VALIDATION)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = pattern(label, number + 500 * (split == "val"))
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                picture.save(folder / split / name / f"{name}_{number}.JPEG", quality=85)
    return folder


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_images(tmp_path_factory.mktemp("images"))
    cut_short(folder / CORRUPT)
    return folder


def run_in(out: Path, images: Path, *, resumable: bool = False) -> recipe.Run:
    states = out / "states" if resumable else None
    if states is not None:
        states.mkdir(parents=True, exist_ok=True)
    return recipe.Run(
        "tiny", outputs=out / "outs", logs=out / "logs", data=images, states=states, save_every=3
    )


def outs(out: Path) -> dict[str, bytes]:
    """Return what a training hands to DVC."""
    names = ("model.pt", "ema.pt", "curves.tsv", "corrupt.tsv")
    return {name: (out / "outs" / name).read_bytes() for name in names}


def curves(out: Path) -> list[dict[str, float]]:
    with (out / "outs" / "curves.tsv").open() as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [{name: float(value) for name, value in row.items()} for row in rows]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    out = tmp_path_factory.mktemp("trained")
    torch.set_num_threads(1)
    train.train(CONFIG, run_in(out, images))
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
