"""Measure the parts of the input pipeline alone, in images a second; say which is the bottleneck.

    python -m recipes.imagenet.benchmark_data --profile full --out DIR
    python -m recipes.imagenet.benchmark_data --profile small --data DIR --out DIR

Reading, decoding with the crop, and putting into batches are measured in one process; the loader
with the profile's workers; the device's part, and its training step on batches that are there
already, with the profile's model, precision and compiler. A training is as fast as the slower of
the loader and the step. The numbers are in ``data_speed.json``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from time import perf_counter

import torch
import torch.nn.functional as F

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .config import Config
from .data import Batch, Item, TrainingImages, collate, load, prepare_batch
from .model import create_model
from .solver import create_optimizer

IMAGES = 512  # of each part that is measured image by image
SECONDS = 5.0  # of the loader and the step, after they are warm


def measure(config: Config, run: recipe.Run) -> dict[str, float]:
    """Write and return images a second of each part."""
    data = load(config, run.data)
    source = data.sources["train"]
    images = TrainingImages(source, config)
    count = min(IMAGES, len(images))
    keys = [(config.epochs, index * len(images) // count) for index in range(count)]

    def read() -> None:
        for _, index in keys:
            path = run.data / source.name(index)
            if path.is_file():  # CIFAR-100's images are in memory
                path.read_bytes()

    items: list[Item] = []
    speeds = {
        "read": count / _seconds(read),
        "read, decode, crop": count / _seconds(lambda: items.extend(images[key] for key in keys)),
    }
    batch_items = list(itertools.islice(itertools.cycle(items), config.batch_size))
    speeds["put into batches"] = config.batch_size / _seconds(lambda: collate(batch_items))
    speeds[f"loader, {config.workers} workers"] = _rate(_count_images(data.training))
    batch = collate(batch_items)
    speeds["to the device, normalised"] = _rate(_prepared(batch))
    speeds["training step"] = _rate(_steps(config, batch, len(data.classes)))

    loader = speeds[f"loader, {config.workers} workers"]
    slower = "the loader" if loader < speeds["training step"] else "the training step"
    for name, speed in speeds.items():
        print(f"{name:>28}: {speed:10,.0f} images/s")
    print(f"{'bottleneck':>28}: {slower}")
    text = json.dumps(speeds, indent=2) + "\n"
    run.write("data_speed.json", lambda file: file.write(text.encode()))
    return {}


def _seconds(work: Callable[[], object]) -> float:
    began = _now()
    work()
    return _now() - began


def _now() -> float:
    if idist.device().type == "cuda":
        torch.cuda.synchronize()
    return perf_counter()


def _rate(images: Iterator[int]) -> float:
    """Return images a second of what yields counts of images, the first two passed over."""
    for _ in range(2):
        next(images)
    total, began = 0, _now()
    while _now() - began < SECONDS:
        total += next(images)
    return total / (_now() - began)


def _count_images(loader: torch.utils.data.DataLoader[Batch]) -> Iterator[int]:
    while True:
        for batch in loader:
            yield len(batch.labels)


def _prepared(batch: Batch) -> Iterator[int]:
    while True:
        prepare_batch(batch, idist.device(), non_blocking=True)
        yield len(batch.labels)


def _steps(config: Config, batch: Batch, classes: int) -> Iterator[int]:
    device = idist.device()
    net = create_model(config, classes, trained=True)
    model = idist.auto_model(net, compile=config.compile).train()
    optimizer = create_optimizer(config, net)
    autocast, scaler = recipe.mixed_precision(config.precision, device)
    x, y = prepare_batch(batch, device)
    while True:
        with autocast:
            loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
        yield len(y)


if __name__ == "__main__":
    recipe.main(measure, Config, __file__, resumable=False, owns_runs=False)
