"""What classification metrics share: which task their input is, and classes from scores.

The input of all of them is a pair ``(y_pred, y)``, and the shapes tell which task it is:

==========  ==============================  =============================  =======================
task        ``y_pred``                      ``y``                          when
==========  ==============================  =============================  =======================
multiclass  scores ``(batch, classes,       class indices                  a dimension more in
            ...)``                          ``(batch, ...)``               ``y_pred``
binary      zeros and ones ``(batch,        zeros and ones                 equal shapes, one class
            ...)`` or ``(batch, 1, ...)``   ``(batch, ...)``
multilabel  zeros and ones                  zeros and ones                 ``is_multilabel=True``
            ``(batch, labels, ...)``        ``(batch, labels, ...)``
==========  ==============================  =============================  =======================

Scores may be logits or probabilities of any floating dtype; the first of equal scores is predicted,
and nan counts as higher than any number. Zeros and ones, and class indices, may be bools, integers
or whole floats; a float that is not whole is no class, like an index out of range. Metrics of
scores themselves (ROC_AUC, AveragePrecision, CalibrationError) take scores in place of predicted
zeros and ones, and those of agreement (CohenKappa, MatthewsCorrCoef) labels in place of zeros and
ones. The task must not change between updates.

Targets equal to ``ignore_index``, and what is predicted there, are as if they were not in the
batch; of multilabel input each label by itself. Other values out of range are counted on the device
and reported by ``compute``, or by ``update`` with ``check=True``, which waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from cookfire.metrics._counting import to_indices
from cookfire.metrics._state import MetricState, Value
from cookfire.metrics._values import need_tensors, need_whole, same
from cookfire.metrics.metric import Metric

_DTYPES = {
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
}
_PLANE = 4096
"""Positions per class from which the classes of an image are found plane by plane."""
_CHUNK = 65536
"""Positions looked at together, so that what is compared stays in the cache."""


class Task(IntEnum):
    """What ``y_pred`` and ``y`` are."""

    BINARY = 1
    MULTICLASS = 2
    MULTILABEL = 3


class TaskState(MetricState):
    """The task and its number of classes, as one number that all updates and ranks agree on."""

    def __init__(self) -> None:
        super().__init__(torch.int64, reduction="same")

    @staticmethod
    def encode(task: Task, classes: int) -> int:
        """Return the state's value."""
        return 4 * classes + task

    @staticmethod
    def decode(value: Any) -> tuple[Task, int]:
        """Return task and number of classes."""
        classes, task = divmod(int(value), 4)
        return Task(task), classes

    def tell(self, value: Value) -> str:
        """Return the value in words."""
        return f"{_tell(*self.decode(value))} input"


class _Seen(NamedTuple):
    """The input of the last update."""

    y_pred: torch.Size
    y: torch.Size
    task: tuple[Task, int]


def find_task(owner: str, y_pred: Tensor, y: Tensor, *, is_multilabel: bool) -> tuple[Task, int]:
    """Return the task, and the number of classes or labels (1 for binary), by shapes alone.

    Raises:
        TypeError: no tensors, or none of real numbers or booleans.
        ValueError: the shapes fit no task, or the devices differ.
    """
    need_tensors(owner, y_pred, y)
    if y_pred.dtype not in _DTYPES or y.dtype not in _DTYPES:
        raise TypeError(
            f"{owner}: got y_pred of {y_pred.dtype} and y of {y.dtype}: expected booleans, "
            "integers up to int64, or floats; convert them by output_transform"
        )
    if y_pred.device != y.device:
        raise ValueError(
            f"{owner}: got y_pred on {y_pred.device} and y on {y.device}: move one of them by "
            "output_transform"
        )
    of_pred, of_y = y_pred.shape, y.shape
    if of_pred and of_y:
        if is_multilabel:
            if of_pred == of_y and len(of_y) > 1 and of_y[1] > 1:
                return Task.MULTILABEL, of_y[1]
        elif of_pred == of_y:
            return Task.BINARY, 1
        elif len(of_pred) > len(of_y) and (of_pred[0], *of_pred[2:]) == of_y and of_pred[1]:
            classes = of_pred[1]
            if classes > 1 and y_pred.dtype is torch.bool:
                raise TypeError(
                    f"{owner}: got scores of {y_pred.dtype}: expected floats or integers"
                )
            return (Task.BINARY, 1) if classes == 1 else (Task.MULTICLASS, classes)
    shapes = f"got y_pred {tuple(of_pred)} and y {tuple(of_y)}"
    if not of_pred or not of_y:
        raise ValueError(f"{owner}: {shapes}: both need a batch dimension")
    if is_multilabel:
        raise ValueError(
            f"{owner}(is_multilabel=True): {shapes}: expected equal shapes (batch, labels, ...) "
            "with more than one label"
        )
    raise ValueError(
        f"{owner}: {shapes}: expected scores (batch, classes, ...) with class indices "
        "(batch, ...), or two equal shapes of zeros and ones; reshape them by output_transform"
    )


def predict_classes(scores: Tensor) -> Tensor:
    """Return the class of the highest score, the first of equals: ``(N, C, ...) -> (N, ...)``.

    A score that is nan is higher than any number, as for torch's ``argmax``.

    On a CPU torch's ``argmax`` along the classes of an image is slow, since they lie far apart in
    memory. There the classes are compared plane by plane, several times faster.
    """
    if scores.ndim > 2 and scores.device.type == "cpu":
        planes = scores.detach().flatten(2)
        if planes.shape[2] >= _PLANE and planes.stride(2) == 1 and planes.shape[1] < 256:
            return _classes_by_planes(planes).reshape(scores.shape[0], *scores.shape[2:])
    return scores.argmax(dim=1)


def _classes_by_planes(planes: Tensor) -> Tensor:
    number, classes, positions = planes.shape
    found = torch.zeros(number, positions, dtype=torch.uint8)
    for image, classes_of_image in zip(planes, found, strict=True):
        for start in range(0, positions, _CHUNK):
            chunk = image[:, start : start + _CHUNK]
            index = classes_of_image[start : start + _CHUNK]
            best = chunk[0].clone()
            for number_of_class in range(1, classes):
                plane = chunk[number_of_class]
                # A later class wins only if it is better; its number is the largest yet.
                better = (plane > best).view(torch.uint8).mul_(number_of_class)
                torch.maximum(index, better, out=index)
                torch.maximum(best, plane, out=best)
            if has_nan(best):
                index.copy_(chunk.argmax(0))
    return found


def has_nan(scores: Tensor) -> bool:
    """Tell whether scores on a CPU may have a nan, or infinities of both signs, in their sum."""
    return bool(scores.sum().isnan())


def count_not_binary(values: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return how many values, of those that are kept, are neither 0 nor 1."""
    if values.dtype is torch.bool:
        return torch.zeros((), dtype=torch.int64, device=values.device)
    wrong = values * values - values  # also of what is not finite
    return torch.count_nonzero(wrong if kept is None else (wrong != 0) & kept)


class Classification(Metric):
    """A metric of ``(y_pred, y)`` for a classification task, which the shapes tell."""

    _settings: ClassVar[tuple[str, ...]] = ("_is_multilabel", "_ignore_index")

    task = TaskState()

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        is_multilabel: bool = False,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        check: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        self._is_multilabel = is_multilabel
        self._check = check
        if ignore_index is not None:
            need_whole("ignore_index", ignore_index)
        self._ignore_index = ignore_index
        self._seen: _Seen | None = None
        super().__init__(output_transform, device, skip_unrolling)

    def reset(self) -> None:
        """Forget everything, the task included."""
        super().reset()
        self._seen = None

    def _find_task(self, y_pred: Tensor, y: Tensor) -> tuple[Task, int]:
        """Return task and classes, which must not change between updates."""
        seen = self._seen
        try:
            is_known = seen is not None and seen.y_pred == y_pred.shape and seen.y == y.shape
        except AttributeError:
            is_known = False  # they are no tensors, and find_task says so
        if seen is None or not is_known:
            task = find_task(type(self).__name__, y_pred, y, is_multilabel=self._is_multilabel)
            before = self._store.local.values["task"]
            type(self).task.merge(before, TaskState.encode(*task), self)  # raises if it is another
            self._check_shapes(y_pred, y, *task)
            seen = self._seen = _Seen(y_pred.shape, y.shape, task)
        if self._check:
            self._check_values(y_pred, y, *seen.task)
        return seen.task

    @property
    def _kind(self) -> Task:
        """The task that there was."""
        return TaskState.decode((self._store.reduced or self._store.local).values["task"])[0]

    def _find_kept(self, y: Tensor) -> Tensor | None:
        """Return which elements of ``y`` count; None: all."""
        return None if self._ignore_index is None else y != self._ignore_index

    def _check_shapes(self, y_pred: Tensor, y: Tensor, task: Task, classes: int) -> None:
        """Raise ValueError for shapes that fit the task but not the settings."""

    def _check_values(self, y_pred: Tensor, y: Tensor, task: Task, classes: int) -> None:
        owner = type(self).__name__
        kept = self._find_kept(y)
        if task == Task.MULTICLASS:
            outside = (y < 0) | (y >= classes) | (to_indices(y) != y)
            wrong = int(torch.count_nonzero(outside if kept is None else outside & kept))
            expected = f"whole numbers from 0 to {classes - 1}, as y_pred has {classes} classes"
            if wrong:
                raise ValueError(f"{owner}: {wrong} elements of y are not {expected}")
            wrong = int(torch.count_nonzero(y_pred != y_pred))
            if wrong:
                raise ValueError(f"{owner}: {wrong} scores are nan, which have no order")
            return
        for name, values in (("y_pred", y_pred), ("y", y)):
            wrong = int(count_not_binary(values.reshape(y.shape), kept))
            if wrong:
                raise ValueError(
                    f"{owner}: {wrong} elements of {name} are neither 0 nor 1: "
                    f"{tell_what_to_do(task)}"
                )

    @staticmethod
    def get_sequence_transform(
        ignore_index: int | Iterable[int] | None = None,
        output_transform: Callable[[Any], Any] = same,
    ) -> Callable[[Any], tuple[Tensor, Tensor]]:
        """Return an ``output_transform`` for sequences: one example a position, padding left out.

        Args:
            ignore_index: targets that are padding, or one of them; None if there is none. Leaving
                them out waits for the device.
            output_transform: gives scores ``(batch, length, classes)`` and targets
                ``(batch, length)``.

        Raises:
            ValueError: by what it returns, for other shapes.

        Example:
            >>> metric = Accuracy(output_transform=Accuracy.get_sequence_transform(ignore_index=0))
        """
        ignored = (
            list(ignore_index)
            if isinstance(ignore_index, Iterable)
            else []
            if ignore_index is None
            else [ignore_index]
        )

        def transform(output: Any) -> tuple[Tensor, Tensor]:
            y_pred, y = output_transform(output)
            if y_pred.ndim != 3 or y_pred.shape[:2] != y.shape:
                raise ValueError(
                    "expected y_pred of shape (batch, length, classes) and y of shape "
                    f"(batch, length), got {tuple(y_pred.shape)} and {tuple(y.shape)}"
                )
            y_pred, y = y_pred.flatten(0, 1), y.flatten()
            if ignored:
                kept = ~torch.isin(y, torch.tensor(ignored, device=y.device))
                y_pred, y = y_pred[kept], y[kept]
            return y_pred, y

        return transform


def tell_what_to_do(task: Task) -> str:
    """Return the remedy for scores where zeros and ones are expected."""
    remedy = "threshold scores, as in output_transform=lambda output: (output[0] > 0.5, output[1])"
    if task == Task.BINARY:
        remedy += "; for scores with one-hot targets, (output[0], output[1].argmax(1))"
    return remedy


def _tell(task: Task, classes: int) -> str:
    return task.name.lower() + (f" of {classes}" if task != Task.BINARY else "")
