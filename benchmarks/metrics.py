"""What metrics cost: Cookfire, its peers, and the limit, in one run.

    uv run --group bench benchmarks/metrics.py            # print the tables
    uv run --group bench benchmarks/metrics.py --write    # and put them into benchmarks/README.md
    uv run --group bench benchmarks/metrics.py accuracy   # only cases whose name holds the word

The limit is the hand-written tensor expression beside each case. Figures are medians of
interleaved repeats in one process, one thread; what counts is the ratio to the limit. Every
contender's value is compared with the limit's before it is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import ignite.engine
import ignite.metrics
import ignite.metrics.regression
import torch
import torch.distributed as dist
import torcheval.metrics
import torcheval.metrics.toolkit
import torchmetrics
import torchmetrics.classification
import torchmetrics.image
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy

sys.path.insert(0, str(Path(__file__).parent))
from _table import environment, table, write

import cookfire.distributed as idist
import cookfire.engine
import cookfire.metrics

TARGET = 1.3
TARGET_OF_RANKS = 1.5
PEERS = ("ignite", "torchmetrics", "torcheval")


class Contender(NamedTuple):
    """Something that is updated, and computed."""

    update: Callable[[], Any]
    compute: Callable[[], Any]
    """Returns a number, or several."""
    reset: Callable[[], Any]


Contenders = dict[str, Contender]


def attached(metrics: dict[str, cookfire.metrics.Metric], batch: Any) -> Contender:
    """Return metrics as an engine has them: what its iteration and its epoch's end call."""
    engine = cookfire.engine.Engine(lambda engine, batch: batch)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    owner = next(iter(engine.handlers())).__self__
    engine.state.output = batch

    def compute() -> list[Any]:
        owner.completed(engine)
        return [engine.state.metrics[name] for name in metrics]

    return Contender(
        lambda: owner.iteration_completed(engine), compute, lambda: owner.started(engine)
    )


def one(metric: Any, *batch: Any) -> Contender:
    """Return one metric of ignite's or Cookfire's form."""
    return Contender(lambda: metric.update(batch), metric.compute, metric.reset)


def several(metrics: list[Any], *batch: Any) -> Contender:
    """Return metrics of ignite's form that are updated one after the other."""

    def update() -> None:
        for metric in metrics:
            metric.update(batch)

    def reset() -> None:
        for metric in metrics:
            metric.reset()

    return Contender(update, lambda: [metric.compute() for metric in metrics], reset)


def of_torchmetrics(metric: Any, *batch: Any) -> Contender:
    """Return one of torchmetrics, or a collection; its cache of the value is off."""
    return Contender(lambda: metric.update(*batch), lambda: values_of(metric), metric.reset)


def values_of(metric: Any) -> Any:
    if isinstance(metric, torchmetrics.MetricCollection):
        return [float(value) for value in metric.compute().values()]
    value = metric.compute()
    return value.item() if value.ndim == 0 else value


def of_torcheval(metrics: list[Any], *batch: Any) -> Contender:
    """Return metrics of torcheval."""

    def update() -> None:
        for metric in metrics:
            metric.update(*batch)

    def compute() -> Any:
        values = [metric.compute() for metric in metrics]
        return [value.item() for value in values] if values[0].ndim == 0 else values[0]

    def reset() -> None:
        for metric in metrics:
            metric.reset()

    return Contender(update, compute, reset)


class Limit:
    """A hand-written expression: a function of the batch that is summed, and one of the sums."""

    def __init__(
        self, sums: Callable[..., tuple[Any, ...]], value: Callable[..., Any], *batch: Any
    ) -> None:
        self.total: tuple[Any, ...] | None = None

        def update() -> None:
            new = sums(*batch)
            total = self.total
            self.total = (
                new if total is None else tuple(a + b for a, b in zip(total, new, strict=True))
            )

        def compute() -> Any:
            return value(*(self.total or ()))

        def reset() -> None:
            self.total = None

        self.contender = Contender(update, compute, reset)


def limit(
    sums: Callable[..., tuple[Any, ...]], value: Callable[..., Any], *batch: Any
) -> Contender:
    return Limit(sums, value, *batch).contender


# The cases


def classes(batch: int, number: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, number), torch.randint(number, (batch,))


def accuracy(batch: int, number: int) -> Contenders:
    data = classes(batch, number)

    def sums(scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        return (scores.argmax(1) == y).sum(), y.numel()

    return {
        "limit": limit(sums, lambda right, count: right.item() / count, *data),
        "Cookfire": one(cookfire.metrics.Accuracy(), *data),
        "ignite": one(ignite.metrics.Accuracy(), *data),
        "torchmetrics": of_torchmetrics(
            torchmetrics.classification.MulticlassAccuracy(
                number, average="micro", compute_with_cache=False
            ),
            *data,
        ),
        "torcheval": of_torcheval([torcheval.metrics.MulticlassAccuracy()], *data),
    }


def precision_recall(batch: int, number: int) -> Contenders:
    data = classes(batch, number)

    def sums(scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        pairs = torch.add(scores.argmax(1), y, alpha=number)
        return (torch.bincount(pairs, minlength=number**2),)

    def value(flat: Tensor) -> list[float]:
        matrix = flat.view(number, number).double()
        hits, predicted, actual = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
        precision, recall = hits / predicted.clamp(min=1), hits / actual.clamp(min=1)
        f1 = 2 * hits / (predicted + actual).clamp(min=1)
        return [precision.mean().item(), recall.mean().item(), f1.mean().item()]

    tm = torchmetrics.classification
    settings: dict[str, Any] = {"average": "macro", "compute_with_cache": False}
    return {
        "limit": limit(sums, value, *data),
        "Cookfire": attached(
            {
                "precision": cookfire.metrics.Precision(average=True),
                "recall": cookfire.metrics.Recall(average=True),
                "f1": cookfire.metrics.Fbeta(1.0),
            },
            data,
        ),
        "ignite": several(
            [
                ignite.metrics.Precision(average=True),
                ignite.metrics.Recall(average=True),
                ignite.metrics.Fbeta(1.0),
            ],
            *data,
        ),
        "torchmetrics": of_torchmetrics(
            torchmetrics.MetricCollection(
                {
                    "1": tm.MulticlassPrecision(number, **settings),
                    "2": tm.MulticlassRecall(number, **settings),
                    "3": tm.MulticlassF1Score(number, **settings),
                }
            ),
            *data,
        ),
        "torcheval": of_torcheval(
            [
                torcheval.metrics.MulticlassPrecision(num_classes=number, average="macro"),
                torcheval.metrics.MulticlassRecall(num_classes=number, average="macro"),
                torcheval.metrics.MulticlassF1Score(num_classes=number, average="macro"),
            ],
            *data,
        ),
    }


def top5(batch: int, number: int) -> Contenders:
    data = classes(batch, number)

    def sums(scores: Tensor, y: Tensor) -> tuple[Any, ...]:
        of_y = scores.gather(1, y.unsqueeze(1))
        higher = torch.gt(scores, of_y, out=torch.empty_like(scores))  # faster than into bools
        return (higher.sum(1) < 5).sum(), y.numel()

    return {
        "limit": limit(sums, lambda right, count: right.item() / count, *data),
        "Cookfire": one(cookfire.metrics.TopKCategoricalAccuracy(5), *data),
        "ignite": one(ignite.metrics.TopKCategoricalAccuracy(5), *data),
        "torchmetrics": of_torchmetrics(
            torchmetrics.classification.MulticlassAccuracy(
                number, average="micro", top_k=5, compute_with_cache=False
            ),
            *data,
        ),
        "torcheval": of_torcheval([torcheval.metrics.MulticlassAccuracy(k=5)], *data),
    }


def segmentation() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(4, 21, 256, 256), torch.randint(21, (4, 256, 256))


def flat(scores: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What torcheval takes, made before the clock runs."""
    return scores.movedim(1, -1).reshape(-1, scores.shape[1]).contiguous(), y.flatten()


def by_planes(scores: Tensor, y: Tensor) -> tuple[Any, ...]:
    """The best class of each pixel, chunk by chunk so that it stays in the cache; then pairs."""
    number, step = scores.shape[1], 65536
    matrix = 0
    for image, target in zip(scores.flatten(2), y.flatten(1), strict=True):
        for start in range(0, target.numel(), step):
            chunk = image[:, start : start + step]
            best = chunk[0].clone()
            index = torch.zeros(best.shape, dtype=torch.uint8)
            for of_class in range(1, number):
                plane = chunk[of_class]
                index = torch.maximum(index, (plane > best).view(torch.uint8).mul_(of_class))
                torch.maximum(best, plane, out=best)
            pairs = torch.add(index, target[start : start + step], alpha=number)
            matrix = matrix + torch.bincount(pairs, minlength=number**2)
    return (matrix,)


def confusion_matrix() -> Contenders:
    data = segmentation()
    return {
        "limit": limit(by_planes, lambda flat: flat.view(21, 21), *data),
        "Cookfire": one(cookfire.metrics.ConfusionMatrix(21), *data),
        "ignite": one(ignite.metrics.ConfusionMatrix(21), *data),
        "torchmetrics": of_torchmetrics(
            torchmetrics.classification.MulticlassConfusionMatrix(21, compute_with_cache=False),
            *data,
        ),
        "torcheval": of_torcheval([torcheval.metrics.MulticlassConfusionMatrix(21)], *flat(*data)),
    }


def mean_iou() -> Contenders:
    data = segmentation()

    def value(flat: Tensor) -> float:
        matrix = flat.view(21, 21).double()
        hits = matrix.diagonal()
        union = matrix.sum(0) + matrix.sum(1) - hits
        mean: float = (hits / union.clamp(min=1)).mean().item()
        return mean

    return {
        "limit": limit(by_planes, value, *data),
        "Cookfire": one(cookfire.metrics.mIoU(cookfire.metrics.ConfusionMatrix(21)), *data),
        "ignite": one(ignite.metrics.mIoU(ignite.metrics.ConfusionMatrix(21)), *data),
        "torchmetrics": of_torchmetrics(
            torchmetrics.classification.MulticlassJaccardIndex(21, compute_with_cache=False), *data
        ),
    }


def regression(number: int) -> Contenders:
    torch.manual_seed(0)
    data = torch.randn(number), torch.randn(number)
    ours = cookfire.metrics

    def sums(y_pred: Tensor, y: Tensor) -> tuple[Any, ...]:
        error = y_pred - y
        return (
            error.square().sum(dtype=torch.float64),
            error.abs().sum(dtype=torch.float64),
            y.sum(dtype=torch.float64),
            y.square().sum(dtype=torch.float64),
            y.numel(),
        )

    def value(square: Tensor, absolute: Tensor, total: Tensor, of_y: Tensor, n: int) -> list[float]:
        spread = of_y - total**2 / n
        return [(square / n).item(), (absolute / n).item(), (1 - square / spread).item()]

    settings: dict[str, Any] = {"compute_with_cache": False}
    return {
        "limit": limit(sums, value, *data),
        "Cookfire": attached(
            {
                "mse": ours.MeanSquaredError(),
                "mae": ours.MeanAbsoluteError(),
                "r2": ours.regression.R2Score(),
            },
            data,
        ),
        "ignite": several(
            [
                ignite.metrics.MeanSquaredError(),
                ignite.metrics.MeanAbsoluteError(),
                ignite.metrics.regression.R2Score(),
            ],
            *data,
        ),
        "torchmetrics": of_torchmetrics(
            torchmetrics.MetricCollection(
                {
                    "1": torchmetrics.MeanSquaredError(**settings),
                    "2": torchmetrics.MeanAbsoluteError(**settings),
                    "3": torchmetrics.R2Score(**settings),
                }
            ),
            *data,
        ),
    }


def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    y = torch.rand(4, 3, 256, 256)
    return (y + 0.1 * torch.randn(y.shape)).clamp(0, 1), y


def psnr() -> Contenders:
    data = images()

    def sums(y_pred: Tensor, y: Tensor) -> tuple[Any, ...]:
        error = (y_pred - y).square_().mean((1, 2, 3), dtype=torch.float64)
        return (-10 * error.log10()).sum(), len(y)

    return {
        "limit": limit(sums, lambda total, count: (total / count).item(), *data),
        "Cookfire": one(cookfire.metrics.PSNR(data_range=1.0), *data),
        "ignite": one(ignite.metrics.PSNR(data_range=1.0), *data),
        "torchmetrics": of_torchmetrics(
            torchmetrics.image.PeakSignalNoiseRatio(
                data_range=1.0,
                dim=(1, 2, 3),
                reduction="elementwise_mean",
                compute_with_cache=False,
            ),
            *data,
        ),
    }


def ssim() -> Contenders:
    data = images()
    offsets = torch.arange(11) - 5.0
    window = torch.exp(-((offsets / 1.5) ** 2) / 2)
    window /= window.sum()

    def blur(planes: Tensor) -> Tensor:
        """A Gaussian is separable: a column, then a row."""
        flat = planes.flatten(0, 1).unsqueeze(1)
        return conv2d(conv2d(flat, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11))

    def sums(y_pred: Tensor, y: Tensor) -> tuple[Any, ...]:
        count = len(y)
        a, b = (
            torch.nn.functional.pad(y_pred, (5,) * 4, "reflect"),
            torch.nn.functional.pad(y, (5,) * 4, "reflect"),
        )
        mu_a, mu_b, aa, bb, ab = blur(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
        mu_aa, mu_bb, mu_ab = mu_a * mu_a, mu_b * mu_b, mu_a * mu_b
        c1, c2 = 0.01**2, 0.03**2
        top = (2 * mu_ab + c1) * (2 * (ab - mu_ab) + c2)
        bottom = (mu_aa + mu_bb + c1) * ((aa - mu_aa) + (bb - mu_bb) + c2)
        return (top / bottom).mean(dtype=torch.float64) * count, count

    return {
        "limit": limit(sums, lambda total, count: (total / count).item(), *data),
        "Cookfire": one(cookfire.metrics.SSIM(data_range=1.0), *data),
        "ignite": one(ignite.metrics.SSIM(data_range=1.0), *data),
        "torchmetrics": of_torchmetrics(
            torchmetrics.image.StructuralSimilarityIndexMeasure(
                data_range=1.0, compute_with_cache=False
            ),
            *data,
        ),
    }


def binary_scores(number: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    y = torch.randint(2, (number,))
    return ((torch.randn(number) + y) * 2).sigmoid(), y


def ranked(scores: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Positives and examples at each distinct score, descending: one sort of a packed key."""
    keys = scores.view(torch.int32).neg().mul_(2).add_(y.int()).sort().values
    ends = torch.unique_consecutive(keys >> 1, return_counts=True)[1].cumsum(0)
    return (keys & 1).cumsum(0).index_select(0, ends - 1), ends


class Last:
    """Keeps a batch, as a metric of the whole history does."""

    def __init__(self, value: Callable[[Tensor, Tensor], float], *batch: Tensor) -> None:
        self.kept: list[tuple[Tensor, ...]] = []

        def compute() -> float:
            scores, y = (torch.cat(tensors) for tensors in zip(*self.kept, strict=True))
            return value(*ranked(scores, y))

        self.contender = Contender(
            lambda: self.kept.append(tuple(tensor.clone() for tensor in batch)),
            compute,
            self.kept.clear,
        )


def roc_auc(number: int) -> Contenders:
    data = binary_scores(number)

    def area(hits: Tensor, ends: Tensor) -> float:
        false = ends - hits
        twice = torch.dot(false[1:] - false[:-1], hits[1:] + hits[:-1]) + false[0] * hits[0]
        return twice.item() / (2 * hits[-1] * false[-1]).item()

    return {
        "limit": Last(area, *data).contender,
        "Cookfire": one(cookfire.metrics.ROC_AUC(), *data),
        "ignite": uncached(ignite.metrics.ROC_AUC(), *data),
        "torchmetrics": of_torchmetrics(
            torchmetrics.classification.BinaryAUROC(compute_with_cache=False), *data
        ),
        "torcheval": of_torcheval([torcheval.metrics.BinaryAUROC()], *data),
    }


def average_precision(number: int) -> Contenders:
    data = binary_scores(number)

    def area(hits: Tensor, ends: Tensor) -> float:
        gained = hits.diff(prepend=hits.new_zeros(1)).double()
        return torch.dot(gained, hits / ends.double()).item() / hits[-1].item()

    return {
        "limit": Last(area, *data).contender,
        "Cookfire": one(cookfire.metrics.AveragePrecision(), *data),
        "ignite": uncached(ignite.metrics.AveragePrecision(), *data),
        "torchmetrics": of_torchmetrics(
            torchmetrics.classification.BinaryAveragePrecision(compute_with_cache=False), *data
        ),
        "torcheval": of_torcheval([torcheval.metrics.BinaryAUPRC()], *data),
    }


def uncached(metric: Any, *batch: Any) -> Contender:
    """Return an EpochMetric of ignite's that computes each time."""

    def compute() -> Any:
        metric._result = None
        return metric.compute()

    return Contender(lambda: metric.update(batch), compute, metric.reset)


CASES: dict[str, Callable[[], Contenders]] = {
    "accuracy 128x10": lambda: accuracy(128, 10),
    "accuracy 256x1000": lambda: accuracy(256, 1000),
    "precision, recall, F1 128x10": lambda: precision_recall(128, 10),
    "top-5 256x1000": lambda: top5(256, 1000),
    "confusion matrix 4x21x256x256": confusion_matrix,
    "mIoU 4x21x256x256": mean_iou,
    "MSE, MAE, R2 of 100,000": lambda: regression(100_000),
    "MSE, MAE, R2 of 128": lambda: regression(128),
    "PSNR 4x3x256x256": psnr,
    "SSIM 4x3x256x256": ssim,
    "ROC AUC of 100,000": lambda: roc_auc(100_000),
    "average precision of 100,000": lambda: average_precision(100_000),
}


# Timing


def microseconds(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return medians; a turn is short, so that on a busy machine most are not interrupted."""
    loops = {}
    for name, call in calls.items():
        begin = perf_counter()
        for _ in range(3):
            call()
        loops[name] = max(1, math.ceil(1e-3 / ((perf_counter() - begin) / 3)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            rounds = range(loops[name])
            begin = perf_counter()
            for _ in rounds:
                call()
            seconds[name].append((perf_counter() - begin) / loops[name])
    return {name: statistics.median(values) * 1e6 for name, values in seconds.items()}


def check(case: str, contenders: Contenders) -> None:
    """Raise if a contender's value is not the limit's."""
    expected = None
    for name, contender in contenders.items():
        contender.reset()
        contender.update()
        contender.update()
        value = torch.as_tensor(contender.compute(), dtype=torch.float64).flatten()
        expected = value if expected is None else expected
        tolerance = 1e-2 if case.startswith("SSIM") else 1e-4  # windows, and borders, differ
        if not torch.allclose(value, expected, rtol=tolerance, atol=tolerance):
            raise SystemExit(f"{case}: {name} gives {value}, the limit {expected}")


def measure(case: str, make: Callable[[], Contenders], repeats: int) -> list[list[str]]:
    """Return two rows of the table: update and compute."""
    try:
        contenders = make()
    except AttributeError as error:
        print(f"{case}: left out, {error}", file=sys.stderr)
        return []
    check(case, contenders)
    holds_all = case.startswith(("ROC", "average"))

    def updating(contender: Contender) -> Callable[[], Any]:
        if not holds_all:
            return contender.update
        return lambda: (contender.reset(), contender.update())

    rows = []
    updates = microseconds({name: updating(c) for name, c in contenders.items()}, repeats)
    computes = microseconds({name: c.compute for name, c in contenders.items()}, repeats)
    together = {name: updates[name] + computes[name] for name in contenders}
    for what, medians in (("update", updates), ("compute", computes), ("both", together)):
        bare = medians["limit"]
        ratios = [f"{medians[peer] / bare:.2f}x" if peer in medians else "" for peer in PEERS]
        ours = f"**{medians['Cookfire'] / bare:.2f}x**"
        rows.append([case, what, f"{bare:,.1f}", ours, *ratios])
    return rows


# Two processes


def evaluation(rank: int) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(rank)
    return [(torch.randn(128, 10), torch.randint(10, (128,))) for _ in range(4)]


def fused(data: list[tuple[Tensor, Tensor]]) -> Callable[[], Any]:
    """Six metrics by hand: one vector of sums, one all_reduce."""

    def run() -> list[float]:
        sums = torch.zeros(103, dtype=torch.float64)
        for scores, y in data:
            pairs = torch.add(scores.argmax(1), y, alpha=10)
            sums[:100] += torch.bincount(pairs, minlength=100)
            sums[100] += cross_entropy(scores, y) * len(y)
            rank = (scores > scores.gather(1, y.unsqueeze(1))).sum(1)
            sums[101] += (rank < 5).sum()
            sums[102] += len(y)
        dist.all_reduce(sums)
        matrix = sums[:100].view(10, 10)
        hits, predicted, actual = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
        precision, recall = hits / predicted.clamp(min=1), hits / actual.clamp(min=1)
        f1 = 2 * hits / (predicted + actual).clamp(min=1)
        shares = (hits.sum() / sums[102], sums[101] / sums[102], sums[100] / sums[102])
        return torch.stack(
            [shares[0], precision.mean(), recall.mean(), f1.mean(), *shares[1:]]
        ).tolist()

    return run


def in_an_engine(engines: Any, metrics: Any, data: list[Any]) -> Callable[[], Any]:
    """Six metrics attached to an evaluator, Cookfire's or ignite's."""
    engine = engines.Engine(lambda engine, batch: batch)
    six = {
        "accuracy": metrics.Accuracy(),
        "precision": metrics.Precision(average=True),
        "recall": metrics.Recall(average=True),
        "f1": metrics.Fbeta(1.0),
        "top5": metrics.TopKCategoricalAccuracy(5),
        "loss": metrics.Loss(cross_entropy),
    }
    for name, metric in six.items():
        metric.attach(engine, name)

    def run() -> list[float]:
        engine.run(data)
        return [engine.state.metrics[name] for name in six]

    return run


def with_torchmetrics(data: list[Any]) -> Callable[[], Any]:
    """Six metrics of torchmetrics; a mean stands for the loss."""
    tm = torchmetrics.classification
    collection = torchmetrics.MetricCollection(
        {
            "1": tm.MulticlassAccuracy(10, average="micro"),
            "2": tm.MulticlassPrecision(10, average="macro"),
            "3": tm.MulticlassRecall(10, average="macro"),
            "4": tm.MulticlassF1Score(10, average="macro"),
            "5": tm.MulticlassAccuracy(10, average="micro", top_k=5),
        }
    )
    loss = torchmetrics.MeanMetric()

    def run() -> list[float]:
        collection.reset()
        loss.reset()
        for scores, y in data:
            collection.update(scores, y)
            loss.update(cross_entropy(scores, y), len(y))
        return [float(value) for value in (*collection.compute().values(), loss.compute())]

    return run


def with_torcheval(data: list[Any]) -> Callable[[], Any]:
    """Six metrics of torcheval; a mean stands for the loss."""
    te = torcheval.metrics
    six: dict[str, Any] = {
        "accuracy": te.MulticlassAccuracy(),
        "precision": te.MulticlassPrecision(num_classes=10, average="macro"),
        "recall": te.MulticlassRecall(num_classes=10, average="macro"),
        "f1": te.MulticlassF1Score(num_classes=10, average="macro"),
        "top5": te.MulticlassAccuracy(k=5),
    }
    loss = te.Mean()

    def run() -> list[float]:
        for metric in (*six.values(), loss):
            metric.reset()
        for scores, y in data:
            for metric in six.values():
                metric.update(scores, y)
            loss.update(cross_entropy(scores, y), weight=len(y))
        values = te.toolkit.sync_and_compute_collection({**six, "loss": loss})
        return [float(value) for value in (values or {}).values()]  # for the first rank only

    return run


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """Count the collectives called within."""
    names = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "broadcast")
    originals = {name: getattr(dist, name) for name in (*names, "gather_object", "barrier")}
    called: list[str] = []

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return originals[name](*args, **kwargs)

        return call

    for name in originals:
        setattr(dist, name, counting(name))
    try:
        yield called
    finally:
        for name, function in originals.items():
            setattr(dist, name, function)


def on_a_rank(rank: int, repeats: int, results: dict[str, Any]) -> None:
    """Time all contenders; both ranks take the same turns."""
    torch.set_num_threads(1)
    with quiet():
        data = evaluation(rank)
        runs = {
            "limit": fused(data),
            "Cookfire": in_an_engine(cookfire.engine, cookfire.metrics, data),
            "ignite": in_an_engine(ignite.engine, ignite.metrics, data),
            "torchmetrics": with_torchmetrics(data),
            "torcheval": with_torcheval(data),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        collectives, expected = {}, None
        for name, run in runs.items():
            with counted() as called:
                value = torch.tensor(run())
            collectives[name] = len(called)
            expected = value if expected is None else expected
            if len(value) and not torch.allclose(value, expected, rtol=1e-4):
                raise SystemExit(f"{name} gives {value}, the limit {expected}")
        for _ in range(repeats):
            for name, run in runs.items():
                dist.barrier()
                begin = perf_counter()
                run()
                seconds[name].append(perf_counter() - begin)
    if rank == 0:
        medians = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
        results.update(milliseconds=medians, collectives=collectives)


def two_processes(repeats: int) -> list[list[str]]:
    """Measure an evaluation on two processes; return the table's rows."""
    import torch.multiprocessing as mp

    with mp.Manager() as manager:
        results = manager.dict()
        idist.spawn("gloo", on_a_rank, (repeats, results), nproc_per_node=2)
        milliseconds, collectives = results["milliseconds"], results["collectives"]
    bare = milliseconds["limit"]
    return [
        [name, str(collectives[name]), f"{value:.2f}", f"{value / bare:.2f}x"]
        for name, value in milliseconds.items()
    ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the peers log and warn about."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("words", nargs="*", help="measure only cases whose name holds one of them")
    parser.add_argument("--write", action="store_true", help="update benchmarks/README.md")
    parser.add_argument("--repeats", type=int, default=31, help="of each measurement (31)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def asked(name: str) -> bool:
        return not arguments.words or any(word in name for word in arguments.words)

    with quiet(), torch.no_grad():
        rows = list(
            itertools.chain.from_iterable(
                measure(case, make, arguments.repeats)
                for case, make in CASES.items()
                if asked(case)
            )
        )
    parts = []
    if rows:
        parts.append(table(["metric", "", "limit, µs", "Cookfire", *PEERS], rows))
    if asked("two processes"):
        header = ["an evaluation on two processes (4 batches, 6 metrics)", "collectives", "ms"]
        parts.append(table([*header, "x limit"], two_processes(2 * arguments.repeats)))
    parts.append(environment("pytorch-ignite", "torchmetrics", "torcheval"))
    text = "\n\n".join(parts)
    print(text)
    if arguments.write:
        write("metrics", text)


if __name__ == "__main__":
    main()
