"""Measure what mixed precision and the compiler bring on this GPU, and write a page of it.

    python -m recipes.cifar10.amp --data data/cifar10 --out amp.md
    python -m recipes.cifar10.amp --data data/cifar10 --out amp.md --profile resnet18 --epochs 3

Each way trains the same profile from the same seed. Seconds are of an epoch's training steps, the
median of all epochs but the first, which holds compiling and choosing kernels; memory is the most
that tensors took up on the GPU; accuracy is that at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from .config import Config
from .train import train

WAYS: Mapping[str, Mapping[str, Any]] = {
    "float32": {"precision": "float32", "compile": False},
    "float16": {"precision": "float16", "compile": False},
    "bfloat16": {"precision": "bfloat16", "compile": False},
    "float32, compiled": {"precision": "float32", "compile": True},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}


@dataclass(frozen=True)
class TimedRun(recipe.Run):
    """A run that notes how long each whole epoch's steps took, and can't be resumed."""

    seconds: list[float] = field(default_factory=list)
    """Of each epoch, without its evaluation."""

    def keep(self, trainer: Engine, **_: object) -> bool:
        """Time what begins now; keep nothing."""
        began = 0.0

        def begin() -> None:
            nonlocal began
            began = _now()

        def end(engine: Engine) -> None:
            if engine.epoch_iteration == engine.state.epoch_length:
                self.seconds.append(_now() - began)

        trainer.add_event_handler(Events.EPOCH_STARTED, begin)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, end)
        return False


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()


@dataclass(frozen=True)
class Measured:
    """What one way of training took and reached."""

    seconds: float
    """Of an epoch's steps."""

    memory: float
    """Bytes of tensors on the GPU at most; 0 without one."""

    accuracy: float
    """Of the test images at the end, from 0 to 1."""


def measure(config: Config, data: Path) -> Measured:
    """Train as ``config`` says, in a folder of its own.

    Raises:
        RecipeError: fewer than two whole epochs, so that none is left after the first.
    """
    if config.epochs < 2:
        raise recipe.RecipeError(f"epochs: expected at least 2, got {config.epochs}")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run = TimedRun("amp", outputs=out, logs=out / "logs", data=data)
        accuracy = train(config, run)["accuracy"]
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return Measured(median(run.seconds[1:]), memory, accuracy)


def write_page(rows: Mapping[str, Measured], title: str) -> str:
    """Return a page of Markdown; the speed-up is that over the first row."""
    first = next(iter(rows.values())).seconds
    lines = [
        f"# {title}",
        "",
        "| | s an epoch | speed-up | GPU memory, GiB | accuracy |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row.seconds:.3f} | {first / row.seconds:.2f}x "
            f"| {row.memory / 2**30:.2f} | {row.accuracy:.4f} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, measure every way, and write the page; 2 where that can't be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder in CIFAR-10's layout")
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--profile", default="full", help="whose parameters (full)")
    parser.add_argument("--epochs", type=int, help="other than the profile's; at least 2")
    given = parser.parse_args(argv)
    try:
        if not torch.cuda.is_available():
            raise recipe.RecipeError(
                "no GPU here: this page compares what a GPU makes of each precision; "
                "`python -m recipes.cifar10.train` trains in any of them on a CPU too"
            )
        config = recipe.load(Path(__file__).with_name("params.yaml"), given.profile, Config)
        config = replace(config, mlflow=False, epochs=given.epochs or config.epochs)
        rows = {}
        for name, values in WAYS.items():
            rows[name] = measure(replace(config, **values), given.data)
            print(f"{name}: {rows[name]}", flush=True)
    except recipe.RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    title = f"{given.profile} on {torch.cuda.get_device_name()}, torch {torch.__version__}"
    given.out.write_text(write_page(rows, title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
