"""The perplexity of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cookfire.metrics._classification import Task, find_task
from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import same
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
        ValueError: by ``update``, shapes that don't fit.

    Example:
        >>> metric = Perplexity()
        >>> metric.update((torch.zeros(2, 10, 3), torch.tensor([[1, 2, 3], [4, 5, -100]])))
        >>> round(metric.compute(), 4)
        10.0
    """

    log_likelihood = MetricState(torch.float64)
    count = MetricState(torch.int64)

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
        scores, y = output
        task, _ = find_task(type(self).__name__, scores, y, is_multilabel=False)
        if task != Task.MULTICLASS:
            raise ValueError(
                f"Perplexity: got scores {tuple(scores.shape)} and tokens {tuple(y.shape)}; "
                "expected scores (batch, vocabulary, length) of several tokens"
            )
        if scores.dtype in (torch.float16, torch.bfloat16):
            scores = scores.float()
        losses = cross_entropy(scores, y.long(), ignore_index=self.ignore_index, reduction="none")
        precise = torch.float32 if losses.device.type in WITHOUT_FLOAT64 else torch.float64
        self.accumulate(
            log_likelihood=-losses.sum(dtype=precise),
            count=torch.count_nonzero(y != self.ignore_index),
        )

    def compute(self) -> float | Tensor:
        """Return the perplexity, at least 1, as a float.

        Raises:
            NotComputableError: there was no token.
        """
        self._require("count")
        return torch.exp(-self.log_likelihood / self.count)
