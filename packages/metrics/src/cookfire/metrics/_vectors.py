"""How far vectors lie apart, and how alike their directions are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, pairwise_distance

from cookfire.metrics._pairs import SumOverPairs
from cookfire.metrics._values import need_number, same


class MeanPairwiseDistance(SumOverPairs):
    """The mean distance of each predicted vector from the true one, ``||y_pred - y + eps||_p``.

    ``y_pred`` and ``y`` have one shape ``(batch, ..., features)``; the distances within an example
    are summed. Dtypes as for :class:`~cookfire.metrics.MeanAbsoluteError`.

    Args:
        p: which norm: 2 is the Euclidean one.
        eps: added to each difference, as :class:`torch.nn.PairwiseDistance` does.
        output_transform: turns the engine's output into ``(y_pred, y)``.
        device: where the sum is kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: by ``update``, shapes that don't fit.
        TypeError: by ``update``, booleans or complex numbers.

    Example:
        >>> metric = MeanPairwiseDistance(eps=0.0)
        >>> metric.update((torch.zeros(2, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]])))
        >>> metric.compute()
        3.0
    """

    _settings = ("_p", "_eps")

    def __init__(
        self,
        p: int = 2,
        eps: float = 1e-6,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        need_number("p", p)
        need_number("eps", eps)
        self._p = p
        self._eps = eps
        super().__init__(output_transform, device, skip_unrolling)

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        y_pred, y = _vectors(self, *self._pair(y_pred, y))
        return pairwise_distance(y_pred, y, p=self._p, eps=self._eps).sum()


class CosineSimilarity(SumOverPairs):
    """The mean cosine of the angle between each predicted vector and the true one.

    ``x . y / (max(||x||, eps) max(||y||, eps))``, as :func:`torch.nn.functional.cosine_similarity`
    has it; a vector of zeros gives 0. ``y_pred`` and ``y`` have one shape ``(batch, ...)``, and
    each example is one vector. Dtypes as for :class:`~cookfire.metrics.MeanAbsoluteError`.

    Args:
        eps: the smallest norm divided by.
        output_transform: turns the engine's output into ``(y_pred, y)``.
        device: where the sum is kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: by ``update``, shapes that don't fit.
        TypeError: by ``update``, booleans or complex numbers.

    Example:
        >>> metric = CosineSimilarity()
        >>> metric.update((torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.eye(2)))
        >>> metric.compute()
        0.5
    """

    _settings = ("_eps",)

    def __init__(
        self,
        eps: float = 1e-8,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        need_number("eps", eps)
        self._eps = eps
        super().__init__(output_transform, device, skip_unrolling)

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        y_pred, y = _vectors(self, *self._pair(y_pred, y))
        return cosine_similarity(y_pred.flatten(1), y.flatten(1), dim=1, eps=self._eps).sum()


def _vectors(metric: SumOverPairs, y_pred: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if y_pred.ndim < 2:
        raise ValueError(
            f"{type(metric).__name__}: expected vectors (batch, features), got "
            f"{tuple(y_pred.shape)}: reshape them by output_transform"
        )
    return y_pred, y
