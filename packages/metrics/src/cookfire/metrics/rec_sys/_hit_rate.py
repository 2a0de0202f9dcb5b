"""The hit rate: for how many users something relevant is recommended."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair, same
from cookfire.metrics.metric import Metric
from cookfire.metrics.rec_sys._input import check_shapes, sort_ks


class HitRate(Metric):
    """The share of users who have a relevant item among the ``k`` with the highest scores.

    Of items with equal scores the first comes first, on every device. An item whose score is not a
    number is never a hit.

    Args:
        top_k: one ``k`` or several, for a value each.
        ignore_zero_hits: leave out users without any relevant item; False: they count as missed.
        output_transform: turns the engine's output into scores and relevance, both
            ``(users, items)``; what is above 0 is relevant.
        device: where counts are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: a ``k`` is no integer above 0; by ``update``, other shapes.

    Example:
        >>> metric = HitRate(top_k=[1, 2])
        >>> scores = torch.tensor([[4.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
        >>> metric.update((scores, torch.tensor([[0, 0, 1], [0, 0, 1]])))
        >>> metric.compute()
        [0.5, 1.0]
    """

    _settings = ("top_k", "ignore_zero_hits")

    hits = MetricState(torch.int64, shape=("_number",))
    count = MetricState(torch.int64)

    def __init__(
        self,
        top_k: list[int] | int = 1,
        ignore_zero_hits: bool = True,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        self.top_k = sort_ks(top_k)
        self.ignore_zero_hits = ignore_zero_hits
        self._number = len(self.top_k)
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Count a batch's users and hits."""
        scores, y = need_pair(type(self).__name__, output)
        check_shapes("HitRate", scores, y)
        relevant = y > 0
        served = relevant.any(1)
        rank = _rank_of_best(scores, relevant)
        hits = torch.stack([torch.count_nonzero(served & (rank < k)) for k in self.top_k])
        count = torch.count_nonzero(served) if self.ignore_zero_hits else len(y)
        self.accumulate(hits=hits, count=count)

    def compute(self) -> list[Tensor]:
        """Return the share for each ``k``, in ascending order, as a list of floats.

        Raises:
            NotComputableError: there was no user, or none with a relevant item.
        """
        served = "a user with a relevant item" if self.ignore_zero_hits else "a user"
        self._require("count", served)
        return list(self.hits.double() / self.count)


def _rank_of_best(scores: Tensor, relevant: Tensor) -> Tensor:
    """Return before how many items each user's best relevant one stands: no sorting is needed."""
    scores = scores if scores.is_floating_point() else scores.double()
    relevant = relevant & ~scores.isnan()
    best = torch.where(relevant, scores, -math.inf).amax(1, keepdim=True)
    items = torch.arange(scores.shape[1], device=scores.device)
    equal = relevant & (scores == best)
    place = torch.where(equal, items, scores.shape[1]).amin(1, keepdim=True)
    before = (scores > best) | ((scores == best) & (items < place))
    # Without such an item nothing stands before the best.
    return torch.where(relevant.any(1), before.sum(1), scores.shape[1])
