"""What ImageNet's recipe costs: data beside torchvision's reference, its loop and a bare one.

    uv run --group bench benchmarks/imagenet.py            # print the tables
    uv run --group bench benchmarks/imagenet.py --write    # and put them into benchmarks/README.md

The images are smooth noise in JPEGs of 500x375 pixels, about the mean of ImageNet's. The reference
is torchvision's ImageFolder with its transforms of PIL images, as its training script has them. All
read, decode, crop, mirror and put into batches on one core, without workers. The reference
normalises, too, where the recipe hands over bytes, for the device to do it: so it is measured
without that, as its workers work, and with it on the same core.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from _table import environment, interleaved, table, write
from torchvision import transforms as v1
from torchvision.datasets import ImageFolder

from cookfire import distributed as idist
from cookfire.engine import Events, create_supervised_trainer
from cookfire.handlers import EMAHandler, LRScheduler, ProgressBar, TerminateOnNan, recipe
from cookfire.metrics import RunningAverage
from recipes.imagenet.config import Config
from recipes.imagenet.corrupt import CorruptImages
from recipes.imagenet.data import MEAN, STD, Batch, load, prepare_batch
from recipes.imagenet.model import create_model
from recipes.imagenet.solver import create_optimizer, create_schedule
from recipes.imagenet.speed import Speed

COUNT, BATCH, CLASSES = 96, 32, 4
DATA_TARGET, LOOP_TARGET = 1.5, 1.02
PARAMS = Path(__file__).parents[1] / "recipes/imagenet/params.yaml"


def write_images(folder: Path) -> None:
    chance = np.random.RandomState(0)
    for split in ("train", "val"):
        for number in range(COUNT):
            coarse = chance.randint(0, 256, size=(48, 64, 3)).astype(np.uint8)
            image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
            path = folder / split / f"class{number % CLASSES}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=90)


def configured(**changes: Any) -> Config:
    config = recipe.load(PARAMS, "tiny", Config)
    return replace(config, batch_size=BATCH, environment={}, mlflow=False, **changes)


def data_paths(folder: Path, repeats: int) -> list[list[str]]:
    """Measure images a second; return the table's rows."""
    rows = []
    for size in (224, 160, 64):
        config = configured(size=size, validation_size=size, smallest_crop=0.08)
        ours = load(config, folder).training
        steps = [v1.RandomResizedCrop(size), v1.RandomHorizontalFlip(), v1.ToTensor()]
        reference = ImageFolder(
            str(folder / "train"), v1.Compose([*steps, v1.Normalize(MEAN, STD)])
        )
        theirs = DataLoader(reference, batch_size=BATCH, shuffle=True, drop_last=True)

        def run_ours(loader: DataLoader[Batch] = ours) -> None:
            for _ in loader:
                pass

        def run_all(loader: DataLoader[Batch] = ours) -> None:
            for batch in loader:
                prepare_batch(batch)

        def run_theirs(loader: DataLoader[Any] = theirs) -> None:
            for _ in loader:
                pass

        cases = {
            "the recipe's": run_ours,
            "and normalised on that core": run_all,
            "torchvision's reference": run_theirs,
        }
        seconds = interleaved(cases, repeats, process_time)
        slow = seconds["torchvision's reference"]
        for name, value in seconds.items():
            target = f" (at least {DATA_TARGET}x)" if "recipe" in name else ""
            shown = f"{slow / value:.1f}x{target}"
            rows.append([f"{size} pixels, {name}", f"{COUNT / value:,.0f}", shown])
    return rows


def loops(folder: Path, repeats: int) -> list[list[str]]:
    """Measure an epoch of training; return the table's rows."""
    config = configured(size=64, validation_size=64, ema=0.01)
    data = load(config, folder)
    criterion = nn.CrossEntropyLoss()

    def parts() -> Any:
        torch.manual_seed(0)
        net = create_model(config, CLASSES)
        optimizer = create_optimizer(config, net)
        # So many steps that a case never runs into the schedule's end.
        return net, optimizer, create_schedule(config, optimizer, 10_000)

    # The same for both, and nothing but the loop is measured; thirty steps an epoch.
    batches = list(data.training) * 10

    def bare() -> Callable[[], None]:
        net, optimizer, schedule = parts()
        average = [value.detach().clone() for value in net.parameters()]
        ours, theirs = [b.clone() for b in net.buffers()], list(net.buffers())

        def run() -> None:
            net.train()
            for batch in batches:
                x, y = prepare_batch(batch, "cpu", non_blocking=True)
                optimizer.zero_grad()
                criterion(net(x), y).backward()
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    torch._foreach_lerp_(average, list(net.parameters()), config.ema)
                    torch._foreach_copy_(ours, theirs)

        return run

    def recipes_own() -> Callable[[], None]:
        """As train.py has it, less its evaluations and loggers."""
        net, optimizer, schedule = parts()
        model, optimizer = idist.auto_model(net), idist.auto_optim(optimizer)
        trainer = create_supervised_trainer(
            model,
            optimizer,
            criterion,
            device="cpu",
            non_blocking=True,
            prepare_batch=prepare_batch,
        )
        LRScheduler(schedule).attach(trainer)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=50))
        EMAHandler(net, momentum=config.ema).attach(trainer)
        RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
        speed = Speed(BATCH, 10_000)
        speed.attach(trainer)
        bar = ProgressBar(file=StringIO())
        bar.attach(trainer, metric_names=["loss"], output_transform=speed.values)
        CorruptImages(data.sources).attach(trainer, "train")
        return lambda: trainer.run(batches, max_epochs=trainer.state.epoch + 1)

    cases = {"a bare loop of PyTorch": bare(), "the recipe's": recipes_own()}
    with redirect_stderr(StringIO()):
        seconds = interleaved(cases, repeats, process_time)
    limit = seconds["a bare loop of PyTorch"]
    rows = []
    for name, value in seconds.items():
        target = f" (at most {LOOP_TARGET}x)" if name == "the recipe's" else ""
        rows.append([name, f"{value / len(batches) * 1e3:.1f}", f"{value / limit:.3f}x{target}"])
    return rows


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="update benchmarks/README.md")
    parser.add_argument("--repeats", type=int, default=7, help="of each data path (7)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    data = ["JPEGs of 500x375 to batches, one core", "images/s", "x the reference"]
    loop = [
        f"a step of {BATCH} images of 64 pixels, the net of tiny",
        "CPU ms",
        "x bare",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        text = "\n\n".join(
            [
                table(data, data_paths(folder, arguments.repeats)),
                table(loop, loops(folder, 6 * arguments.repeats)),
                environment("torchvision", "timm", "pillow"),
            ]
        )
    print(text)
    if arguments.write:
        write("imagenet", text)


if __name__ == "__main__":
    main()
