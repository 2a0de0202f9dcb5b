"""The perplexity of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cookfire.metrics._classification import find_task
from cookfire.metrics._counting import check_no_class, raises_at_once, to_indices
from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import need_pair, need_tensors, same
from cookfire.metrics.metric import Metric


class Perplexity(Metric):
    r"""The perplexity of a language model: among how many tokens it is, on average, undecided.

    .. math:: \exp\left(-\frac{1}{N} \sum_{i=1}^{N} \log P(w_i \mid w_1, \dots, w_{i-1})\right)

    over all tokens of all batches (Jelinek et al. (1977), https://doi.org/10.1121/1.2016299).
    A token's log-likelihood is computed in float32 or better, their sum in float64.

    Args:
        output_transform: turns the engine's output into scores (logits)
            ``(batch, vocabulary, length)`` and tokens ``(batch, length)``; or ``(batch,
            vocabulary)`` and ``(batch,)``. A model that gives ``(batch, length, vocabulary)`` has
            them transposed: ``lambda output: (output[0].transpose(1, 2), output[1])``.
        device: where sums are kept; None: where the data are.
        ignore_index: targets to leave out, such as padding.

    Raises:
        ValueError: by ``update``, shapes that don't fit; by ``compute``, tokens beyond
            the vocabulary.

    Example:
        >>> metric = Perplexity()
        >>> metric.update((torch.zeros(2, 10, 3), torch.tensor([[1, 2, 3], [4, 5, -100]])))
        >>> round(metric.compute(), 4)
        10.0
    """

    _settings = ("ignore_index",)

    log_likelihood = MetricState(torch.float64)
    count = MetricState(torch.int64)
    no_class = MetricState(torch.int64)
    """Tokens that there are no scores for."""

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        ignore_index: int = -100,
    ) -> None:
        self.ignore_index = ignore_index
        super().__init__(output_transform, device)

    def update(self, output: Sequence[Tensor]) -> None:
        """Add up a batch's log-likelihoods."""
        scores, y = need_pair(type(self).__name__, output)
        need_tensors("Perplexity", scores, y)
        if scores.ndim < 2 or (scores.shape[0], *scores.shape[2:]) != y.shape:
            is_transposed = scores.ndim == 3 and scores.shape[:2] == y.shape
            raise ValueError(
                f"Perplexity: got scores {tuple(scores.shape)} and tokens {tuple(y.shape)}: "
                "expected scores (batch, vocabulary, length) and tokens (batch, length); "
                + ("transpose" if is_transposed else "reshape")
                + " them, as in output_transform=lambda output: (output[0].transpose(1, 2), "
                "output[1])"
            )
        find_task("Perplexity", scores, y, is_multilabel=False)  # refuses odd dtypes
        if scores.dtype not in (torch.float32, torch.float64):
            scores = scores.float()
        kept = y != self.ignore_index
        losses, no_class = self._losses(scores, to_indices(y), kept)
        precise = torch.float32 if losses.device.type in WITHOUT_FLOAT64 else torch.float64
        self.accumulate(
            log_likelihood=-losses.sum(dtype=precise),
            count=torch.count_nonzero(kept),
            no_class=no_class,
        )

    def _losses(self, scores: Tensor, y: Tensor, kept: Tensor) -> tuple[Tensor, Tensor | int]:
        """Return each token's loss, and how many are none that there are scores for."""
        ignored = self.ignore_index
        if raises_at_once(scores):
            try:
                return cross_entropy(scores, y, ignore_index=ignored, reduction="none"), 0
            except IndexError:
                pass  # rare; to look first would take longer
        near = y.clamp(0, scores.shape[1] - 1).where(kept, ignored)
        losses = cross_entropy(scores, near, ignore_index=ignored, reduction="none")
        return losses, torch.count_nonzero(near != y)

    def _check_input(self) -> None:
        check_no_class(self, self.no_class)

    def compute(self) -> float | Tensor:
        """Return the perplexity, at least 1, as a float.

        Raises:
            NotComputableError: there was no token.
        """
        self._require("count")
        return torch.exp(-self.log_likelihood / self.count)
