"""Metrics of groups of people, and how far apart the groups are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics._accuracy import Accuracy
from cookfire.metrics._class_counts import ClassCounts
from cookfire.metrics._values import need_pair, need_tensors, same
from cookfire.metrics.metric import Metric

__all__ = [
    "DemographicParityDifference",
    "SelectionRate",
    "SubgroupAccuracyDifference",
    "SubgroupDifference",
    "SubgroupMetric",
]


class SelectionRate(ClassCounts):
    """How often each class or label is predicted, as a share of the examples.

    Args:
        output_transform: turns the engine's output into ``(y_pred, y)``, as for
            :class:`~cookfire.metrics.Accuracy`; of ``y`` only the shape matters.
        is_multilabel: equal shapes are multilabel, not binary.
        device: where counts are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        ignore_index: examples with this target are left out.

    Raises:
        ValueError: by ``update`` for shapes that fit no task, or another than before; by
            ``compute`` for scores in place of zeros and ones.

    Example:
        >>> metric = SelectionRate()
        >>> metric.update((torch.tensor([1, 1, 1, 0]), torch.tensor([1, 0, 1, 1])))
        >>> metric.compute()
        tensor([0.2500, 0.7500], dtype=torch.float64)
    """

    _wanted = frozenset({"per class"})

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        is_multilabel: bool = False,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(
            output_transform, is_multilabel, device, skip_unrolling, ignore_index=ignore_index
        )

    def compute(self) -> Tensor:
        """Return a tensor with the rate of each class or label; of a binary task of 0 and of 1.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        _, predicted, _ = self._per_class()
        return predicted / self.count


class SubgroupMetric(Metric):
    """A metric of each group by itself; the value is a dict by group.

    Groups without examples are left out, and so are examples of groups that are not named here:
    two groups of many can be compared.

    Args:
        base_metric: what is computed; each group has a copy of its own. Metrics of the class counts
            (Accuracy, Precision, ConfusionMatrix, SelectionRate ...) do not wait for the device;
            others do, since each group's examples are picked for them.
        groups: the groups' labels.
        output_transform: turns the engine's output into ``(y_pred, y, group_labels)``, the latter
            of shape ``(batch,)``; of a mapping these keys are taken.
        device: where state is kept; None: where the data are.

    Raises:
        ValueError: no groups, or some twice; by ``update``, batches of different lengths.

    Example:
        >>> metric = SubgroupMetric(Accuracy(), groups=[0, 1])
        >>> y_pred, y = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, 0, 1])
        >>> metric.update((y_pred, y, torch.tensor([0, 0, 1, 1])))
        >>> metric.compute()
        {0: 1.0, 1: 0.5}
    """

    _settings = ("groups",)

    required_output_keys = ("y_pred", "y", "group_labels")

    def __init__(
        self,
        base_metric: Metric,
        groups: Sequence[Any],
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
    ) -> None:
        if not isinstance(base_metric, Metric):
            raise TypeError(f"base_metric must be a metric, got {base_metric!r}")
        if not groups or len(set(groups)) < len(groups):
            raise ValueError(f"groups must be labels, at least one and none twice, got {groups}")
        self.groups = list(groups)
        self._metrics = [_fresh(base_metric) for _ in groups]
        super().__init__(output_transform, device)
        if device is not None:
            for metric in self._metrics:
                metric._device = self._device

    def reset(self) -> None:
        """Forget everything."""
        for metric in self._metrics:
            metric.reset()

    def update(self, output: Sequence[Tensor]) -> None:
        """Update each group's metric with its examples."""
        y_pred, y, labels = need_pair(type(self).__name__, output, "y_pred, y, group_labels")
        need_tensors(type(self).__name__, y_pred, y, labels)
        # All groups' metrics transform alike.
        y_pred, y = self._metrics[0]._transform((y_pred, y))
        if labels.ndim != 1 or not len(y_pred) == len(y) == len(labels):
            raise ValueError(
                f"{type(self).__name__}: expected y_pred, y and group_labels (batch,) of one "
                f"batch, got {tuple(y_pred.shape)}, {tuple(y.shape)} and {tuple(labels.shape)}"
            )
        known: dict[Any, Any] = {}
        for group, metric in zip(self.groups, self._metrics, strict=True):
            belongs = labels == group
            if isinstance(metric, ClassCounts) and metric._masks:
                metric._scratch = known  # all groups need the same predicted classes
                kept = belongs.reshape(-1, *[1] * (y.ndim - 1)).expand_as(y)
                counted = metric._find_kept(y)
                metric._count(y_pred, y, kept if counted is None else kept & counted)
                metric._scratch = None
            elif belongs.any():  # as picking waits already
                metric.update((y_pred[belongs], y[belongs]))

    def compute(self) -> Any:
        """Return a dict of the groups' values.

        Raises:
            NotComputableError: there was no example.
        """
        return self._compute_groups()

    def _compute_groups(self) -> dict[Any, Any]:
        values = {}
        for group, metric in zip(self.groups, self._metrics, strict=True):
            try:
                values[group] = metric.compute()
            except NotComputableError:
                continue
        if not values:
            raise NotComputableError(
                f"{type(self).__name__} can't be computed before it saw an example of a group"
            )
        return values


class SubgroupDifference(SubgroupMetric):
    """The largest difference of a metric between two groups; of several classes, the largest.

    Arguments and errors are those of :class:`SubgroupMetric`.

    Example:
        >>> metric = SubgroupDifference(Recall(), groups=[0, 1])
        >>> y_pred, y = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 1, 1, 1])
        >>> metric.update((y_pred, y, torch.tensor([0, 0, 1, 1])))
        >>> metric.compute()
        0.5
    """

    def compute(self) -> float:
        """Return the difference as a float.

        Raises:
            NotComputableError: fewer than two groups have examples.
        """
        groups = self._compute_groups()
        if len(groups) < 2:
            raise NotComputableError(
                f"{type(self).__name__} needs examples of two groups, saw only {list(groups)}"
            )
        values = torch.stack(
            [torch.as_tensor(value, dtype=torch.float64).cpu() for value in groups.values()]
        )
        return (values.amax(0) - values.amin(0)).max().item()


class SubgroupAccuracyDifference(SubgroupDifference):
    """The largest difference of accuracy between two groups.

    Zero is overall accuracy equality (S. Verma and J. Rubin, Fairness definitions explained, 2018).

    Args:
        groups: the groups' labels.
        is_multilabel: equal shapes are multilabel, not binary.
        output_transform: turns the engine's output into ``(y_pred, y, group_labels)``.
        device: where counts are kept; None: where the data are.

    Raises:
        ValueError: as for :class:`SubgroupMetric` and :class:`~cookfire.metrics.Accuracy`.

    Example:
        >>> metric = SubgroupAccuracyDifference(groups=[0, 1])
        >>> y_pred, y = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, 0, 1])
        >>> metric.update((y_pred, y, torch.tensor([0, 0, 1, 1])))
        >>> metric.compute()
        0.5
    """

    def __init__(
        self,
        groups: Sequence[Any],
        is_multilabel: bool = False,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(Accuracy(is_multilabel=is_multilabel), groups, output_transform, device)


class DemographicParityDifference(SubgroupDifference):
    """The largest difference between two groups in how often a class is predicted.

    Zero is demographic parity, also called statistical parity (S. Verma and J. Rubin, Fairness
    definitions explained, 2018). Arguments and errors are those of
    :class:`SubgroupAccuracyDifference`.

    Example:
        >>> metric = DemographicParityDifference(groups=[0, 1])
        >>> y_pred, y = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, 0, 1])
        >>> metric.update((y_pred, y, torch.tensor([0, 0, 1, 1])))
        >>> metric.compute()
        0.5
    """

    def __init__(
        self,
        groups: Sequence[Any],
        is_multilabel: bool = False,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(
            SelectionRate(is_multilabel=is_multilabel), groups, output_transform, device
        )


def _fresh(metric: Metric) -> Metric:
    copy = metric._clone(_fresh)
    copy.reset()
    return copy
