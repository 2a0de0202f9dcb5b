"""The silhouette score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cookfire.metrics._values import same
from cookfire.metrics.clustering._clusters import ClusteringMetric, Clusters

Distance = Callable[[Tensor, Tensor], Tensor]


def _euclidean(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")  # exact for near samples


_DISTANCES: dict[str, Distance] = {
    "euclidean": _euclidean,
    "sqeuclidean": lambda x, y: _euclidean(x, y).square(),
    "manhattan": lambda x, y: torch.cdist(x, y, p=1),
    "chebyshev": lambda x, y: torch.cdist(x, y, p=torch.inf),
    "cosine": lambda x, y: 1 - normalize(x, eps=0) @ normalize(y, eps=0).T,
}
_SETTINGS = ("metric", "sample_size", "random_state")


class SilhouetteScore(ClusteringMetric):
    """The mean silhouette of the samples, a float from -1 to 1; higher is better.

    ``(b - a) / max(a, b)``, with a the mean distance of a sample from the others of its cluster,
    and b that from the samples of the nearest other cluster; 0 for a sample that is a cluster by
    itself (Rousseeuw, "Silhouettes", 1987). It takes O(n^2) time, but memory for a block of
    distances only.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.clustering`.

    Args:
        output_transform: turns the engine's output into ``(features, labels)``.
        check_compute_fn: True also computes the first batch's, and warns if that fails.
        device: where the samples are kept; None: where they are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        silhouette_kwargs: settings, with the names of scikit-learn's ``silhouette_score``:
            ``metric`` is ``"euclidean"`` (the default), ``"sqeuclidean"``, ``"manhattan"``,
            ``"chebyshev"`` or ``"cosine"``; ``sample_size`` takes so many samples at random, by
            torch's generator seeded with ``random_state`` (0 if it is not given).

    Raises:
        ValueError: other settings, or another metric.

    Example:
        >>> metric = SilhouetteScore()
        >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> metric.update((features, torch.tensor([0, 0, 1, 1])))
        >>> round(metric.compute(), 4)
        0.798
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        check_compute_fn: bool = False,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        silhouette_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        settings = dict(silhouette_kwargs or {})
        unknown = [name for name in settings if name not in _SETTINGS]
        if unknown:
            raise ValueError(
                f"silhouette_kwargs may have {', '.join(_SETTINGS)}, got {', '.join(unknown)}"
            )
        metric = settings.get("metric", "euclidean")
        if metric not in _DISTANCES:
            raise ValueError(
                f"silhouette_kwargs: metric must be one of {', '.join(_DISTANCES)}, got {metric!r}"
            )
        self._distance = _DISTANCES[metric]
        self._sample_size: int | None = settings.get("sample_size")
        self._seed: int = settings.get("random_state") or 0
        super().__init__(output_transform, check_compute_fn, device, skip_unrolling)

    def _compute(self, features: Tensor, labels: Tensor) -> Tensor:
        if self._sample_size is not None:
            generator = torch.Generator().manual_seed(self._seed)
            chosen = torch.randperm(len(labels), generator=generator)[: self._sample_size]
            chosen = chosen.to(labels.device)
            features, labels = features[chosen], labels[chosen]
        return super()._compute(features, labels)

    def _score(self, clusters: Clusters) -> Tensor:
        features, labels, sizes = clusters
        everything = features.double()
        total = everything.new_zeros(())
        for start, block in clusters.blocks(width=len(labels) + len(sizes)):
            own = labels[start : start + len(block)].unsqueeze(1)
            sums = everything.new_zeros(len(block), len(sizes))
            sums.index_add_(1, labels, self._distance(block, everything))
            others = (sizes[own] - 1).clamp(min=1)
            within = sums.gather(1, own) / others
            between = (sums / sizes).scatter(1, own, torch.inf).amin(1, keepdim=True)
            # Where both are 0, and for a cluster of one, the silhouette is 0.
            largest = torch.maximum(within, between)
            widths = (between - within) / largest
            total += widths.masked_fill((sizes[own] == 1) | (largest == 0), 0).sum()
        return total / len(labels)
