"""The receiver operating characteristic, and the area under it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._ranking import MeanOverClasses, Ranked, RankedHistory
from cookfire.metrics._values import same


class ROC_AUC(MeanOverClasses):  # noqa: N801 - ignite's name
    """The area under the receiver operating characteristic, exact, ties included.

    It is the probability that a positive example has a higher score than a negative one, where
    equal scores count half (J. Hanley and B. McNeil, 1982). Scores are kept until it is computed:
    those of all examples and classes, and the targets, of all ranks on each rank.

    Args:
        output_transform: turns the engine's output into ``(y_pred, y)``, one of

            - binary: scores and zeros and ones, of shapes ``(batch,)`` or ``(batch, 1)``;
            - multilabel: scores and zeros and ones of equal shapes ``(batch, labels)``;
            - multiclass: scores ``(batch, classes)`` and class indices ``(batch,)``; each class
              against the rest.

            Any scores do, probabilities or not; further dimensions are further examples.
        check_compute_fn: has no effect; there is no function of the user's to try.
        device: where scores are kept; None: where they are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        average: over classes or labels: ``"macro"``: the mean; ``"weighted"``: weighted by their
            positives, so that absent ones have no say; ``"micro"``: of all classes' scores
            together; None: a tensor with the value of each. A class without positives, or without
            negatives, has the value nan.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: an unknown ``average``; by ``update``, shapes that fit no task; by ``compute``,
            targets out of range, or scores that are nan.

    Example:
        >>> metric = ROC_AUC()
        >>> metric.update((torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1])))
        >>> metric.compute()
        0.75
    """

    @staticmethod
    def _value_of(ranked: Ranked) -> Tensor:
        hits, false = ranked.true_positives, ranked.false_positives
        # Twice the trapezoids, in integers.
        twice = false[0] * hits[0] + ((false[1:] - false[:-1]) * (hits[1:] + hits[:-1])).sum()
        return twice.double() / (2 * hits[-1] * false[-1]).double()


class RocCurve(RankedHistory):
    """The receiver operating characteristic of a binary task: its points from (0, 0) to (1, 1).

    Points on a line between their neighbours are left out. Scores are kept until it is computed.

    Args:
        output_transform: turns the engine's output into scores and zeros and ones, of shapes
            ``(batch,)`` or ``(batch, 1)``.
        check_compute_fn: has no effect; there is no function of the user's to try.
        device: where scores are kept; None: where they are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: by ``update``, shapes that fit no task; by ``compute``, input of several
            classes, targets that are neither 0 nor 1, or scores that are nan.

    Example:
        >>> metric = RocCurve()
        >>> metric.update((torch.tensor([0.1, 0.4, 0.3, 0.8]), torch.tensor([0, 0, 1, 1])))
        >>> false_positive_rate, true_positive_rate, thresholds = metric.compute()
        >>> true_positive_rate
        tensor([0.0000, 0.5000, 0.5000, 1.0000, 1.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        check_compute_fn: bool = False,  # noqa: ARG002 - ignite's signature
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(output_transform, device, skip_unrolling, ignore_index=ignore_index)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return false positive rates, true positive rates and thresholds, float64 on the CPU.

        Thresholds descend from infinity, at which nothing is predicted positive. Rates of what
        there is none of are nan.

        Raises:
            NotComputableError: there was no example.
        """
        ranked = self._rank_binary()
        hits, false = ranked.true_positives, ranked.false_positives
        turns = torch.ones_like(hits, dtype=torch.bool)
        turns[1:-1] = (hits.diff(n=2) != 0) | (false.diff(n=2) != 0)
        rates = [_from_zero(counts[turns]) / counts[-1].double() for counts in (false, hits)]
        thresholds = ranked.thresholds()[turns]
        return rates[0], rates[1], torch.cat([thresholds.new_full((1,), torch.inf), thresholds])


def _from_zero(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts])
