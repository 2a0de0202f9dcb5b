"""The statistic of which most classification metrics are made: one count for all of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._classification import (
    Classification,
    Task,
    TaskState,
    count_not_binary,
    predict_classes,
    tell_what_to_do,
)
from cookfire.metrics._counting import count_labels, count_pairs, count_per_class
from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import need_pair

_CORRECT = frozenset({"correct"})
FEW = 32
"""Classes up to which the confusion matrix is counted, which is the faster way for few."""


class ClassCounts(Classification):
    """The counts of which accuracy, precision, recall, the confusion matrix and more are made.

    A metric says in ``_wanted`` what it needs of:

    - ``"correct"``: how many examples are right altogether;
    - ``"per class"``: true positives, predictions and targets of each class or label;
    - ``"matrix"``: the confusion matrix, whatever the number of classes;
    - ``"ratios"``: sums over samples of precision and of recall, of multilabel input;
    - ``"labels"``: all labels of equal shapes, as nobody says how many classes they have;
    - ``"samples"``: the length of the batches;
    - ``("scores", n)``, ``("labels", n)``, ``("multilabel", n)``: that there are n classes.

    All metrics of an engine with equal settings share one store, and what is counted is the least
    that serves all of them. Binary and multilabel predictions must be zeros and ones: that scores
    were given instead is noticed without waiting for the device, and ``compute`` raises.
    """

    not_binary = MetricState(torch.int64)
    """What should be 0 or 1 and is neither; targets that are not whole."""
    matrix = MetricState(torch.int64, shape=("_bins",))
    """The confusion matrix ``[y, y_pred]``, row by row: of scores with a row more for targets that
    are no class, of equal shapes with such a column too."""
    rows = MetricState(torch.int64, shape=None)
    """``[true positives, predicted, actual]`` for each of many classes, and ``actual`` for what is
    no class; or for each label, with a row ``kept`` if some are left out."""
    correct = MetricState(torch.int64)
    """Examples that are right, where neither of them tells."""
    ratios = MetricState(torch.float64, shape=None)
    count = MetricState(torch.int64)
    """Examples."""
    samples = MetricState(torch.int64)
    predicted_labels = MetricState(reduction="cat")
    true_labels = MetricState(reduction="cat")

    def update(self, output: Sequence[Tensor]) -> None:
        """Count a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        self._count(y_pred, y, None if self._ignore_index is None else self._find_kept(y))

    def _count(self, y_pred: Tensor, y: Tensor, kept: Tensor | None) -> None:
        """Count a batch's positions that are kept; all if ``kept`` is None."""
        task, classes = self._find_task(y_pred, y)
        wanted = self._store.wanted
        values: dict[str, Any]
        if task is Task.MULTICLASS:
            predicted = self._once("classes", y_pred, predict_classes)
            if wanted == _CORRECT:
                right = predicted == y
                right = torch.count_nonzero(right if kept is None else right & kept)
                values = {"correct": right}
            elif classes > FEW and "matrix" not in wanted:
                values = {"rows": count_per_class(predicted, y, classes, kept)}
            else:
                values = {"matrix": count_pairs(predicted, y, classes, kept)}
            if y.is_floating_point():
                broken = y != y.trunc()
                broken = broken if kept is None else broken & kept
                values["not_binary"] = torch.count_nonzero(broken)
        elif task is Task.BINARY:
            values = self._count_equal_shapes(y_pred, y, kept)
        else:
            values = self._count_multilabel(y_pred, y, kept)
        if kept is None:
            values["count"] = y.numel() if task is not Task.MULTILABEL else y.numel() // classes
        else:
            values["count"] = (kept if task is not Task.MULTILABEL else kept.any(1)).sum()
        if "samples" in wanted:
            if kept is not None and kept.ndim > 1:
                kept = kept.flatten(1).any(1)
            values["samples"] = y.shape[0] if kept is None else kept.sum()
        if self._store.local.values["task"] is None:
            values["task"] = TaskState.encode(task, classes)
        self._merge(values)

    def _count_equal_shapes(self, y_pred: Tensor, y: Tensor, kept: Tensor | None) -> dict[str, Any]:
        wanted, values = self._store.wanted, dict[str, Any]()
        numbers = _numbers(wanted, "labels")
        if "labels" in wanted:
            values |= {"predicted_labels": y_pred.flatten(), "true_labels": y.flatten()}
        if y_pred.dtype is not torch.bool and ("per class" in wanted or "correct" in wanted):
            values["not_binary"] = count_not_binary(y_pred.reshape(y.shape), kept)
        if "per class" in wanted or numbers:
            values["matrix"] = count_labels(y_pred, y, max(numbers, default=2), kept)
        elif "correct" in wanted:
            right = y_pred.reshape(y.shape) == y
            values["correct"] = torch.count_nonzero(right if kept is None else right & kept)
        return values

    def _count_multilabel(self, y_pred: Tensor, y: Tensor, kept: Tensor | None) -> dict[str, Any]:
        wanted, values = self._store.wanted, dict[str, Any]()
        if not (y_pred.dtype is y.dtype is torch.bool):
            values["not_binary"] = count_not_binary(y_pred, kept) + count_not_binary(y, kept)
        if "correct" in wanted:
            right = y_pred == y
            right = right.all(1) if kept is None else (right | ~kept).all(1) & kept.any(1)
            values["correct"] = torch.count_nonzero(right)
        if "per class" not in wanted and "ratios" not in wanted:
            return values
        predicted, actual = y_pred.bool(), y.bool()
        if kept is not None:
            predicted, actual = predicted & kept, actual & kept
        if "ratios" in wanted:
            values["ratios"] = _sum_ratios(predicted, actual)
        if "per class" in wanted:
            rows = [predicted & actual, predicted, actual, *([] if kept is None else [kept])]
            values["rows"] = torch.stack(rows).sum([1, *range(3, y.ndim + 1)])
        return values

    def _check_shapes(self, y_pred: Tensor, y: Tensor, task: Task, classes: int) -> None:
        wanted = self._store.wanted
        if "ratios" in wanted and task != Task.MULTILABEL:
            raise ValueError(
                f"{type(self).__name__}: average='samples' is for multilabel input, got "
                f"{task.name.lower()} input; is_multilabel=True, or another average"
            )
        are_labels = task == Task.BINARY and ("labels" in wanted or _numbers(wanted, "labels"))
        if are_labels and y.numel() != y.shape[0]:
            raise ValueError(
                f"{type(self).__name__}: expected labels (batch,), or scores (batch, classes, ...) "
                f"and class indices (batch, ...), got {tuple(y_pred.shape)} and {tuple(y.shape)}: "
                "reshape them by output_transform"
            )
        for number in _numbers(wanted, "scores"):
            if task != Task.MULTICLASS or classes != number:
                raise ValueError(
                    f"ConfusionMatrix(num_classes={number}): expected scores (batch, {number}, "
                    f"...) and class indices (batch, ...), got {tuple(y_pred.shape)} and "
                    f"{tuple(y.shape)}: reshape them by output_transform"
                )
        for kind in ("labels", "multilabel"):
            for number in _numbers(wanted, kind):
                if task != Task.BINARY and classes != number:
                    raise ValueError(
                        f"{type(self).__name__}: num_classes is {number}, got {classes} classes of "
                        f"shapes {tuple(y_pred.shape)} and {tuple(y.shape)}"
                    )

    # What formulas read

    def _count_right(self) -> Any:
        """Return how many examples are right: a number, or a tensor not to wait."""
        matrix, right = self._matrix(), self._as_number("correct")
        if matrix is not None:
            return right + self._exact(matrix[:-1].trace())
        if self._values()["rows"] is not None and self._kind != Task.MULTILABEL:
            return right + self._exact(self.rows[0, :-1].sum())
        return right

    def _matrix(self) -> Tensor | None:
        """Return the confusion matrix as it is counted, None if it is not."""
        flat = self._values()["matrix"]
        # n classes have (n + 1) * n elements, or (n + 1)^2.
        return None if flat is None else self.matrix.view(-1, math.isqrt(flat.numel()))

    def _per_class(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return true positives, predictions and targets of each class or label, in float64."""
        derived = self._derived()
        if "per class" not in derived:
            matrix = self._matrix()
            if matrix is None:
                rows = self.rows
                found = rows[:3] if self._kind == Task.MULTILABEL else rows[:, :-1]
                derived["per class"] = found.double().unbind()
            else:
                number = 2 if self._kind == Task.BINARY else matrix.shape[1]
                exact = matrix.double()
                sums = exact.diagonal(), exact.sum(0), exact.sum(1)
                derived["per class"] = [of_class.narrow(0, 0, number) for of_class in sums]
        hits, predicted, actual = derived["per class"]
        return hits, predicted, actual

    def _check_input(self) -> None:
        reduced = self._store.reduced
        assert reduced is not None
        if reduced.values["not_binary"] is None:
            return
        wrong = int(self.not_binary)
        if wrong and self._kind == Task.MULTICLASS:
            raise ValueError(
                f"{type(self).__name__}: {wrong} elements of y are not whole: expected class "
                "indices, or of one-hot targets output_transform=lambda output: (output[0], "
                "output[1].argmax(1))"
            )
        if wrong:
            raise ValueError(
                f"{type(self).__name__}: {wrong} predictions or labels were neither 0 nor 1: "
                f"{tell_what_to_do(self._kind)}"
            )

    def _check_classes(self, number: int = 2, remedy: str = "") -> None:
        """Raise for targets that are no class; of equal shapes there are ``number`` classes."""
        derived, key = self._derived(), ("checked", number)
        if key in derived:
            return
        matrix, wrong, expected = self._matrix(), 0, ""
        if self._kind == Task.BINARY:
            if matrix is not None:
                wrong = int(matrix.sum() - matrix[:number, :number].sum())
            expected = "0 and 1" if number == 2 else f"0 to {number - 1}"
        elif self._kind == Task.MULTICLASS:
            beyond = self.rows[2, -1] if matrix is None else matrix[-1].sum()
            wrong = int(beyond)
            highest = (self.rows.shape[1] - 1 if matrix is None else matrix.shape[1]) - 1
            expected = f"those that y_pred has scores for, 0 to {highest}"
        if wrong:
            raise ValueError(
                f"{type(self).__name__}: {wrong} examples had other classes than {expected}; "
                f"leave them out by ignore_index, or map them by output_transform{remedy}"
            )
        derived[key] = True

    def _values(self) -> dict[str, Any]:
        return (self._store.reduced or self._store.local).values

    def _derived(self) -> dict[Hashable, Any]:
        reduced = self._store.reduced
        assert reduced is not None
        return reduced.derived

    @property
    def _masks(self) -> bool:
        """Whether ``_count`` can be told what to leave out."""
        return type(self).update is ClassCounts.update and "labels" not in self._store.wanted

    # How it is shared, and what of it travels

    def _sharing_key(self) -> Hashable:
        return self._share_updates_of(
            ClassCounts, self._is_multilabel, self._ignore_index, self._check
        )

    @property
    def _states_in_use(self) -> list[str]:
        wanted = self._store.wanted
        used = ["not_binary", "count", "task"]
        used += [name for name in ("correct", "ratios", "samples") if name in wanted]
        if wanted - {"correct", "ratios", "samples"}:
            used.append("matrix")
        if "per class" in wanted:
            used.append("rows")
        if "labels" in wanted:
            used += ["predicted_labels", "true_labels"]
        return used

    @property
    def _bins(self) -> int | None:
        """The elements of ``matrix``, where they are known without data."""
        number = next(iter(_numbers(self._store.wanted, "scores")), None)
        return None if number is None else (number + 1) * number


def _numbers(wanted: frozenset[Hashable], kind: str) -> list[int]:
    """Return the numbers of classes that are wanted of a kind."""
    return sorted(entry[1] for entry in wanted if isinstance(entry, tuple) and entry[0] == kind)


def _sum_ratios(predicted: Tensor, actual: Tensor) -> Tensor:
    """Return the sums over samples of precision and of recall."""
    hits = (predicted & actual).sum(1)
    precise = torch.float32 if hits.device.type in WITHOUT_FLOAT64 else torch.float64
    of = predicted.sum(1), actual.sum(1)
    return torch.stack([(hits.to(precise) / found.clamp(min=1)).sum() for found in of])
