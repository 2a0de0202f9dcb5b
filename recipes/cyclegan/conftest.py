"""What the tests share: coloured squares in four folders, and nets of a few thousand weights."""

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

HERE = Path(__file__).resolve().parent
# Six steps an epoch. In two processes, the second one's share of the last test batch of A is empty.
COUNTS = {"trainA": 10, "trainB": 12, "testA": 3, "testB": 5}
CONFIG = replace(
    recipe.load(HERE / "params.yaml", "tiny", Config),
    paired=False,
    load_size=18,
    image_size=16,
    width=4,
    discriminator_width=4,
    discriminator_layers=1,
    pool=4,
    batch_size=2,
    validation_batch_size=4,
    epochs=2,
    decay_epochs=1,
    validate_every=1,
    mlflow=False,
)
STEPS = 18


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_pictures(folder: Path, size: int = 20) -> Path:
    """Write red squares on black as A and blue ones on white as B."""
    chance = np.random.default_rng(0)
    for kind, count in COUNTS.items():
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            picture = np.full((size, size, 3), 0 if kind.endswith("A") else 220, np.uint8)
            picture += chance.integers(0, 30, picture.shape, np.uint8)
            top, left = chance.integers(0, size // 2, 2)
            color = (230, 40, 40) if kind.endswith("A") else (40, 40, 230)
            picture[top : top + size // 2, left : left + size // 2] = color
            Image.fromarray(picture).save(folder / kind / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def run_in(out: Path, pictures: Path, *, resumable: bool = False) -> recipe.Run:
    states = out / "states" if resumable else None
    if states is not None:
        states.mkdir(parents=True, exist_ok=True)
    return recipe.Run(
        "tiny", outputs=out / "outs", logs=out / "logs", data=pictures, states=states, save_every=4
    )


def outs(out: Path) -> dict[str, bytes]:
    """Return what a training hands to DVC."""
    files = (path for path in (out / "outs").rglob("*") if path.is_file())
    return {path.relative_to(out / "outs").as_posix(): path.read_bytes() for path in files}


def curves(out: Path) -> list[dict[str, float]]:
    with (out / "outs" / "curves.tsv").open() as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [{name: float(value) for name, value in row.items()} for row in rows]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    out = tmp_path_factory.mktemp("trained")
    torch.set_num_threads(1)
    train.train(CONFIG, run_in(out, pictures))
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
