"""A confusion matrix for each label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._class_counts import ClassCounts
from cookfire.metrics._values import need_whole, same


class MultiLabelConfusionMatrix(ClassCounts):
    """For each label ``[[true negatives, false positives], [false negatives, true positives]]``.

    Args:
        num_classes: how many labels there are, at least 2.
        output_transform: turns the engine's output into zeros and ones of equal shapes
            ``(batch, num_classes, ...)``.
        device: where counts are kept; None: where the data are.
        normalized: divide each label's matrix by its sum.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        check: look at the values in every update, and raise at once for others than 0 and 1; this
            waits for the device. Without it, scores are reported by ``compute``.
        ignore_index: elements of ``y`` of this value are left out.

    Raises:
        ValueError: fewer than 2 labels; by ``update``, shapes that don't fit; by ``compute``,
            scores in place of zeros and ones.

    Example:
        >>> metric = MultiLabelConfusionMatrix(num_classes=2)
        >>> metric.update((torch.tensor([[1, 1], [0, 1]]), torch.tensor([[1, 0], [1, 1]])))
        >>> metric.compute().tolist()
        [[[0, 0], [1, 1]], [[0, 1], [0, 1]]]
    """

    _settings = ("num_classes", "_ignore_index")

    def __init__(
        self,
        num_classes: int,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        normalized: bool = False,
        skip_unrolling: bool = False,
        *,
        check: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        need_whole("num_classes", num_classes)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.num_classes = num_classes
        self.normalized = normalized
        self._wanted = frozenset({"per class", ("multilabel", num_classes)})
        super().__init__(
            output_transform, True, device, skip_unrolling, check=check, ignore_index=ignore_index
        )

    def compute(self) -> Tensor:
        """Return a tensor ``(num_classes, 2, 2)``, int64, or float64 if normalized.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        hits, predicted, actual, *kept = self.rows.unbind()
        whole = kept[0] if kept else self.count.expand_as(hits)
        false_positives, false_negatives = predicted - hits, actual - hits
        rest = whole - predicted - false_negatives
        cells = torch.stack([rest, false_positives, false_negatives, hits], 1)
        if self.normalized:
            return (cells / whole.clamp(min=1).unsqueeze(1).double()).reshape(-1, 2, 2)
        return cells.reshape(-1, 2, 2)
