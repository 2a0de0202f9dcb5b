"""Precision over recall, and the area under it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._ranking import Mean, MeanOverClasses, Ranked, RankedHistory, check_mean
from cookfire.metrics._values import same


class AveragePrecision(MeanOverClasses):
    """The mean of precision over recall: sum over thresholds k of (R_k - R_{k-1}) P_k.

    Every distinct score is a threshold, and nothing is interpolated (as in scikit-learn and
    Wikipedia's article on information retrieval). Without positives it is 0. Scores are kept until
    it is computed: those of all examples and classes, and the targets, of all ranks on each rank.

    Args:
        output_transform: turns the engine's output into ``(y_pred, y)``, as for
            :class:`~cookfire.metrics.ROC_AUC`.
        check_compute_fn: has no effect; there is no function of the user's to try.
        device: where scores are kept; None: where they are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        average: over classes or labels, as for :class:`~cookfire.metrics.ROC_AUC`.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: an unknown ``average``; by ``update``, shapes that fit no task; by ``compute``,
            targets out of range, or scores that are nan.

    Example:
        >>> metric = AveragePrecision()
        >>> metric.update((torch.tensor([0.1, 0.4, 0.3, 0.8]), torch.tensor([0, 0, 1, 1])))
        >>> round(metric.compute(), 6)
        0.833333
    """

    @staticmethod
    def _value_of(ranked: Ranked) -> Tensor:
        return _average_precision(ranked)


class MeanAveragePrecision(RankedHistory):
    """The mean over classes of precision averaged over recall, also at given recalls.

    Without ``rec_thresholds`` it is that of :class:`AveragePrecision`; with recalls r_1 < r_2 < ...
    it is the sum of (r_k - r_{k-1}) P_k, with the precision P_k at the highest threshold whose
    recall reaches r_k, 0 if none does. Scores are kept until it is computed.

    Args:
        rec_thresholds: recalls from 0 to 1, in any order; None: those of the data.
        class_mean: over classes or labels: ``"macro"``: the mean; ``"weighted"``: weighted by their
            positives; ``"micro"``: of all classes' scores together; None: a tensor with the value
            of each, 0 where there are no positives.
        is_multilabel: equal shapes are multilabel, not binary.
        output_transform: turns the engine's output into ``(y_pred, y)``, as for
            :class:`~cookfire.metrics.ROC_AUC`.
        device: where scores are kept; None: where they are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: an unknown ``class_mean``, or recalls that are not in one dimension from 0 to 1;
            by ``update``, shapes that fit no task; by ``compute``, targets out of range, or scores
            that are nan.

    Example:
        >>> metric = MeanAveragePrecision(rec_thresholds=[0.5, 1.0])
        >>> metric.update((torch.tensor([0.1, 0.4, 0.3, 0.8]), torch.tensor([0, 0, 1, 1])))
        >>> round(metric.compute(), 6)
        0.833333
    """

    def __init__(
        self,
        rec_thresholds: Sequence[float] | Tensor | None = None,
        class_mean: Mean = "macro",
        is_multilabel: bool = False,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        ignore_index: int | None = None,
    ) -> None:
        check_mean("class_mean", class_mean)
        self.class_mean: Mean = class_mean
        self.rec_thresholds = None if rec_thresholds is None else _recalls(rec_thresholds)
        super().__init__(
            output_transform,
            device,
            skip_unrolling,
            is_multilabel=is_multilabel,
            ignore_index=ignore_index,
        )

    def compute(self) -> float | Tensor:
        """Return the value as a float, or of each class as a tensor.

        Raises:
            NotComputableError: there was no example.
        """
        return self._average(self.class_mean, self._value_of)

    def _value_of(self, ranked: Ranked) -> Tensor:
        if self.rec_thresholds is None:
            return _average_precision(ranked)
        precision, recall = _precision(ranked), _recall(ranked)
        wanted = self.rec_thresholds.to(recall.device)
        reached = torch.searchsorted(recall, wanted)
        found = torch.cat([precision, precision.new_zeros(1)])[reached]
        return (wanted.diff(prepend=wanted.new_zeros(1)) * found).sum()


class PrecisionRecallCurve(RankedHistory):
    """Precision and recall of a binary task at each threshold.

    Scores are kept until it is computed.

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
        >>> metric = PrecisionRecallCurve()
        >>> metric.update((torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0, 0, 1])))
        >>> precision, recall, thresholds = metric.compute()
        >>> precision
        tensor([0.3333, 0.5000, 1.0000, 1.0000], dtype=torch.float64)
        >>> thresholds
        tensor([0.2500, 0.5000, 0.7500], dtype=torch.float64)
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
        """Return precisions, recalls and thresholds, float64 on the CPU.

        Thresholds ascend; precision and recall end with one point more, 1 and 0, that no threshold
        gives. Without positives, recall is 1.

        Raises:
            NotComputableError: there was no example.
        """
        ranked = self._rank_binary()
        precision, recall = _precision(ranked).flip(0), _recall(ranked).flip(0)
        return (
            torch.cat([precision, precision.new_ones(1)]),
            torch.cat([recall, recall.new_zeros(1)]),
            ranked.thresholds().flip(0),
        )


def _precision(ranked: Ranked) -> Tensor:
    return ranked.true_positives.double() / ranked.predicted


def _recall(ranked: Ranked) -> Tensor:
    hits = ranked.true_positives.double()
    return torch.where(hits[-1] > 0, hits / hits[-1], 1.0)


def _average_precision(ranked: Ranked) -> Tensor:
    hits = ranked.true_positives.double()
    gained = torch.cat([hits[:1], hits[1:] - hits[:-1]])
    return torch.dot(gained, hits / ranked.predicted) / hits[-1].clamp(min=1)


def _recalls(values: Sequence[float] | Tensor) -> Tensor:
    recalls = torch.as_tensor(values, dtype=torch.float64).cpu()
    if recalls.ndim != 1 or not len(recalls) or not bool(((recalls >= 0) & (recalls <= 1)).all()):
        raise ValueError(
            f"rec_thresholds must be recalls from 0 to 1 in one dimension, got {values}"
        )
    return recalls.sort().values
