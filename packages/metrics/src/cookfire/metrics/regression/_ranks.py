"""Rank correlations, with ties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cookfire.metrics._epoch_metric import EpochMetric
from cookfire.metrics._pairs import check_column, to_precise
from cookfire.metrics._values import need_pair, same


class RankCorrelation(EpochMetric):
    """A correlation of the ranks of all examples: they are kept."""

    def __init__(
        self,
        compute_fn: Callable[[Tensor, Tensor], Tensor],
        output_transform: Callable[[Any], Any],
        check_compute_fn: bool,
        device: str | torch.device | None,
        skip_unrolling: bool,
    ) -> None:
        super().__init__(compute_fn, output_transform, check_compute_fn, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Keep a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        owner = type(self).__name__
        check_column(owner, y_pred, y)
        if len(y_pred) != len(y):
            raise ValueError(
                f"{owner}: got {len(y_pred)} predictions and {len(y)} targets: one of each an "
                "example is expected"
            )
        super().update((to_precise(owner, "y_pred", y_pred), to_precise(owner, "y", y)))

    def compute(self) -> float:
        """Return the correlation.

        Raises:
            NotComputableError: there was no example.
        """
        correlation: float = super().compute()
        return correlation


class SpearmanRankCorrelation(RankCorrelation):
    """Spearman's rank correlation: Pearson's of the ranks, a float; ties share their mean rank.

    NaN where all predictions or all targets are equal, or where one of them is NaN. All examples
    are kept; computing takes the time of two sorts.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`.

    Args:
        output_transform: turns the engine's output into ``(y_pred, y)``.
        check_compute_fn: True also computes the first batch's, and warns if that fails.
        device: where the examples are kept; None: where they are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = SpearmanRankCorrelation()
        >>> metric.update((torch.tensor([1.0, 2.0, 9.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])))
        >>> round(metric.compute(), 6)
        0.8
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        check_compute_fn: bool = False,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        super().__init__(spearman, output_transform, check_compute_fn, device, skip_unrolling)


class KendallRankCorrelation(RankCorrelation):
    """Kendall's tau: pairs ordered alike less pairs ordered otherwise, as a share; a float.

    With P and Q such pairs, T those tied in ``y_pred`` only and U those tied in ``y`` only,
    tau-b is ``(P - Q) / sqrt((P + Q + T) (P + Q + U))``, and tau-c is ``2 (P - Q) m / (n^2 (m -
    1))`` with m the smaller number of different values (Kendall, "The treatment of ties in ranking
    problems", 1945; Stuart, 1953).

    NaN where all predictions or all targets are equal, or where one of them is NaN. All examples
    are kept; computing takes O(n log n) time and O(n) memory.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.regression`.

    Args:
        variant: ``"b"`` or ``"c"``.
        output_transform: turns the engine's output into ``(y_pred, y)``.
        check_compute_fn: True also computes the first batch's, and warns if that fails.
        device: where the examples are kept; None: where they are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: another variant.

    Example:
        >>> metric = KendallRankCorrelation()
        >>> metric.update((torch.tensor([1.0, 2.0, 9.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])))
        >>> round(metric.compute(), 4)
        0.6667
    """

    def __init__(
        self,
        variant: Literal["b", "c"] = "b",
        output_transform: Callable[[Any], Any] = same,
        check_compute_fn: bool = False,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        if variant not in ("b", "c"):
            raise ValueError(f"variant must be 'b' or 'c', got {variant!r}")
        tau = tau_b if variant == "b" else tau_c
        super().__init__(tau, output_transform, check_compute_fn, device, skip_unrolling)


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Return Spearman's correlation of two columns."""
    if _undefined(x, y):
        return torch.tensor(torch.nan)
    ranks = torch.stack([_mean_ranks(x), _mean_ranks(y)])
    ranks -= ranks.mean(1, keepdim=True)
    norms = torch.linalg.vector_norm(ranks, dim=1)
    correlation: Tensor = ranks[0] @ ranks[1] / norms.prod()
    return correlation


def tau_b(x: Tensor, y: Tensor) -> Tensor:
    """Return Kendall's tau-b of two columns."""
    if _undefined(x, y):
        return torch.tensor(torch.nan)
    score, untied_x, untied_y, _ = _count_pairs(x, y)
    return (score / untied_x.double().sqrt() / untied_y.double().sqrt()).clamp(-1, 1)


def tau_c(x: Tensor, y: Tensor) -> Tensor:
    """Return Kendall's tau-c of two columns."""
    if _undefined(x, y):
        return torch.tensor(torch.nan)
    score, _, _, values = _count_pairs(x, y)
    return (2 * score.double() / len(x) ** 2 / ((values - 1) / values)).clamp(-1, 1)


def _undefined(x: Tensor, y: Tensor) -> bool:
    """Tell whether all values of a column are equal, or one is NaN."""
    return any(bool(column.isnan().any() | (column == column[:1]).all()) for column in (x, y))


def _mean_ranks(column: Tensor) -> Tensor:
    """Return ranks from 1 in float64; equal values have the mean of theirs."""
    _, index, counts = torch.unique(column, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    means: Tensor = last - (counts.double() - 1) / 2
    return means[index]


def _count_pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return ``P - Q``, the pairs not tied in x, those not tied in y, the fewer values' number."""
    _, x_rank, x_counts = torch.unique(x, return_inverse=True, return_counts=True)
    _, y_rank, y_counts = torch.unique(y, return_inverse=True, return_counts=True)
    keys = (x_rank * len(y_counts) + y_rank).sort().values  # by x, then by y
    _, both_counts = torch.unique_consecutive(keys, return_counts=True)
    pairs = len(x) * (len(x) - 1) // 2
    x_tied, y_tied, both_tied = (
        (counts * (counts - 1) // 2).sum() for counts in (x_counts, y_counts, both_counts)
    )
    discordant = _count_inversions(keys % len(y_counts), y_counts)
    score = pairs - x_tied - y_tied + both_tied - 2 * discordant
    return score, pairs - x_tied, pairs - y_tied, min(len(x_counts), len(y_counts))


def _count_inversions(ranks: Tensor, counts: Tensor) -> Tensor:
    """Return the number of pairs whose first rank is the larger one.

    The ranks are sorted by one binary digit after the other, the highest first. Before digit d
    the ranks are in groups, those of equal higher digits, each in the original order; a 1 before a
    0 of its group is an inversion, and no pair is counted twice.

    Args:
        ranks: from 0, without a gap.
        counts: how often each occurs.
    """
    values = len(counts)
    # Where each rank begins once all are sorted.
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    positions = torch.arange(len(ranks), device=ranks.device)
    total = counts.new_zeros(())
    for digit in reversed(range((values - 1).bit_length())):
        first = ranks >> (digit + 1) << (digit + 1)
        begin = starts[first]
        middle = starts[(first + (1 << digit)).clamp(max=values)]
        bits = ranks >> digit & 1
        ones = torch.cat([bits.new_zeros(1), bits.cumsum(0)])
        before = ones[:-1] - ones[begin]  # within the group
        total = total + before.masked_fill(bits.bool(), 0).sum()
        zeros = positions - begin - before
        target = torch.where(bits.bool(), middle + before, begin + zeros)
        ranks = torch.empty_like(ranks).scatter_(0, target, ranks)
    return total
