"""Average precision and recall, from the outcomes of detections."""

from __future__ import annotations

import torch
from torch import Tensor

from cookfire.metrics.vision._matching import IGNORED, RIGHT


def average_precision(
    scores: Tensor, labels: Tensor, outcomes: Tensor, objects: Tensor, levels: Tensor
) -> Tensor:
    """Return the average precision of each class, one class at a time.

    At each level of recall the precision is the highest that is reached with at least that recall.

    Args:
        scores: ``(detections,)``; of equals the first comes first.
        labels: ``(detections,)``, int64.
        outcomes: ``(detections, ranges, thresholds)``.
        objects: ``(ranges, classes)``: how many are to be found.
        levels: ``(levels,)``: of recall.

    Returns:
        ``(classes, ranges, thresholds)``, float64; not a number where there is no object.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    numbers = torch.bincount(labels, minlength=objects.shape[1]).tolist()
    levels = levels.to(objects.device).expand(*outcomes.shape[1:], -1).contiguous()
    found = outcomes[order].split_with_sizes(numbers)
    classes = zip(found, objects.double().unbind(1), strict=True)
    return torch.stack([_of_class(rows, number, levels) for rows, number in classes])


def recall(labels: Tensor, right: Tensor, objects: Tensor) -> Tensor:
    """Return the share of each class's objects that are found.

    Args:
        labels: ``(detections,)``, int64.
        right: ``(detections, ranges, thresholds)``, bool.
        objects: ``(ranges, classes)``.

    Returns:
        ``(classes, ranges, thresholds)``, float64; not a number where there is no object.
    """
    hits = right.new_zeros(objects.shape[1], *right.shape[1:], dtype=torch.float64)
    hits.index_add_(0, labels, right.double())
    return hits / objects.double().t()[..., None]


def mean_of_classes(values: Tensor) -> Tensor:
    """Return the mean of what is a number, -1 if nothing is."""
    return values.nanmean().nan_to_num(-1.0)


def _of_class(outcomes: Tensor, objects: Tensor, levels: Tensor) -> Tensor:
    right = (outcomes == RIGHT).cumsum(0).double()
    counted = (outcomes != IGNORED).cumsum(0).double()
    found = right / objects[:, None]
    precision = right / counted.clamp(min=1)
    precision = precision.flip(0).cummax(0).values.flip(0) if len(precision) else precision
    reached = torch.cat([precision, precision.new_zeros(1, *precision.shape[1:])])
    at = torch.searchsorted(found.permute(1, 2, 0).contiguous(), levels)
    mean = reached.permute(1, 2, 0).gather(-1, at).mean(-1)
    return mean.masked_fill(objects[:, None] == 0, torch.nan)
