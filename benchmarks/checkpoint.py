"""What a checkpoint costs the training: Cookfire, its peers, and torch.save, in one run.

    uv run --group bench benchmarks/checkpoint.py            # print the table
    uv run --group bench benchmarks/checkpoint.py --write    # and put it into benchmarks/README.md

A ResNet-50 and its SGD with momentum, 205 MB. What is timed is how long the call that saves holds
up the thread that trains, a save at a time; between two, the background is waited for, untimed.
Figures are medians of interleaved repeats in one process; what counts is the ratio to torch.save.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import ignite.engine
import ignite.handlers
import torch
from torchvision.models import resnet50

sys.path.insert(0, str(Path(__file__).parent))
from _table import environment, table, typical, write

from cookfire.engine import Engine
from cookfire.handlers import Checkpoint

TARGET = 0.3
"""How long a save in the background may hold up the training, of what torch.save takes."""


class Case:
    """A way to save: ``save`` is timed, ``settle`` is not."""

    def __init__(self, save: Callable[[], object], settle: Callable[[], object] | None = None):
        self.save = save
        self.settle = settle or (lambda: None)


def training() -> dict[str, Any]:
    """Return model and optimizer after a step, so that there is a momentum."""
    torch.manual_seed(0)
    model = resnet50()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return {"model": model, "optimizer": optimizer}


def by_torch(objects: dict[str, Any], folder: Path) -> Case:
    def save() -> None:
        states = {name: thing.state_dict() for name, thing in objects.items()}
        torch.save(states, folder / "checkpoint.pt")

    return Case(save)


def by_copy(objects: dict[str, Any]) -> Case:
    """The limit of what saving in the background can cost: a copy into memory that is there."""

    def tensors() -> list[torch.Tensor]:
        model, optimizer = objects.values()
        momenta = [item["momentum_buffer"] for item in optimizer.state_dict()["state"].values()]
        return [*model.state_dict().values(), *momenta]

    copies = [tensor.clone() for tensor in tensors()]

    def copy() -> None:
        for mine, tensor in zip(copies, tensors(), strict=True):
            mine.copy_(tensor)

    return Case(copy)


def by_us(objects: dict[str, Any], folder: Path, background: bool) -> Case:
    engine = Engine(lambda *_: None)
    checkpoint = Checkpoint(objects, folder, background=background)

    def save() -> None:
        engine.state.iteration += 1
        checkpoint(engine)

    return Case(save, checkpoint.wait)


def by_ignite(objects: dict[str, Any], folder: Path) -> Case:
    engine = ignite.engine.Engine(lambda *_: None)
    saver = ignite.handlers.DiskSaver(str(folder), require_empty=False)
    checkpoint = ignite.handlers.Checkpoint(objects, saver)

    def save() -> None:
        engine.state.iteration += 1
        checkpoint(engine)

    return Case(save)


def by_lightning(objects: dict[str, Any], folder: Path) -> Case:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = objects["model"]
            self.automatic_optimization = False

        def training_step(self, batch: Any, index: int) -> None:
            pass

        def configure_optimizers(self) -> Any:
            return objects["optimizer"]

    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), [0])
    return Case(lambda: trainer.save_checkpoint(folder / "checkpoint.ckpt"))


def blocked(cases: dict[str, Case], repeats: int) -> dict[str, float]:
    """Return each case's typical seconds; the cases take turns, and nothing runs beside them."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, case in cases.items():
            begin = perf_counter()
            case.save()
            took = perf_counter() - begin
            case.settle()
            if repeat:
                seconds[name].append(took)
    return typical(seconds)


def rows(folder: Path, repeats: int) -> list[list[str]]:
    """Measure all ways of saving; return the table's rows."""
    objects = training()
    names = ["ours", "background", "ignite", "lightning", "torch"]
    places = {name: folder / name for name in names}
    for place in places.values():
        place.mkdir()
    cases = {
        "torch.save": by_torch(objects, places["torch"]),
        "a copy of the tensors, no save": by_copy(objects),
        "Cookfire, in the background": by_us(objects, places["background"], background=True),
        "Cookfire, in the foreground": by_us(objects, places["ours"], background=False),
        "ignite": by_ignite(objects, places["ignite"]),
        "Lightning": by_lightning(objects, places["lightning"]),
    }
    seconds = blocked(cases, repeats)
    limit = seconds["torch.save"]
    made = []
    for name, value in seconds.items():
        ratio = f"{value / limit:.2f}x"
        if name == "Cookfire, in the background":
            ratio = f"**{ratio}** (at most {TARGET}x)"
        made.append([name, f"{value * 1000:.0f}", ratio])
    return made


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the peers log, print and warn about."""
    logging.disable(logging.WARNING)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="update benchmarks/README.md")
    parser.add_argument("--repeats", type=int, default=15, help="of each save (15)")
    parser.add_argument("--folder", help="where to save; default: one for temporary files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        with quiet():
            measured = rows(folder, arguments.repeats)
    finally:
        shutil.rmtree(folder)
    header = ["a save of ResNet-50 with momentum, 205 MB", "ms blocked", "x torch.save"]
    text = f"{table(header, measured)}\n\n{environment('pytorch-ignite', 'lightning')}"
    print(text)
    if arguments.write:
        write("checkpoint", text)


if __name__ == "__main__":
    main()
