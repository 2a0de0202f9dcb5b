"""The F-score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._metrics_lambda import MetricsLambda
from cookfire.metrics._precision_recall import Precision, Recall
from cookfire.metrics._values import need_number, same


def Fbeta(  # noqa: N802 - named like the metric that it makes
    beta: float,
    average: bool = True,
    precision: Precision | None = None,
    recall: Recall | None = None,
    output_transform: Callable[[Any], Any] | None = None,
    device: str | torch.device | None = None,
    *,
    ignore_index: int | None = None,
) -> MetricsLambda:
    """Return the weighted harmonic mean of precision P and recall R, with weight ``beta`` for R.

    (1 + beta^2) P R / (beta^2 P + R), 0 where both are 0 (van Rijsbergen, Information Retrieval,
    1979, chapter 7).

    Args:
        beta: how much more recall counts than precision; 1 for F1.
        average: the mean over the classes, a float; or else a tensor with a value for each.
        precision: what to compute it from, with ``average=False``; None: one of its own.
        recall: likewise.
        output_transform: of the metrics of its own.
        device: of the metrics of its own.
        ignore_index: of the metrics of its own.

    Raises:
        TypeError: ``beta`` is no number.
        ValueError: ``beta`` is not positive; ``precision`` or ``recall`` are given with an average,
            or beside settings for metrics of its own, which they would not heed.

    Example:
        >>> f1 = Fbeta(1.0)
        >>> f1.update((torch.tensor([1, 0, 0, 1]), torch.tensor([1, 0, 1, 1])))
        >>> f1.compute()
        0.8
    """
    need_number("beta", beta)
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    for name, metric in (("precision", precision), ("recall", recall)):
        if metric is None:
            continue
        if metric._average:
            raise ValueError(
                f"{name} must have average=False, has {metric._average!r}: the average is taken "
                "over F-scores"
            )
        if output_transform is not None or device is not None or ignore_index is not None:
            raise ValueError(
                f"output_transform, device and ignore_index have no effect beside {name}: give "
                f"them to {name}"
            )
    other = precision or recall
    settings: dict[str, Any]
    if other is not None:
        settings = {
            "output_transform": other._output_transform,
            "is_multilabel": other._is_multilabel,
            "device": other._device,
            "skip_unrolling": other._skip_unrolling,
            "average": other._average,
            "check": other._check,
            "ignore_index": other._ignore_index,
        }
    else:
        settings = {
            "output_transform": output_transform or same,
            "device": device,
            "ignore_index": ignore_index,
        }
    own = precision is None and recall is None
    precision = precision or Precision(**settings)
    recall = recall or Recall(**settings)
    if own:
        recall._store = precision._store  # nobody else updates them
    return MetricsLambda(_FScore(beta, average), precision, recall)


class _FScore:
    """The formula; an object without a closure can be pickled."""

    def __init__(self, beta: float, average: bool) -> None:
        self.beta = beta
        self.average = average

    def __call__(self, precision: Tensor, recall: Tensor) -> Tensor:
        weight = self.beta**2
        whole = torch.add(recall, precision, alpha=weight)
        score = (precision * recall / whole).nan_to_num_(0)  # 0 / 0
        return (score.mean() if self.average else score) * (1 + weight)
