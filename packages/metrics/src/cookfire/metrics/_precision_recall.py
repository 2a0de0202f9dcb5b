"""Precision and recall: two readings of the same counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from cookfire.metrics._class_counts import ClassCounts
from cookfire.metrics._classification import Task
from cookfire.metrics._values import same, to_plain

Average = bool | Literal["macro", "micro", "weighted", "samples"] | None

_AVERAGES = (False, None, True, "macro", "micro", "weighted", "samples")


class PrecisionRecall(ClassCounts):
    """What precision and recall share."""

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        average: Average = False,
        is_multilabel: bool = False,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        check: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        if not any(average is known or average == known for known in _AVERAGES) or (
            isinstance(average, int) and not isinstance(average, bool)
        ):
            raise ValueError(
                f"average must be one of {', '.join(map(repr, _AVERAGES))}, got {average!r}"
            )
        self._average: Average = "macro" if average is True else average
        self._wanted = frozenset({"ratios" if average == "samples" else "per class"})
        super().__init__(
            output_transform,
            is_multilabel,
            device,
            skip_unrolling,
            check=check,
            ignore_index=ignore_index,
        )

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
        if self._average == "micro":
            return _ratio(hits.sum(), found.sum())
        derived, key = self._derived(), ("ratio", self._row)
        if key not in derived:
            derived[key] = _ratio(hits, found)  # also for F-scores
        ratio: Tensor = derived[key]
        if self._average == "macro":
            return ratio.mean()
        if self._average == "weighted":
            return _ratio((ratio * actual).sum(), actual.sum())
        if self._average is False and self._kind == Task.BINARY:
            return ratio[1]
        return ratio

    _row: int
    """Which of ``ratios`` it is."""

    @abstractmethod
    def _denominator(self, predicted: Tensor, actual: Tensor) -> Tensor:
        """Return of what the true positives are a share."""

    def _check_input(self) -> None:
        super()._check_input()
        self._check_classes()

    def _finish(self, value: Any) -> Any:
        if self._average in (False, None):
            return value.cpu()
        return to_plain(value)


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
        ignore_index: targets of this value, and what is predicted there, are left out.

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
    """Return ``part / whole`` of counts, 0 for 0 / 0."""
    return part / whole.clamp(min=1)
