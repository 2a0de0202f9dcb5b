"""Precision and recall: two readings of the same counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cookfire.metrics._classification import (
    Classification,
    Task,
    count_not_binary,
    predict_classes,
)
from cookfire.metrics._counting import count_binary, count_pairs, count_per_class
from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import same, to_plain

Average = bool | Literal["macro", "micro", "weighted", "samples"] | None

_AVERAGES = (False, None, True, "macro", "micro", "weighted", "samples")
_FEW = 32
"""Classes up to which the confusion matrix is counted, which is the faster way for few."""


class PrecisionRecall(Classification):
    """The counts of which precision, recall and F-scores are made.

    All metrics of one engine that need them, with equal settings, share them.
    """

    counts = MetricState(torch.int64, shape=None)
    """For a binary task or few classes ``[y, y_pred]``; for each label or each of many classes
    ``[true positives, predicted, actual]``. Besides, what is no class: see ``_counting``."""
    ratios = MetricState(torch.float64, shape=None)
    """Sums over samples of precision and of recall; with ``average="samples"`` only."""
    count = MetricState(torch.int64)
    task = MetricState(torch.int64, reduction="max")

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        average: Average = False,
        is_multilabel: bool = False,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        check: bool = False,
    ) -> None:
        if not any(average is known or average == known for known in _AVERAGES) or (
            isinstance(average, int) and not isinstance(average, bool)
        ):
            raise ValueError(
                f"average must be one of {', '.join(map(repr, _AVERAGES))}, got {average!r}"
            )
        self._average: Average = "macro" if average is True else average
        super().__init__(output_transform, is_multilabel, device, skip_unrolling, check=check)

    def update(self, output: Sequence[Tensor]) -> None:
        """Count a batch's hits and misses."""
        y_pred, y = output
        task, classes = self._find_task(y_pred, y)
        if task != Task.MULTILABEL and self._average == "samples":
            raise ValueError(
                f"{type(self).__name__}(average='samples') is for multilabel input, got "
                f"{task.name.lower()} input; is_multilabel=True, or another average"
            )
        if task == Task.MULTICLASS:
            predicted = self._once("classes", y_pred, predict_classes)
            count = count_pairs if classes <= _FEW else count_per_class
            self._accumulate(task, y.numel(), counts=count(predicted, y, classes))
            return
        scores = {"not_binary": count_not_binary(y_pred)} if y_pred.is_floating_point() else {}
        if task == Task.BINARY:
            self._accumulate(task, y.numel(), counts=count_binary(y_pred, y), **scores)
            return
        predicted, actual = y_pred.bool(), y.bool()
        if self._average == "samples":
            counted = {"ratios": _sum_ratios(predicted, actual)}
        else:
            both = torch.stack([predicted & actual, predicted, actual])
            counted = {"counts": both.sum([1, *range(3, both.ndim)])}
        self._accumulate(task, y.numel() // classes, **counted, **scores)

    def _accumulate(self, task: Task, count: int, **counted: Tensor) -> None:
        if self._store.local.values["task"] is None:
            self.accumulate(task=int(task))
        self.accumulate(count=count, **counted)

    def compute(self) -> float | Tensor:
        """Return a float; for ``average`` None or False a tensor of a value per class or label.

        Of a binary task ``average=False`` gives the value of the class 1 alone, a tensor without
        dimensions, so that functions of tensors can be composed with it.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        if self._average == "samples":
            return self.ratios[self._row] / self.count
        hits, predicted, actual = self._per_class()
        found = self._denominator(predicted, actual)
        match self._average:
            case "micro":
                return _ratio(hits.sum(), found.sum())
            case "macro":
                return _ratio(hits, found).mean()
            case "weighted":
                return _ratio((_ratio(hits, found) * actual).sum(), actual.sum())
        ratio = _ratio(hits, found)
        if self._average is False and self.task == Task.BINARY:
            return ratio[1]
        return ratio

    _row: int
    """Which of ``ratios`` it is."""

    @abstractmethod
    def _denominator(self, predicted: Tensor, actual: Tensor) -> Tensor:
        """Return of what the true positives are a share."""

    def _per_class(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return true positives, predictions and targets of each class or label."""
        reduced = self._store.reduced
        assert reduced is not None
        if "per class" not in reduced.derived:
            counts = self.counts
            if self.task == Task.MULTILABEL:
                found = counts.unbind()
            elif counts.shape[1] > _FEW:
                found = counts[:, :-1].unbind()
            else:
                matrix = counts[:2, :2] if self.task == Task.BINARY else counts[:-1]
                found = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
            reduced.derived["per class"] = tuple(values.double() for values in found)
        hits, predicted, actual = reduced.derived["per class"]
        return hits, predicted, actual

    def _check_input(self) -> None:
        reduced = self._store.reduced
        assert reduced is not None
        if "checked" in reduced.derived:
            return
        super()._check_input()
        task, counts, wrong = self.task, self.counts, 0
        if task == Task.BINARY:
            wrong, expected = int(counts.sum() - counts[:2, :2].sum()), "0 and 1"
        elif task == Task.MULTICLASS:
            many = counts.shape[1] > _FEW
            wrong = int(counts[:, -1].sum() if many else counts[-1].sum())
            expected = f"those that y_pred has scores for, 0 to {counts.shape[1] - 1 - many}"
        if wrong:
            raise ValueError(
                f"{type(self).__name__}: {wrong} examples had other classes than {expected}; "
                "leave them out, or map them, by output_transform"
            )
        reduced.derived["checked"] = True

    def _finish(self, value: Any) -> Any:
        if self._average in (False, None):
            return value.cpu()
        return to_plain(value)

    def _sharing_key(self) -> Hashable:
        if type(self).update is not PrecisionRecall.update:
            return None
        return (
            PrecisionRecall,
            id(self._output_transform),
            self.required_output_keys,
            self._is_multilabel,
            self._average == "samples",
            self._device,
            self._skip_unrolling,
            self._check,
        )


class Precision(PrecisionRecall):
    """The share of positive predictions that are right: TP / (TP + FP), 0 where there is none.

    Args:
        output_transform: turns the engine's output into ``(y_pred, y)``, as for
            :class:`~cookfire.metrics.Accuracy`.
        average: over classes or labels:

            - False: no average, a tensor with a value for each; of a binary task, the value for
              the class 1;
            - None: the same, of a binary task a value for either class;
            - True or ``"macro"``: the mean;
            - ``"weighted"``: the mean weighted by how often each is in ``y``;
            - ``"micro"``: of the counts of all together;
            - ``"samples"``: multilabel only; the mean over samples, each over its labels.
        is_multilabel: equal shapes are multilabel, not binary.
        device: where counts are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        check: look at the values in every update, and raise at once for targets or predictions
            out of range; this waits for the device. Without it, ``compute`` reports them.

    Raises:
        ValueError: an unknown ``average``; by ``update`` for shapes that fit no task, another than
            before, or not the average; by ``compute`` for targets out of range, or scores in place
            of zeros and ones.

    Example:
        >>> metric = Precision(average=None)
        >>> metric.update((torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, 0, 1])))
        >>> metric.compute()
        tensor([1.0000, 0.6667], dtype=torch.float64)
    """

    _row = 0

    def _denominator(self, predicted: Tensor, actual: Tensor) -> Tensor:  # noqa: ARG002 - of both
        return predicted


class Recall(PrecisionRecall):
    """The share of positives that are found: TP / (TP + FN), 0 where there is none.

    Arguments, shapes and errors are those of :class:`~cookfire.metrics.Precision`.

    Example:
        >>> metric = Recall()
        >>> metric.update((torch.tensor([1, 0, 0, 1]), torch.tensor([1, 0, 1, 1])))
        >>> metric.compute()
        tensor(0.6667, dtype=torch.float64)
    """

    _row = 1

    def _denominator(self, predicted: Tensor, actual: Tensor) -> Tensor:  # noqa: ARG002 - of both
        return actual


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return ``part / whole``, 0 for 0 / 0."""
    return part / whole.masked_fill(whole == 0, 1)


def _sum_ratios(predicted: Tensor, actual: Tensor) -> Tensor:
    """Return the sums over samples of precision and of recall."""
    hits = (predicted & actual).sum(1)
    precise = torch.float32 if hits.device.type in WITHOUT_FLOAT64 else torch.float64
    of = predicted.sum(1), actual.sum(1)
    return torch.stack([(hits.to(precise) / found.clamp(min=1)).sum() for found in of])
