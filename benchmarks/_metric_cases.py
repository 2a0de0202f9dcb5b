"""The cases of metrics.py: each metric of each library beside the expression written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ignite.metrics
import ignite.metrics.regression
import torch
import torcheval.metrics
import torchmetrics
import torchmetrics.classification
import torchmetrics.image
from _contenders import (
    Contender,
    Contenders,
    attached,
    limit,
    of_torcheval,
    of_torchmetrics,
    one,
    several,
    uncached,
)
from torch import Tensor
from torch.nn.functional import conv2d

import cookfire.metrics


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
