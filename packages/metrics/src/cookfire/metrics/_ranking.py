"""Scores sorted once, from the best down, and how many positives there are above each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics._classification import Task, TaskState, find_task
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair, need_tensors, need_whole, same
from cookfire.metrics.metric import Metric

Mean = Literal["macro", "micro", "weighted"] | None
MEANS = (None, "macro", "micro", "weighted")

_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


class Ranked(NamedTuple):
    """Each distinct score as a threshold, descending: what is predicted positive at or above it."""

    true_positives: Tensor
    """int64, ``(thresholds,)``; the last is the number of positives."""
    predicted: Tensor
    """int64; the last is the number of examples."""
    thresholds: Callable[[], Tensor]

    @property
    def false_positives(self) -> Tensor:
        return self.predicted - self.true_positives


def rank(scores: Tensor, positive: Tensor) -> Ranked:
    """Sort once; equal scores are one threshold.

    Args:
        scores: ``(examples,)``, at least one, none of them nan.
        positive: zeros and ones, as many.
    """
    if not scores.is_floating_point():
        scores = scores.double()
    elif scores.dtype not in _BITS:
        scores = scores.float()
    # A float's bits order like the float, those of negative ones in reverse; their negative
    # descends. Integers are sorted several times faster than floats, and one bit more takes the
    # label along.
    bits = (scores + 0.0).view(_BITS[scores.dtype])  # -0.0 is 0.0
    low, high = (int(limit) for limit in bits.aminmax())
    if low < 0:
        bits = _reverse_negative(bits)
        low, high = (int(limit) for limit in bits.aminmax())
    if scores.dtype == torch.float64:
        keys, order = bits.neg().sort()
        labels = positive.index_select(0, order).long()
        distinct, counts = torch.unique_consecutive(keys, return_counts=True)
    else:
        narrow = low > -(2**30) and high < 2**30  # such as probabilities: 31 bits do
        packed = bits.neg() if narrow else bits.long().neg()
        packed = packed.mul_(2).add_(positive.to(packed.dtype)).sort().values
        labels = packed & 1
        distinct, counts = torch.unique_consecutive(packed >> 1, return_counts=True)
    ends = counts.cumsum(0)
    true_positives = labels.cumsum(0).index_select(0, ends - 1)

    def thresholds() -> Tensor:
        values = _reverse_negative(distinct.neg().to(bits.dtype))
        return values.view(scores.dtype).double()

    return Ranked(true_positives, ends, thresholds)


def _reverse_negative(bits: Tensor) -> Tensor:
    """Return bits with those below the sign flipped if it is set; twice is nothing."""
    sign = torch.iinfo(bits.dtype).bits - 1
    return bits ^ ((bits >> sign) & torch.iinfo(bits.dtype).max)


class RankedHistory(Metric):
    """All scores and targets; kept once for all metrics of an engine with equal settings."""

    _settings = ("_is_multilabel", "_ignore_index")

    scores = MetricState(reduction="cat")
    targets = MetricState(reduction="cat")
    task = TaskState()

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        is_multilabel: bool | None = None,
        ignore_index: int | None = None,
    ) -> None:
        self._is_multilabel = is_multilabel
        """None: if the shapes are equal and there is more than one column."""
        if ignore_index is not None:
            need_whole("ignore_index", ignore_index)
        self._ignore_index = ignore_index
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Keep a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        need_tensors(type(self).__name__, y_pred, y)
        is_multilabel = self._is_multilabel
        if is_multilabel is None:
            is_multilabel = y.ndim > 1 and y_pred.shape == y.shape and y.shape[1] > 1
        task, classes = find_task(type(self).__name__, y_pred, y, is_multilabel=is_multilabel)
        if task == Task.BINARY:
            scores, targets = y_pred.flatten(), y.flatten()
        else:
            scores = y_pred.movedim(1, -1).reshape(-1, classes)
            targets = y.flatten()
            if task == Task.MULTILABEL:
                targets = y.movedim(1, -1).reshape(-1, classes)
        self._merge({"task": TaskState.encode(task, classes), "scores": scores, "targets": targets})

    def _rank_binary(self) -> Ranked:
        if self._kind != Task.BINARY:
            raise ValueError(
                f"{type(self).__name__} is of one class, got scores of {self.scores.shape[1]}: "
                "choose one by output_transform, as (output[0][:, 1], output[1] == 1)"
            )
        return self._rank_each()[0]

    def _rank_each(self) -> list[Ranked]:
        """Return the ranking of each class or label against the rest."""
        derived = self._derived()
        if "each" not in derived:
            derived["each"] = [rank(*pair) for pair in self._pairs()]
        ranked: list[Ranked] = derived["each"]
        return ranked

    def _rank_all(self) -> Ranked:
        """Return the ranking of all classes' scores together."""
        derived = self._derived()
        if "all" not in derived:
            scores, positive = zip(*self._pairs(), strict=True)
            derived["all"] = rank(torch.cat(scores), torch.cat(positive))
        ranked: Ranked = derived["all"]
        return ranked

    def _average(self, average: Mean, value: Callable[[Ranked], Tensor]) -> Tensor:
        if self._kind == Task.BINARY:
            return value(self._rank_binary())
        if average == "micro":
            return value(self._rank_all())
        ranked = self._rank_each()
        values = torch.stack([value(of_class) for of_class in ranked])
        if average == "macro":
            return values.mean()
        if average == "weighted":
            positives = torch.stack([of_class.true_positives[-1] for of_class in ranked])
            # A class that is absent has no say, whatever its value: it may be nan.
            weighted = torch.where(positives > 0, values * positives, 0)
            return weighted.sum() / positives.sum().clamp(min=1)
        return values

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return scores and zeros and ones of each class or label."""
        self._require("scores")
        scores, targets, ignored = self.scores, self.targets, self._ignore_index
        if self._kind == Task.MULTICLASS:
            if ignored is not None:
                kept = targets != ignored
                scores, targets = scores[kept], targets[kept]
            pairs = [(column, targets == number) for number, column in enumerate(scores.unbind(1))]
        elif self._kind == Task.MULTILABEL:
            pairs = list(zip(scores.unbind(1), targets.unbind(1), strict=True))
        else:
            pairs = [(scores, targets)]
        if ignored is not None and self._kind != Task.MULTICLASS:
            pairs = [(values[t != ignored], t[t != ignored]) for values, t in pairs]
        if any(len(values) == 0 for values, _ in pairs):
            raise NotComputableError(
                f"{type(self).__name__} can't be computed: all targets of some class are "
                f"ignore_index={ignored}"
            )
        self._check_pairs(pairs, targets)
        return pairs

    def _check_pairs(self, pairs: list[tuple[Tensor, Tensor]], targets: Tensor) -> None:
        owner = type(self).__name__
        if any(bool(values.amax().isnan()) for values, _ in pairs):
            raise ValueError(f"{owner}: some scores are nan, which have no order")
        if self._kind == Task.MULTICLASS:
            highest = len(pairs) - 1
            wrong = _count_outside(targets, highest)
            expected = f"from 0 to {highest}, the classes that there are scores for"
        else:
            wrong = sum(_count_outside(labels, 1) for _, labels in pairs)
            expected = "0 or 1"
        if wrong:
            raise ValueError(
                f"{owner}: {wrong} targets are not {expected}; leave them out by ignore_index, or "
                "map them by output_transform"
            )

    @property
    def _kind(self) -> Task:
        return TaskState.decode((self._store.reduced or self._store.local).values["task"])[0]

    def _derived(self) -> dict[Hashable, Any]:
        reduced = self._store.reduced
        assert reduced is not None
        return reduced.derived

    def _sharing_key(self) -> Hashable:
        return self._share_updates_of(RankedHistory, self._is_multilabel, self._ignore_index)


class MeanOverClasses(RankedHistory):
    """A value of each class's ranking, and its mean over the classes or labels."""

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        check_compute_fn: bool = False,  # noqa: ARG002 - ignite's signature
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        average: Mean = "macro",
        ignore_index: int | None = None,
    ) -> None:
        check_mean("average", average)
        self.average: Mean = average
        super().__init__(output_transform, device, skip_unrolling, ignore_index=ignore_index)

    def compute(self) -> float | Tensor:
        """Return the value as a float, or of each class as a tensor.

        Raises:
            NotComputableError: there was no example.
        """
        return self._average(self.average, self._value_of)

    @staticmethod
    @abstractmethod
    def _value_of(ranked: Ranked) -> Tensor:
        """Return a class's value, a tensor without dimensions."""


def _count_outside(labels: Tensor, highest: int) -> int:
    """Return how many labels are no whole number from 0 on."""
    if labels.is_floating_point():
        return int(((labels < 0) | (labels > highest) | (labels != labels.trunc())).sum())
    if labels.dtype == torch.bool:
        return 0
    low, high = labels.aminmax()
    if low >= 0 and high <= highest:
        return 0  # nearly always
    return int(((labels < 0) | (labels > highest)).sum())


def check_mean(name: str, value: Any) -> None:
    """Raise ValueError for what is no mean over classes."""
    if value not in MEANS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, MEANS))}, got {value!r}")
