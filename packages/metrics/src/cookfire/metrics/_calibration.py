"""How far confidence is from accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cookfire.metrics._classification import Classification, Task, TaskState
from cookfire.metrics._counting import count, to_indices
from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import need_pair, need_whole, same

Norm = Literal["l1", "l2", "max"]
_NORMS = ("l1", "l2", "max")


class CalibrationError(Classification):
    """The difference of confidence and accuracy, over bins of confidence.

    With the share n_b of examples in bin b, their accuracy a_b and mean confidence c_b: the
    expected calibration error sum n_b abs(a_b - c_b), the root of the mean square, or the maximum
    (C. Guo et al., On calibration of modern neural networks, 2017). Bins are of equal width, each
    with its lower edge, the last with both. Memory is that of the bins.

    Args:
        num_bins: how many; 15 as in the paper.
        norm: ``"l1"``: the expected error; ``"l2"``: the root mean square; ``"max"``: the maximum.
        output_transform: turns the engine's output into ``(y_pred, y)``, one of

            - multiclass: probabilities ``(batch, classes, ...)`` and class indices
              ``(batch, ...)``: the highest probability is the confidence, and its class is right or
              not;
            - binary: probabilities of the class 1, and zeros and ones, of equal shapes: the share
              of ones is in place of the accuracy.
        device: where sums are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: fewer than 1 bin, or an unknown ``norm``; by ``update``, shapes that fit no task
            or another than before; by ``compute``, confidences that are not from 0 to 1, or
            targets that are no class.

    Example:
        >>> metric = CalibrationError(num_bins=2)
        >>> metric.update((torch.tensor([0.25, 0.25, 0.75, 1.0]), torch.tensor([0, 1, 1, 1])))
        >>> metric.compute()
        0.1875
    """

    _settings = ("_is_multilabel", "_ignore_index", "num_bins")

    confidence = MetricState(torch.float64, shape=("num_bins",))
    """Sums of confidences in each bin."""
    bins = MetricState(torch.int64, shape=(2, "num_bins"))
    """Examples that are wrong and that are right in each bin."""
    count = MetricState(torch.int64)
    outside = MetricState(torch.int64)
    """Confidences that are not from 0 to 1."""
    no_class = MetricState(torch.int64)
    """Targets that are none."""

    def __init__(
        self,
        num_bins: int = 15,
        norm: Norm = "l1",
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        ignore_index: int | None = None,
    ) -> None:
        need_whole("num_bins", num_bins)
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}")
        if norm not in _NORMS:
            raise ValueError(f"norm must be one of {', '.join(map(repr, _NORMS))}, got {norm!r}")
        self.num_bins = num_bins
        self._norm: Norm = norm
        super().__init__(
            output_transform,
            device=device,
            skip_unrolling=skip_unrolling,
            ignore_index=ignore_index,
        )

    def update(self, output: Sequence[Tensor]) -> None:
        """Sort a batch into the bins."""
        y_pred, y = need_pair(type(self).__name__, output)
        kept = self._find_kept(y)
        task, classes = self._find_task(y_pred, y)
        if task == Task.MULTICLASS:
            confidence, predicted = y_pred.max(1)
            right = predicted == y
        else:
            confidence, right = y_pred.reshape(y.shape), y == 1
        wrong = (y < 0) | (y > max(classes - 1, 1)) | (to_indices(y) != y)
        wrong = torch.count_nonzero(wrong if kept is None else wrong & kept)
        confidence, right = confidence.flatten().contiguous(), right.flatten()
        if confidence.dtype != torch.float64:
            confidence = confidence.float()
        last = self.num_bins - 1
        inside = (confidence >= 0) & (confidence <= 1)
        if kept is not None:
            inside = inside | ~kept.flatten()
        edges = torch.linspace(0, 1, self.num_bins + 1, device=y.device, dtype=confidence.dtype)
        index = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, last)
        if kept is not None:  # into a bin more, which is cut off
            index = index.where(kept.flatten(), self.num_bins)
        width = self.num_bins + 1
        bins = count(torch.add(index, right, alpha=width), 2 * width).reshape(2, width)
        device_type = confidence.device.type
        precise = confidence.to(torch.float32 if device_type in WITHOUT_FLOAT64 else torch.float64)
        sums = precise.new_zeros(width).scatter_add_(0, index, precise)
        self.accumulate(
            confidence=sums[:-1],
            bins=bins[:, :-1],
            count=y.numel() if kept is None else kept.sum(),
            outside=torch.count_nonzero(~inside),
            no_class=wrong,
            task=TaskState.encode(task, classes),
        )

    def compute(self) -> float | Tensor:
        """Return the error as a float, from 0 to 1.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        wrong, right = self.bins.double().unbind()
        number = wrong + right
        gap = (right - self.confidence).abs() / number.clamp(min=1)
        if self._norm == "max":
            return gap.max()
        share = number / number.sum()
        if self._norm == "l2":
            return (share * gap.square()).sum().sqrt()
        return (share * gap).sum()

    def _check_input(self) -> None:
        outside = int(self.outside)
        if outside:
            raise ValueError(
                f"CalibrationError: {outside} confidences were not from 0 to 1: make probabilities "
                "of scores, as in output_transform=lambda output: (output[0].softmax(1), output[1])"
            )
        no_class = int(self.no_class)
        if no_class:
            highest = max(TaskState.decode(self.task)[1] - 1, 1)
            raise ValueError(
                f"CalibrationError: {no_class} targets were no classes from 0 to {highest}; "
                "leave them out by ignore_index, or map them by output_transform"
            )
