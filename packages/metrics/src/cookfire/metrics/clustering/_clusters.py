"""What the clustering metrics share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cookfire.metrics._epoch_metric import EpochMetric
from cookfire.metrics._pairs import to_precise
from cookfire.metrics._values import need_pair, need_tensors, same

ELEMENTS_AT_ONCE = 2**22
"""Of what is worked out for a block of samples."""


class Clusters(NamedTuple):
    """Samples, and where they belong."""

    features: Tensor
    """``(samples, features)`` as they came; :meth:`blocks` has them in float64."""
    labels: Tensor
    """From 0, without a gap."""
    sizes: Tensor

    @property
    def centroids(self) -> Tensor:
        """The means of the clusters, ``(clusters, features)``."""
        sums = self.sizes.new_zeros(len(self.sizes), self.features.shape[1], dtype=torch.float64)
        for start, block in self.blocks():
            sums.index_add_(0, self.labels[start : start + len(block)], block)
        return sums / self.sizes.unsqueeze(1)

    def blocks(self, width: int | None = None) -> list[tuple[int, Tensor]]:
        """Return where each block of samples starts, and the block.

        Args:
            width: numbers that are worked out for a sample; None: as many as it has features.
        """
        rows = max(1, ELEMENTS_AT_ONCE // max(1, width or self.features.shape[1]))
        starts = range(0, len(self.features), rows)
        return [(start, self.features[start : start + rows].double()) for start in starts]


class ClusteringMetric(EpochMetric):
    """A score of all samples."""

    required_output_keys = ("features", "labels")

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        check_compute_fn: bool = False,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        super().__init__(self._compute, output_transform, check_compute_fn, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Keep a batch."""
        features, labels = need_pair(type(self).__name__, output)
        owner = type(self).__name__
        need_tensors(owner, features, labels)
        if features.ndim != 2 or labels.ndim != 1 or len(features) != len(labels):
            raise ValueError(
                f"{owner}: expected features (batch, features) and labels (batch,), got "
                f"{tuple(features.shape)} and {tuple(labels.shape)}: reshape them by "
                "output_transform"
            )
        super().update((to_precise(owner, "features", features), labels))

    def compute(self) -> float:
        """Return the score; NaN where there are not at least two clusters, and one of two samples.

        Raises:
            NotComputableError: there was no sample.
        """
        score: float = super().compute()
        return score

    def _compute(self, features: Tensor, labels: Tensor) -> Tensor:
        if features.ndim == 1:
            features = features.unsqueeze(1)
        _, index, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
        if not 2 <= len(sizes) < len(labels):
            return torch.tensor(torch.nan)
        return self._score(Clusters(features, index, sizes))

    @abstractmethod
    def _score(self, clusters: Clusters) -> Tensor:
        """Return the score."""
