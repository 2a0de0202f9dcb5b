"""The confusion matrix, and metrics computed from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from cookfire.metrics._class_counts import ClassCounts
from cookfire.metrics._metrics_lambda import MetricsLambda
from cookfire.metrics._values import need_whole, same

__all__ = [
    "ConfusionMatrix",
    "DiceCoefficient",
    "IoU",
    "JaccardIndex",
    "cmAccuracy",
    "cmPrecision",
    "cmRecall",
    "mIoU",
]

Average = Literal["samples", "recall", "precision"] | None
_AVERAGES = (None, "samples", "recall", "precision")


class ConfusionMatrix(ClassCounts):
    """How often each class was taken for each: rows are targets, columns are predictions.

    Targets that are no class (such as 255 for pixels to ignore) are left out of the matrix; those
    that are not whole are reported by ``compute``.

    Args:
        num_classes: how many classes there are, at least 2.
        average: None for counts; ``"samples"``: divided by the number of examples; ``"recall"``:
            each row divided by its sum, so that the diagonal is recall; ``"precision"``: each
            column by its sum.
        output_transform: turns the engine's output into scores ``(batch, num_classes, ...)`` and
            class indices ``(batch, ...)``.
        device: where counts are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        ignore_index: targets of this value are left out, also where it is a class.

    Raises:
        TypeError: ``num_classes`` or ``ignore_index`` is no whole number.
        ValueError: fewer than 2 classes, or an unknown ``average``; by ``update``, shapes that
            don't fit.

    Example:
        >>> metric = ConfusionMatrix(num_classes=2)
        >>> metric.update((torch.tensor([[0.2, 0.8], [0.9, 0.1]]), torch.tensor([1, 1])))
        >>> metric.compute()
        tensor([[0, 0],
                [1, 1]])
    """

    _settings = ("num_classes", "_ignore_index")

    def __init__(
        self,
        num_classes: int,
        average: Average = None,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        ignore_index: int | None = None,
    ) -> None:
        need_whole("num_classes", num_classes)
        if num_classes < 2:
            raise ValueError(
                f"num_classes must be at least 2, got {num_classes}; of binary scores p, "
                "output_transform makes the two of torch.stack([1 - p, p], dim=1)"
            )
        if average not in _AVERAGES:
            raise ValueError(
                f"average must be one of {', '.join(map(repr, _AVERAGES))}, got {average!r}"
            )
        self.num_classes = num_classes
        self.average = average
        self._wanted = frozenset({"matrix", "samples", ("scores", num_classes)})
        super().__init__(
            output_transform,
            device=device,
            skip_unrolling=skip_unrolling,
            ignore_index=ignore_index,
        )

    @property
    def confusion_matrix(self) -> Tensor:
        """The counts, int64; of this process, but within ``compute`` of all."""
        matrix = self._matrix()
        if matrix is None:
            return torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        return matrix[:-1]

    def compute(self) -> Tensor:
        """Return the matrix, int64, or float64 with an average.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        if self.average is None:
            return self.confusion_matrix
        if self.average == "samples":
            return self.confusion_matrix / self.samples.double()
        return self.normalize(self.confusion_matrix, self.average)

    @staticmethod
    def normalize(matrix: Tensor, average: str) -> Tensor:
        """Divide rows (``"recall"``) or columns (``"precision"``) by their sums; 0 for empty ones.

        Raises:
            ValueError: another ``average``.
        """
        if average not in ("recall", "precision"):
            raise ValueError(f"average must be 'recall' or 'precision', got {average!r}")
        return _divide(matrix, matrix.sum(1 if average == "recall" else 0, keepdim=True))


def IoU(cm: ConfusionMatrix, ignore_index: int | None = None) -> MetricsLambda:
    """Return the intersection over union of each class, TP / (TP + FP + FN), as a tensor.

    A class that is nowhere has 0.

    Args:
        cm: what it is computed from; its average must be None or ``"samples"``.
        ignore_index: a class to leave out, such as the background.

    Raises:
        TypeError: ``cm`` is no ConfusionMatrix.
        ValueError: its average does not do, or ``ignore_index`` is none of its classes.

    Example:
        >>> metric = IoU(ConfusionMatrix(num_classes=2))
        >>> metric.update((torch.tensor([[0.2, 0.8], [0.9, 0.1]]), torch.tensor([1, 1])))
        >>> metric.compute()
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    return MetricsLambda(_iou, _counts(cm), _index(cm, ignore_index))


def JaccardIndex(cm: ConfusionMatrix, ignore_index: int | None = None) -> MetricsLambda:
    """Return the Jaccard index of each class: another name of :func:`IoU`."""
    return IoU(cm, ignore_index)


def mIoU(cm: ConfusionMatrix, ignore_index: int | None = None) -> MetricsLambda:
    """Return the mean over the classes of :func:`IoU`, which see."""
    return IoU(cm, ignore_index).mean()


def DiceCoefficient(cm: ConfusionMatrix, ignore_index: int | None = None) -> MetricsLambda:
    """Return the Dice coefficient of each class, 2 TP / (2 TP + FP + FN), as a tensor.

    Arguments and errors are those of :func:`IoU`.
    """
    return MetricsLambda(_dice, _counts(cm), _index(cm, ignore_index))


def cmAccuracy(cm: ConfusionMatrix) -> MetricsLambda:
    """Return the share of examples on the diagonal."""
    return MetricsLambda(_accuracy, cm)


def cmPrecision(cm: ConfusionMatrix, average: bool = True) -> MetricsLambda:
    """Return the precision of each class as a tensor, or the mean over the classes."""
    return MetricsLambda(_precision, cm).mean() if average else MetricsLambda(_precision, cm)


def cmRecall(cm: ConfusionMatrix, average: bool = True) -> MetricsLambda:
    """Return the recall of each class as a tensor, or the mean over the classes."""
    return MetricsLambda(_recall, cm).mean() if average else MetricsLambda(_recall, cm)


def _iou(matrix: Tensor, ignored: int | None) -> Tensor:
    hits = matrix.diagonal()
    return _without(_divide(hits, matrix.sum(0) + matrix.sum(1) - hits), ignored)


def _dice(matrix: Tensor, ignored: int | None) -> Tensor:
    return _without(_divide(2 * matrix.diagonal(), matrix.sum(0) + matrix.sum(1)), ignored)


def _accuracy(matrix: Tensor) -> Tensor:
    return _divide(matrix.trace(), matrix.sum())


def _precision(matrix: Tensor) -> Tensor:
    return _divide(matrix.diagonal(), matrix.sum(0))


def _recall(matrix: Tensor) -> Tensor:
    return _divide(matrix.diagonal(), matrix.sum(1))


def _divide(part: Tensor, whole: Tensor) -> Tensor:
    """Return the quotient in float64, 0 for 0 / 0."""
    part, whole = part.double(), whole.double()
    return part / whole.masked_fill(whole == 0, 1)


def _without(values: Tensor, index: int | None) -> Tensor:
    if index is None:
        return values
    return torch.cat([values[:index], values[index + 1 :]])


def _counts(cm: ConfusionMatrix) -> ConfusionMatrix:
    if not isinstance(cm, ConfusionMatrix):
        raise TypeError(f"cm must be a ConfusionMatrix, got {cm!r}")
    if cm.average not in (None, "samples"):
        raise ValueError(f"cm must have the average None or 'samples', has {cm.average!r}")
    return cm


def _index(cm: ConfusionMatrix, ignore_index: int | None) -> int | None:
    if ignore_index is not None and ignore_index not in range(cm.num_classes):
        raise ValueError(
            f"ignore_index must be a class from 0 to {cm.num_classes - 1}, got {ignore_index!r}"
        )
    return ignore_index
