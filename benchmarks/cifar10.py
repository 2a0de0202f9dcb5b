"""What CIFAR-10's recipe costs: its data path beside per-image transforms, its loop and a bare one.

    uv run --group bench benchmarks/cifar10.py            # print the tables
    uv run --group bench benchmarks/cifar10.py --write    # and put them into benchmarks/README.md

The data are noise in CIFAR-10's shape. Each data path reads a batch of shuffled images out of
memory, pads them by reflection, crops and mirrors them by chance, and hands over tensors of bytes.
The loops train the profile tiny's net on its batches of 64: a loop's own cost shows more, the
smaller both are.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from time import process_time
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from _table import environment, interleaved, table, write
from torchvision import transforms as v1
from torchvision.transforms import v2

from cookfire import distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers import LRScheduler, ProgressBar, TableLogger, TerminateOnNan, recipe
from cookfire.metrics import RunningAverage
from recipes.cifar10.augmentation import AlbumentationsImages
from recipes.cifar10.config import Config
from recipes.cifar10.data import AugmentedImages, Batch, Images, prepare_batch
from recipes.cifar10.lookahead import Lookahead
from recipes.cifar10.model import create_model
from recipes.cifar10.solver import create_optimizer, create_schedule

COUNT, BATCH, TRANSLATE = 2_000, 500, 4
TRAINED, TRAINED_BATCH = 640, 64  # the batch of the profile tiny
DATA_TARGET, LOOP_TARGET = 8.0, 1.02


def noise(count: int) -> Images:
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=chance)
    return Images(images, torch.randint(10, (count,), generator=chance))


# Data paths


class OneByOne(Dataset[Batch]):
    """Images that a transform changes one by one, as most scripts have it."""

    def __init__(self, images: Iterable[Any], labels: Tensor, transform: Callable[..., Any]):
        self.images, self.labels, self.transform = list(images), labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.images[index]), self.labels[index]


def usual(module: Any, *last: Any) -> Callable[..., Any]:
    """Return torchvision's padding, crop and mirroring."""
    crop = module.RandomCrop(32, padding=TRANSLATE, padding_mode="reflect")
    return module.Compose([crop, module.RandomHorizontalFlip(), *last])


def data_paths(repeats: int) -> list[list[str]]:
    """Measure images a second; return the table's rows."""
    images = noise(COUNT)
    ours = AugmentedImages(images, translate=TRANSLATE, alternate_flips=False, seed=0)
    single = AlbumentationsImages(images, translate=TRANSLATE, seed=0)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.images]

    def recipes_own(dataset: Dataset[Any]) -> DataLoader[Any]:
        options = {"shuffle": True, "with_epoch": True, "collate_fn": lambda batch: batch}
        return idist.auto_dataloader(dataset, batch_size=BATCH, seed=0, **options)

    def plain(images: Iterable[Any], transform: Callable[..., Any]) -> DataLoader[Any]:
        dataset = OneByOne(images, ours.labels, transform)
        return DataLoader(dataset, batch_size=BATCH, shuffle=True)

    loaders = {
        "batches of tensors, the recipe's": recipes_own(ours),
        "albumentations, the recipe's other": recipes_own(single),
        "torchvision v1 on PIL images": plain(pictures, usual(v1, v1.PILToTensor())),
        "torchvision v2 on PIL images": plain(pictures, usual(v2, v2.PILToTensor())),
        "torchvision v2 on tensors": plain(images.images, usual(v2)),
    }

    def read(loader: DataLoader[Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in loader:
                pass

        return run

    cases = {name: read(loader) for name, loader in loaders.items()}
    seconds = interleaved(cases, repeats, process_time)
    fastest = min(value for name, value in seconds.items() if "torchvision" in name)
    rows = []
    for name, value in seconds.items():
        target = f" (at least {DATA_TARGET:.0f}x)" if name == next(iter(seconds)) else ""
        rows.append([name, f"{COUNT / value:,.0f}", f"{fastest / value:.1f}x{target}"])
    return rows


# Loops


def loops(repeats: int) -> list[list[str]]:
    """Measure an epoch of training; return the table's rows."""
    config = replace(
        recipe.load(Path(__file__).parents[1] / "recipes/cifar10/params.yaml", "tiny", Config),
        batch_size=TRAINED_BATCH,
        mlflow=False,
    )
    images = noise(TRAINED)
    normalised, _ = prepare_batch(images.first(TRAINED))
    options = {"shuffle": True, "drop_last": True, "with_epoch": True, "seed": 0}

    def parts() -> Any:
        torch.manual_seed(0)
        dataset = AugmentedImages(images, translate=2, alternate_flips=True, seed=0)
        loader = idist.auto_dataloader(
            dataset, batch_size=TRAINED_BATCH, collate_fn=lambda batch: batch, **options
        )
        net = create_model(config, normalised)
        optimizer = create_optimizer(config, net)
        # So many steps that a case never runs into the schedule's end.
        schedule = create_schedule(config, optimizer, 10_000)
        criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        return loader, net, optimizer, schedule, criterion

    def bare() -> Callable[[], None]:
        loader, net, optimizer, schedule, criterion = parts()
        means = [value.clone() for value in net.state_dict().values() if value.is_floating_point()]
        state = {"step": 0}

        def run() -> None:
            net.train()
            for batch in loader:
                x, y = prepare_batch(batch, "cpu", non_blocking=True)
                loss = criterion(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                state["step"] += 1
                if state["step"] % config.lookahead == 0:
                    kept = 0.95**5 * (state["step"] / 10_000) ** 3
                    values = [v for v in net.state_dict().values() if v.is_floating_point()]
                    torch._foreach_lerp_(means, values, 1 - kept)
                    torch._foreach_copy_(values, means)

        return run

    def recipes_own(folder: Path) -> Callable[[], None]:
        """As train.py has it, less its evaluations and TensorBoard."""
        loader, net, optimizer, schedule, criterion = parts()
        model, optimizer = idist.auto_model(net), idist.auto_optim(optimizer)
        autocast, scaler = recipe.mixed_precision(config.precision, idist.device())

        def train_step(_: Engine, batch: Batch) -> Tensor:
            x, y = prepare_batch(batch, idist.device(), non_blocking=True)
            with autocast:
                loss: Tensor = criterion(model(x), y)
            optimizer.zero_grad()
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        trainer = Engine(train_step)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda: model.train())
        trainer.add_event_handler(Events.ITERATION_COMPLETED, LRScheduler(schedule))
        trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=50))
        lookahead = Lookahead(net, config.lookahead, 10_000)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lookahead)
        RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
        ProgressBar(file=StringIO()).attach(trainer, metric_names=["loss"])
        curves = TableLogger(folder / "curves.tsv")
        curves.attach_output_handler(
            trainer, Events.EPOCH_COMPLETED, tag="training", metric_names=["loss"]
        )
        return lambda: trainer.run(loader, max_epochs=trainer.state.epoch + 1)

    with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        cases = {"a bare loop of PyTorch": bare(), "the recipe's": recipes_own(Path(folder))}
        seconds = interleaved(cases, repeats, process_time)
    limit, steps = seconds["a bare loop of PyTorch"], TRAINED // TRAINED_BATCH
    rows = []
    for name, value in seconds.items():
        target = f" (at most {LOOP_TARGET}x)" if name == "the recipe's" else ""
        rows.append([name, f"{value / steps * 1e3:.2f}", f"{value / limit:.3f}x{target}"])
    return rows


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="update benchmarks/README.md")
    parser.add_argument("--repeats", type=int, default=9, help="of each data path (9)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    data = ["augmented images on one core", "images/s", "x the fastest of torchvision"]
    loop = [f"a step of {TRAINED_BATCH} images, the net of the profile tiny", "CPU ms", "x bare"]
    text = "\n\n".join(
        [
            table(data, data_paths(arguments.repeats)),
            table(loop, loops(3 * arguments.repeats)),
            environment("torchvision", "albumentations", "pillow"),
        ]
    )
    print(text)
    if arguments.write:
        write("cifar10", text)


if __name__ == "__main__":
    main()
