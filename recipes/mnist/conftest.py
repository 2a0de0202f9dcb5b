"""What the tests share: ten patterns with noise, in MNIST's files. A fork keeps these tests."""

from __future__ import annotations

import csv
import multiprocessing
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cookfire.handlers import recipe

from . import train
from .config import Config

HERE = Path(__file__).resolve().parent
PROFILES = recipe.profiles(HERE / "params.yaml")
TRAINING, VALIDATION = 330, 90  # images: ten steps of 32, and two evaluation steps of 64
CONFIG = replace(
    recipe.load(HERE / "params.yaml", "tiny", Config),
    epochs=3,
    batch_size=32,
    validation_batch_size=64,
    lr=0.1,
    mlflow=False,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(0, 200, (10, 4, 4), generator=generator)
    for split, size in (("train", TRAINING), ("t10k", VALIDATION)):
        labels = torch.arange(size) % 10
        images = patterns[labels].repeat_interleave(7, dim=1).repeat_interleave(7, dim=2)
        images = images + torch.randint(0, 56, images.shape, generator=generator)
        write_idx(folder, f"{split}-images-idx3-ubyte", images)
        write_idx(folder, f"{split}-labels-idx1-ubyte", labels)
    return folder


def write_idx(folder: Path, name: str, values: Tensor) -> None:
    path = folder / "MNIST" / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.to(torch.uint8).numpy().tobytes())


def run_in(out: Path, digits: Path, *, resumable: bool = False) -> recipe.Run:
    states = out / "states" if resumable else None
    if states is not None:
        states.mkdir(parents=True, exist_ok=True)
    return recipe.Run(
        "tiny", outputs=out / "outs", logs=out / "logs", data=digits, states=states, save_every=4
    )


def outs(out: Path) -> dict[str, bytes]:
    """Return what a training hands to DVC."""
    return {
        name: (out / "outs" / name).read_bytes() for name in ("model.pt", "best.pt", "curves.tsv")
    }


def curves(out: Path) -> list[dict[str, float]]:
    with (out / "outs" / "curves.tsv").open() as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [{name: float(value) for name, value in row.items()} for row in rows]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    out = tmp_path_factory.mktemp("trained")
    torch.set_num_threads(1)
    train.train(CONFIG, run_in(out, digits))
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
