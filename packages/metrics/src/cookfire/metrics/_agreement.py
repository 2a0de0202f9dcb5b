"""Agreement of predictions and targets beyond chance: Cohen's kappa and Matthews' coefficient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from cookfire.metrics._class_counts import ClassCounts
from cookfire.metrics._classification import Task
from cookfire.metrics._values import need_whole, same

_REMEDY = "labels of scores are made by output_transform, as (output[0] > 0.5, output[1])"
Weights = Literal["linear", "quadratic"] | None


class Agreement(ClassCounts):
    """A function of the confusion matrix of scores or labels."""

    _settings = ("num_classes", "_ignore_index")

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        num_classes: int | None = None,
        check: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        if num_classes is not None:
            need_whole("num_classes", num_classes)
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.num_classes = num_classes
        self._wanted = frozenset(
            {"matrix", "labels" if num_classes is None else ("labels", num_classes)}
        )
        super().__init__(
            output_transform,
            device=device,
            skip_unrolling=skip_unrolling,
            check=check,
            ignore_index=ignore_index,
        )

    def _square(self) -> tuple[Tensor, Tensor]:
        """Return the confusion matrix in float64, and the class of each of its rows."""
        matrix = self._matrix()
        if matrix is None or (self.num_classes is None and self._kind == Task.BINARY):
            return self._square_of_labels()
        number = self.num_classes or matrix.shape[1]
        classes = torch.arange(number, dtype=torch.float64, device=matrix.device)
        return matrix[:number, :number].double(), classes

    def _square_of_labels(self) -> tuple[Tensor, Tensor]:
        derived = self._derived()
        if "labels" not in derived:
            predicted, target = self.predicted_labels.double(), self.true_labels.double()
            if self._ignore_index is not None:
                kept = target != self._ignore_index
                predicted, target = predicted[kept], target[kept]
            values = torch.cat([target, predicted])
            wrong = int(torch.count_nonzero(values != values.trunc()))
            if wrong:
                raise ValueError(
                    f"{type(self).__name__}: {wrong} labels are no whole numbers; {_REMEDY}"
                )
            classes, index = torch.unique(values, return_inverse=True)
            rows, columns = index.chunk(2)
            pairs = torch.bincount(rows * len(classes) + columns, minlength=len(classes) ** 2)
            derived["labels"] = pairs.reshape(len(classes), -1).double(), classes
        matrix, classes = derived["labels"]
        return matrix, classes

    def _check_input(self) -> None:
        # Whether labels are zeros and ones matters to others that share the counts.
        if self._kind != Task.BINARY:
            super()._check_input()
        if self.num_classes is not None or self._kind != Task.BINARY:
            self._check_classes(self.num_classes or 2, "; " + _REMEDY)


class CohenKappa(Agreement):
    """Agreement beyond what chance gives: 1 - (disagreement / disagreement by chance).

    With the confusion matrix as shares ``p``, its margins ``r`` and ``c``, and the weight ``w`` of
    a disagreement, kappa is 1 - sum(w p) / sum(w r c) (J. Cohen, A coefficient of agreement for
    nominal scales, 1960; Weighted kappa, 1968). It is 0 where chance leaves nothing to disagree on.

    Args:
        output_transform: turns the engine's output into labels ``(batch,)`` and ``(batch,)``, or
            scores ``(batch, classes, ...)`` and class indices ``(batch, ...)``.
        weights: of a disagreement of the classes i and j: None: 1; ``"linear"``: abs(i - j);
            ``"quadratic"``: (i - j)^2.
        check_compute_fn: has no effect; there is no function of the user's to try.
        device: where counts are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        num_classes: of labels, which are from 0 to ``num_classes - 1``. None: labels are any whole
            numbers, and all of them are kept until the value is computed. Scores tell by
            themselves, and a matrix is all that is kept.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: unknown ``weights``; fewer than 2 classes; by ``update``, shapes that don't fit;
            by ``compute``, labels that are no classes.

    Example:
        >>> metric = CohenKappa()
        >>> metric.update((torch.tensor([0, 0, 2, 2, 0, 2]), torch.tensor([2, 0, 2, 2, 0, 1])))
        >>> round(metric.compute(), 6)
        0.428571
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        weights: Weights = None,
        check_compute_fn: bool = False,  # noqa: ARG002 - ignite's signature
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        num_classes: int | None = None,
        *,
        ignore_index: int | None = None,
    ) -> None:
        if weights not in (None, "linear", "quadratic"):
            raise ValueError(f"weights must be None, 'linear' or 'quadratic', got {weights!r}")
        self.weights: Weights = weights
        super().__init__(
            output_transform,
            device,
            skip_unrolling,
            num_classes=num_classes,
            ignore_index=ignore_index,
        )

    def compute(self) -> float | Tensor:
        """Return kappa as a float, at most 1.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        matrix, classes = self._square()
        distance = (classes.unsqueeze(1) - classes).abs()
        weight = {
            None: (distance > 0).double(),
            "linear": distance,
            "quadratic": distance.square(),
        }[self.weights]
        by_chance = torch.outer(matrix.sum(1), matrix.sum(0)) / matrix.sum()
        expected = (weight * by_chance).sum()
        return torch.where(expected > 0, 1 - (weight * matrix).sum() / expected, 0.0)


class MatthewsCorrCoef(Agreement):
    """The correlation of predictions and targets, from -1 to 1; 0 where one of them is constant.

    For classes k with t_k targets and p_k predictions, of n examples c right ones:
    (c n - sum t_k p_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum t_k^2)) (J. Gorodkin, Comparing two
    K-category assignments by a K-category correlation coefficient, 2004), which for two classes is
    Matthews' coefficient.

    Args:
        output_transform: as for :class:`CohenKappa`.
        check_compute_fn: has no effect; there is no function of the user's to try.
        device: where counts are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        num_classes: as for :class:`CohenKappa`.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: fewer than 2 classes; by ``update``, shapes that don't fit; by ``compute``,
            labels that are no classes.

    Example:
        >>> metric = MatthewsCorrCoef()
        >>> metric.update((torch.tensor([1, 1, 1, -1]), torch.tensor([1, -1, 1, 1])))
        >>> round(metric.compute(), 6)
        -0.333333
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        check_compute_fn: bool = False,  # noqa: ARG002 - ignite's signature
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        *,
        num_classes: int | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(
            output_transform,
            device,
            skip_unrolling,
            num_classes=num_classes,
            ignore_index=ignore_index,
        )

    def compute(self) -> float | Tensor:
        """Return the coefficient as a float.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        matrix, _ = self._square()
        number, target, predicted = matrix.sum(), matrix.sum(1), matrix.sum(0)
        covariance = matrix.trace() * number - (target * predicted).sum()
        spread = [number.square() - counts.square().sum() for counts in (target, predicted)]
        varies = spread[0] * spread[1] > 0
        return torch.where(varies, covariance / spread[0].sqrt() / spread[1].sqrt(), 0.0)
