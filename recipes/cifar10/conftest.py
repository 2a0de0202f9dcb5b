"""What the tests share: ten coloured patterns with noise in CIFAR-10's files, and a small net."""

from __future__ import annotations

import csv
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cookfire.handlers import recipe

from . import train
from .config import Config
from .data import FILES, FOLDER

HERE = Path(__file__).resolve().parent
TRAINING, TEST = 5 * 64, 65  # images: ten steps of 32, and evaluation steps of 32, 32 and 1
CONFIG = replace(
    recipe.load(HERE / "params.yaml", "tiny", Config),
    widths=(8, 16, 16),
    epochs=4,
    batch_size=32,
    validation_batch_size=32,
    lr=0.8,
    label_smoothing=0.0,
    mlflow=False,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(0, 200, (10, 3, 4, 4), generator=generator)
    for name in [*FILES["train"], *FILES["test"]]:
        labels = torch.arange(TEST if name == "test_batch" else TRAINING // 5) % 10
        pixels = patterns[labels].repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        pixels = pixels + torch.randint(0, 56, pixels.shape, generator=generator)
        write_batch(folder, name, pixels, labels.tolist())
    return folder


def write_batch(folder: Path, name: str, pixels: Tensor, labels: Sequence[int]) -> None:
    path = folder / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pixels.to(torch.uint8).flatten(1).numpy()
    path.write_bytes(pickle.dumps({"data": rows, "labels": list(labels)}))


def run_in(out: Path, images: Path, *, resumable: bool = False) -> recipe.Run:
    states = out / "states" if resumable else None
    if states is not None:
        states.mkdir(parents=True, exist_ok=True)
    return recipe.Run(
        "tiny", outputs=out / "outs", logs=out / "logs", data=images, states=states, save_every=4
    )


def outs(out: Path) -> dict[str, bytes]:
    """Return what a training hands to DVC."""
    return {name: (out / "outs" / name).read_bytes() for name in ("model.pt", "curves.tsv")}


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
