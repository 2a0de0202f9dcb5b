"""Which detections find an object: COCO's protocol, for all images of a batch at once.

For each image, class, range of areas and threshold of the intersection over union (IoU), the
detections choose in the order of their scores, each among the objects not chosen yet the one with
the highest IoU, if that reaches the threshold. Objects that are crowds or whose area is out of the
range do not count: a detection takes one of them if it can have no other, and then does not count
either; nor does one that finds nothing and is out of the range itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cookfire.metrics.vision._boxes import Boxes, compare

IGNORED, WRONG, RIGHT = range(3)
"""Outcomes of a detection."""


def match(
    detected: Boxes, actual: Boxes, crowd: Tensor, counts: Tensor, limits: Tensor, least: Tensor
) -> Tensor:
    """Return the outcome of each detection, without waiting for the device.

    Args:
        detected: in the order of their scores, the highest first.
        actual: the objects.
        crowd: ``(images, actual)``, bool: it is a crowd, which any number of detections may take.
        counts: ``(images, ranges, actual)``, bool: it counts.
        limits: ``(ranges, 2)``: the lowest and highest areas.
        least: ``(thresholds,)``: of the IoU.

    Returns:
        ``(images, detected, ranges, thresholds)``, uint8: IGNORED, WRONG or RIGHT.
    """
    iou = compare(detected, actual, crowd)
    same = (detected.labels[:, :, None] == actual.labels[:, None]) & (actual.labels[:, None] >= 0)
    iou = torch.where(same, iou, -1.0)
    number = iou.shape[2]
    # Ranks compare exactly. Those that count come before all others; of equals the last is taken.
    rank = _ranks(iou)
    bonus = counts * number
    outside = _outside(detected.areas[:, :, None], limits)
    least = least.clamp(max=1 - 1e-10)[:, None]
    free = torch.ones(
        len(iou), len(limits), len(least), number, dtype=torch.bool, device=iou.device
    )
    outcomes = []
    for place in range(iou.shape[1]):
        possible = (iou[:, place, None, None] >= least) & (free | crowd[:, None, None])
        worth = (rank[:, place, None] + bonus)[:, :, None]
        best, index = torch.where(possible, worth, -1).max(-1, keepdim=True)
        free = free.scatter(-1, index, free.gather(-1, index) & (best < 0))
        best = best.squeeze(-1)
        ignored = (best >= 0) | outside[:, place, :, None]
        outcome = torch.where(ignored, IGNORED, WRONG).masked_fill(best >= number, RIGHT)
        outcomes.append(outcome.to(torch.uint8))
    return torch.stack(outcomes, 1)


def find_counting(actual: Boxes, crowd: Tensor, areas: Tensor, limits: Tensor) -> Tensor:
    """Return which objects count: ``(images, ranges, actual)``, bool."""
    known = (actual.labels >= 0) & ~crowd
    return (known[..., None] & ~_outside(areas[..., None], limits)).transpose(1, 2)


def rank_in_class(labels: Tensor) -> Tensor:
    """Return for each detection how many of its class come before it: ``(images, detected)``."""
    sorted_labels, order = labels.sort(dim=1, stable=True)
    places = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    is_first = torch.ones_like(labels, dtype=torch.bool)
    is_first[:, 1:] = sorted_labels[:, 1:] != sorted_labels[:, :-1]
    first = torch.where(is_first, places, 0).cummax(1).values
    return torch.zeros_like(labels).scatter(1, order, places - first)


def _ranks(values: Tensor) -> Tensor:
    """Return each value's place in the ascending order of its row, the last of equals the last."""
    order = values.argsort(dim=-1, stable=True)
    places = torch.arange(values.shape[-1], device=values.device).expand_as(order)
    return torch.zeros_like(order).scatter(-1, order, places)


def _outside(areas: Tensor, limits: Tensor) -> Tensor:
    return (areas < limits[:, 0]) | (areas > limits[:, 1])
