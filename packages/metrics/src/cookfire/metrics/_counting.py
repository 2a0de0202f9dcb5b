"""Counting class indices and pairs of them, without waiting for the device.

``kept`` tells which positions count, all of them if it is None. The others go into a bin of their
own, which is cut off: leaving them out before would need to know how many they are.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cookfire.metrics.metric import Metric


def count_pairs(y_pred: Tensor, y: Tensor, classes: int, kept: Tensor | None = None) -> Tensor:
    """Return the confusion matrix, row by row, with one more for targets that are no class.

    Args:
        y_pred: predicted classes, all from 0 to ``classes - 1``.
        y: targets, as many.
        classes: how many there are.
        kept: which count.
    """
    bins = (classes + 1) * classes
    if y.ndim > 1:
        y_pred, y = y_pred.flatten(), y.flatten()
    if kept is None and counts_at_once(y):
        # Rows are looked up: unlike a product that says if a target has none, which is rare.
        target = y if y.dtype is torch.int64 else to_indices(y)
        try:
            pairs = _first_of_rows(classes).index_select(0, target)
        except IndexError:
            pass
        else:
            return torch.bincount(pairs.add_(y_pred), minlength=bins)
    pairs = torch.add(y_pred, _last_if_negative(y, classes), alpha=classes)
    return _count_kept(pairs, bins, kept)


def count_labels(y_pred: Tensor, y: Tensor, classes: int, kept: Tensor | None = None) -> Tensor:
    """Return the same of labels, with a row and a column more for what is no class."""
    side = classes + 1
    predicted, target = _last_if_negative(y_pred, classes), _last_if_negative(y, classes)
    pairs = torch.add(predicted, target, alpha=side)
    return _count_kept(pairs, side * side, kept)


def count_per_class(y_pred: Tensor, y: Tensor, classes: int, kept: Tensor | None = None) -> Tensor:
    """Return ``[true positives, predicted, actual]`` for each class, where there are many.

    The last column, beyond the classes, has the targets that are no class. Arguments are those of
    :func:`count_pairs`.
    """
    predicted, target = y_pred.flatten().long(), _last_if_negative(y, classes)
    # One count over three ranges.
    width = classes + 1
    hits_or_misses = predicted + torch.where(predicted == target, 0, width)
    both = torch.cat([hits_or_misses, target + 2 * width])
    twice = None if kept is None else kept.flatten().repeat(2)
    counts = _count_kept(both, 3 * width, twice).reshape(3, width)
    counts[1] += counts[0]  # fresh, so it may be written into
    return counts


def count(indices: Tensor, bins: int) -> Tensor:
    """Return how often each of ``0 .. bins - 1`` occurs; no index may be beyond them."""
    if counts_at_once(indices):
        return torch.bincount(indices, minlength=bins)
    return indices.new_zeros(bins).scatter_add_(0, indices, torch.ones_like(indices))


def counts_at_once(tensor: Tensor) -> bool:
    """Tell whether bincount need not wait for the largest index, to know its result's length."""
    return tensor.is_cpu


def gather_of_targets(
    scores: Tensor, target: Tensor, kept: Tensor | None = None
) -> tuple[Tensor, Tensor | int]:
    """Return each target's score ``(batch, 1, ...)``, and how many targets are no class.

    Those have the score of another class. Who is not kept must have a class.
    """
    if raises_at_once(scores):
        try:
            return scores.gather(1, target.unsqueeze(1)), 0
        except (RuntimeError, IndexError):
            pass  # rare; to look first would take longer
    near = target.clamp(0, scores.shape[1] - 1)
    wrong = near != target
    return scores.gather(1, near.unsqueeze(1)), torch.count_nonzero(
        wrong if kept is None else wrong & kept
    )


def check_no_class(metric: Metric, number: Tensor) -> None:
    """Raise ValueError for targets that are no class, of which there is such a number."""
    if number:
        raise ValueError(
            f"{type(metric).__name__}: {int(number)} targets were no classes that there are scores "
            "for; leave them out by ignore_index, or map them by output_transform"
        )


def raises_at_once(tensor: Tensor) -> bool:
    """Tell whether an index out of range raises, where a device would break down later."""
    return tensor.is_cpu


def to_indices(y: Tensor) -> Tensor:
    """Return classes as int64; -1 for what is no whole number."""
    if y.is_floating_point():
        y = y.where(y == y.trunc(), -1)
    return y.long()


@functools.lru_cache
def _first_of_rows(classes: int) -> Tensor:
    """Return where the row of each target begins, at least of those that fit a byte."""
    targets = torch.arange(max(256, classes + 1), device="cpu")
    return targets.clamp_(max=classes) * classes


def _count_kept(indices: Tensor, bins: int, kept: Tensor | None) -> Tensor:
    if kept is None:
        return count(indices, bins)
    return count(indices.where(kept.flatten(), bins), bins + 1)[:bins]


def _last_if_negative(y: Tensor, classes: int) -> Tensor:
    flat = to_indices(y.flatten())
    if y.dtype == torch.bool:
        return flat
    # What is no class becomes -1 or ``classes``; and -1, the one before the first, is the last.
    return flat.clamp(-1, classes).remainder(classes + 1)
