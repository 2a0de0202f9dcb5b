"""Precision, recall and F-score of each class, in one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._fbeta import Fbeta
from cookfire.metrics._in_an_engine import ResultMode
from cookfire.metrics._metrics_lambda import MetricsLambda
from cookfire.metrics._precision_recall import Precision, Recall
from cookfire.metrics._values import same

Report = dict[str, dict[str, float]]


def ClassificationReport(  # noqa: N802 - named like the metric that it makes
    beta: int = 1,
    output_dict: bool = False,
    output_transform: Callable[[Any], Any] = same,
    device: str | torch.device | None = None,
    is_multilabel: bool = False,
    labels: Sequence[str] | None = None,
    metrics_result_mode: ResultMode = "both",
    *,
    ignore_index: int | None = None,
) -> MetricsLambda:
    """Return precision, recall and F-score of each class, and their means ``"macro avg"``.

    Args:
        beta: of the F-score, see :func:`~cookfire.metrics.Fbeta`.
        output_dict: the value is a dict ``{class: {"precision": ..., "recall": ..., "f1-score":
            ...}}``; else the same as JSON.
        output_transform: turns the engine's output into ``(y_pred, y)``, as for
            :class:`~cookfire.metrics.Precision`.
        device: where counts are kept; None: where the data are.
        is_multilabel: equal shapes are multilabel, not binary.
        labels: names of the classes, in their order; None: their numbers.
        metrics_result_mode: where the items of a dict go, see :class:`~cookfire.metrics.Metric`.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: ``beta`` is not positive; by ``compute``, as for Precision, and fewer ``labels``
            than classes.

    Example:
        >>> report = ClassificationReport(output_dict=True, labels=["cat", "dog"])
        >>> report.update((torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, 0, 1])))
        >>> report.compute()["cat"]
        {'precision': 1.0, 'recall': 0.5, 'f1-score': 0.6666666666666666}
    """
    settings: dict[str, Any] = {
        "average": None,
        "is_multilabel": is_multilabel,
        "output_transform": output_transform,
        "device": device,
        "ignore_index": ignore_index,
    }
    precision, recall = Precision(**settings), Recall(**settings)
    recall._store = precision._store  # nobody else updates them
    return MetricsLambda(
        _Report(beta, output_dict, labels),
        precision,
        recall,
        Fbeta(beta, average=False, precision=precision, recall=recall),
        metrics_result_mode=metrics_result_mode,
    )


class _Report:
    """The formula; an object without a closure can be pickled."""

    def __init__(self, beta: int, output_dict: bool, labels: Sequence[str] | None) -> None:
        self.names = ("precision", "recall", f"f{beta}-score")
        self.output_dict = output_dict
        self.labels = labels

    def __call__(self, *columns: Tensor) -> Report | str:
        rows = torch.stack(columns, 1)
        labels = [str(number) for number in range(len(rows))]
        if self.labels is not None:
            if len(self.labels) < len(rows):
                raise ValueError(
                    f"ClassificationReport: {len(self.labels)} labels for {len(rows)} classes; "
                    "name all of them, or none"
                )
            labels = list(self.labels[: len(rows)])
        report = {
            label: dict(zip(self.names, row, strict=True))
            for label, row in zip(
                [*labels, "macro avg"], [*rows.tolist(), rows.mean(0).tolist()], strict=True
            )
        }
        return report if self.output_dict else json.dumps(report)
