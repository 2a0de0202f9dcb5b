"""Accuracy, and accuracy among the best k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._class_counts import ClassCounts
from cookfire.metrics._classification import Task, find_task
from cookfire.metrics._counting import check_no_class, gather_of_targets, to_indices
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair, need_whole, same
from cookfire.metrics.metric import Metric


class Accuracy(ClassCounts):
    """The share of predictions that are right.

    Of multilabel predictions those are right that have every label right.

    Args:
        output_transform: turns the engine's output into ``(y_pred, y)``, one of

            - multiclass: scores ``(batch, classes, ...)`` and class indices ``(batch, ...)``;
            - binary: zeros and ones of equal shapes ``(batch, ...)``; ``y_pred`` may also have a
              dimension more, of one class;
            - multilabel: zeros and ones of equal shapes ``(batch, labels, ...)``.
        is_multilabel: equal shapes are multilabel, not binary.
        device: where counts are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        check: look at the values in every update, and raise at once for targets or predictions
            out of range; this waits for the device. Without it, scores in place of zeros and ones
            are reported by ``compute``.
        ignore_index: targets of this value are left out. Of multilabel samples the other labels
            decide, and samples without others are left out.

    Raises:
        ValueError: by ``update`` for shapes that fit no task, or another than before; by
            ``compute`` for scores in place of zeros and ones.

    Example:
        >>> metric = Accuracy()
        >>> metric.update((torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1])))
        >>> metric.compute()
        0.5
    """

    _wanted = frozenset({"correct"})

    def compute(self) -> float | Tensor:
        """Return the share, from 0 to 1, as a float.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        share: float | Tensor = self._count_right() / self._as_number("count")
        return share


class TopKCategoricalAccuracy(Metric):
    """The share of examples whose class is among the ``k`` best scores.

    A target that shares its score with other classes counts as the last of them, on every device,
    so that equal scores for all classes are no success; nan counts as higher than any number.

    Args:
        k: how many.
        output_transform: turns the engine's output into scores ``(batch, classes, ...)`` and class
            indices ``(batch, ...)``.
        device: where counts are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: ``k`` is below 1; by ``update``, shapes that don't fit; by ``compute``, targets
            that are no class.

    Example:
        >>> metric = TopKCategoricalAccuracy(k=2)
        >>> metric.update((torch.tensor([[0.1, 0.3, 0.6], [0.8, 0.2, 0.0]]), torch.tensor([1, 2])))
        >>> metric.compute()
        0.5
    """

    _settings = ("_k", "_ignore_index")

    correct = MetricState(torch.int64)
    count = MetricState(torch.int64)
    no_class = MetricState(torch.int64)
    """Targets that are none."""

    def __init__(
        self,
        k: int = 5,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        ignore_index: int | None = None,
    ) -> None:
        need_whole("k", k)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self._k = k
        if ignore_index is not None:
            need_whole("ignore_index", ignore_index)
        self._ignore_index = ignore_index
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Count a batch's examples whose class is among the best."""
        scores, y = need_pair(type(self).__name__, output)
        task, classes = find_task(type(self).__name__, scores, y, is_multilabel=False)
        if task != Task.MULTICLASS:
            raise ValueError(
                "TopKCategoricalAccuracy: expected scores (batch, classes, ...) of several classes "
                f"and class indices (batch, ...), got {tuple(scores.shape)} and {tuple(y.shape)}: "
                "of one-hot targets, output_transform makes (output[0], output[1].argmax(1))"
            )
        target = to_indices(y)
        seen: Tensor | int = y.numel()
        kept = None if self._ignore_index is None else y != self._ignore_index
        if kept is not None:
            target, seen = target.where(kept, 0), kept.sum()
        scores = scores.detach()
        of_target, no_class = gather_of_targets(scores, target, kept)
        # Without sorting: how many scores a target's own surpasses; one that is nan, none.
        # Comparing into floats is several times faster than into bools, and exact up to 2^24.
        worse = torch.lt(scores, of_target, out=torch.empty_like(scores, dtype=torch.float)).sum(1)
        right = worse >= classes - self._k
        right = right if kept is None else right & kept
        self.accumulate(correct=torch.count_nonzero(right), count=seen, no_class=no_class)

    def compute(self) -> float | Tensor:
        """Return the share, from 0 to 1, as a float.

        Raises:
            NotComputableError: there was no example.
        """
        return self._mean("correct", "count")

    def _check_input(self) -> None:
        check_no_class(self, self.no_class)
