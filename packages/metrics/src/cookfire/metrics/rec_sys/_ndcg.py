"""Normalised discounted cumulative gain: how well the relevant items are ranked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import need_number, need_pair, same
from cookfire.metrics.metric import Metric
from cookfire.metrics.rec_sys._input import check_shapes, sort_ks

GainFunction = Literal["exp_rank", "linear_rank"]
_GAIN_FUNCTIONS = ("exp_rank", "linear_rank")


class NDCG(Metric):
    r"""The normalised discounted cumulative gain of each user's ``k`` best items, averaged.

    Järvelin and Kekäläinen (2002), https://doi.org/10.1145/582415.582418:

    .. math::
        \text{NDCG}@k = \frac{\text{DCG}@k}{\text{the highest DCG}@k \text{ possible}}, \quad
        \text{DCG}@k = \sum_{i=1}^{k} \frac{g(\text{relevance}_i)}{\log_2(i + 1)}

    where ``i`` is the place of an item when they are sorted by score, the highest first. Of items
    with equal scores the first comes first, and items whose score is not a number come last, on
    every device.

    Args:
        top_k: one ``k`` or several, for a value each.
        ignore_zero_hits: leave out users without any relevant item; False: they count as 0.
        relevance_threshold: items of less relevance gain nothing.
        gain_function: ``"exp_rank"``: :math:`g(r) = 2^r - 1`, which stresses what is highly
            relevant; ``"linear_rank"``: :math:`g(r) = r`.
        output_transform: turns the engine's output into scores and relevance, both
            ``(users, items)``; relevance is binary or graded.
        device: where sums are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: a ``k`` is no integer above 0, or an unknown ``gain_function``; by ``update``,
            other shapes.

    Example:
        >>> metric = NDCG(top_k=[1, 3])
        >>> metric.update((torch.tensor([[0.9, 0.2, 0.4]]), torch.tensor([[1, 0, 2]])))
        >>> [round(value, 4) for value in metric.compute()]
        [0.3333, 0.7967]
    """

    _settings = ("top_k", "ignore_zero_hits", "relevance_threshold", "gain_function")

    gains = MetricState(torch.float64, shape=("_number",))
    count = MetricState(torch.int64)

    def __init__(
        self,
        top_k: list[int] | int,
        ignore_zero_hits: bool = True,
        relevance_threshold: float = 1.0,
        gain_function: GainFunction = "exp_rank",
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        if gain_function not in _GAIN_FUNCTIONS:
            raise ValueError(
                f"gain_function must be one of {', '.join(_GAIN_FUNCTIONS)}, got {gain_function!r}"
            )
        need_number("relevance_threshold", relevance_threshold)
        self.top_k = sort_ks(top_k)
        self.ignore_zero_hits = ignore_zero_hits
        self.relevance_threshold = relevance_threshold
        self.gain_function = gain_function
        self._number = len(self.top_k)
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Add up a batch's gains."""
        scores, y = need_pair(type(self).__name__, output)
        check_shapes("NDCG", scores, y)
        relevant = y >= self.relevance_threshold
        served = relevant.any(1)
        precise = torch.float32 if y.device.type in WITHOUT_FLOAT64 else torch.float64
        gains = torch.where(relevant, self._gain(y.to(precise)), 0.0)
        number = min(self.top_k[-1], y.shape[1])
        order = _find_best(scores, number)
        ideal = self._discounted(gains.topk(number, dim=1).values)
        found = self._discounted(gains.gather(1, order))
        ratios = torch.where(served[:, None] & (ideal > 0), found / ideal, 0.0)
        count = torch.count_nonzero(served) if self.ignore_zero_hits else len(y)
        self.accumulate(gains=ratios.sum(0), count=count)

    def compute(self) -> list[Tensor]:
        """Return the mean for each ``k``, in ascending order, as a list of floats.

        Raises:
            NotComputableError: there was no user, or none with a relevant item.
        """
        served = "a user with a relevant item" if self.ignore_zero_hits else "a user"
        self._require("count", served)
        return list(self.gains / self.count)

    def _gain(self, relevance: Tensor) -> Tensor:
        return relevance if self.gain_function == "linear_rank" else torch.exp2(relevance) - 1

    def _discounted(self, gains: Tensor) -> Tensor:
        """Return the discounted cumulative gain of each user at each ``k``."""
        number = gains.shape[1]
        places = torch.arange(2, number + 2, device=gains.device, dtype=gains.dtype)
        sums = (gains / places.log2()).cumsum(1)
        return torch.stack([sums[:, min(k, number) - 1] for k in self.top_k], 1)


def _find_best(scores: Tensor, number: int) -> Tensor:
    """Return the places of the best items, of equals the first first: ``(users, number)``."""
    if scores.is_floating_point():
        scores = scores.masked_fill(scores.isnan(), -math.inf)
    if scores.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return scores.sort(dim=1, descending=True, stable=True).indices[:, :number]
    # Finding the best is several times faster than sorting all, but leaves open which of equals
    # comes first. So the score's bits, as an integer of the same order, are followed by the place.
    bits = (scores.float() + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    places = torch.arange(scores.shape[1], device=scores.device)
    return ((ordered.long() << 32) - places).topk(number, dim=1).indices
