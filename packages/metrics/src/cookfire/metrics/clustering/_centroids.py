"""Scores by the distances to and between the clusters' means."""

from __future__ import annotations

import torch
from torch import Tensor

from cookfire.metrics.clustering._clusters import ClusteringMetric, Clusters


class CalinskiHarabaszScore(ClusteringMetric):
    """The variance between clusters over that within them, a float; higher is better.

    ``(B / (k - 1)) / (W / (n - k))`` with W the sum of squared distances of samples from their
    clusters' means, and B that of these means from the mean of all, a term a sample (Calinski and
    Harabasz, "A dendrite method for cluster analysis", 1974). 1 if W is 0, as scikit-learn has it.

    Shapes, dtypes and errors: :mod:`cookfire.metrics.clustering`.

    Args:
        output_transform: turns the engine's output into ``(features, labels)``.
        check_compute_fn: True also computes the first batch's, and warns if that fails.
        device: where the samples are kept; None: where they are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Example:
        >>> metric = CalinskiHarabaszScore()
        >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> metric.update((features, torch.tensor([0, 0, 1, 1])))
        >>> metric.compute()
        50.0
    """

    def _score(self, clusters: Clusters) -> Tensor:
        centroids, sizes = clusters.centroids, clusters.sizes
        mean = (centroids * sizes.unsqueeze(1)).sum(0) / sizes.sum()
        between = ((centroids - mean).square().sum(1) * sizes).sum()
        within = sum(
            _deviations(clusters, centroids, start, block).square().sum()
            for start, block in clusters.blocks()
        )
        freedom = (len(clusters.labels) - len(sizes)) / (len(sizes) - 1)
        return torch.where(torch.as_tensor(within == 0), 1.0, between / within * freedom)


class DaviesBouldinScore(ClusteringMetric):
    """How alike each cluster is to the one most like it, a float from 0; lower is better.

    The mean over clusters i of ``max over j of (s_i + s_j) / d_ij``: s is the mean distance of a
    cluster's samples from its mean, d the distance of two means (Davies and Bouldin, "A cluster
    separation measure", 1979). Clusters of one mean are not compared; 0 if all s or all d are 0,
    as scikit-learn has it. All samples are kept.

    Shapes, dtypes, arguments and errors are those of
    :class:`~cookfire.metrics.clustering.CalinskiHarabaszScore`.

    Example:
        >>> metric = DaviesBouldinScore()
        >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> metric.update((features, torch.tensor([0, 0, 1, 1])))
        >>> metric.compute()
        0.2
    """

    def _score(self, clusters: Clusters) -> Tensor:
        centroids, sizes = clusters.centroids, clusters.sizes
        spreads = centroids.new_zeros(len(sizes))
        for start, block in clusters.blocks():
            distances = torch.linalg.vector_norm(
                _deviations(clusters, centroids, start, block), dim=1
            )
            spreads.index_add_(0, clusters.labels[start : start + len(block)], distances)
        spreads /= sizes
        between = torch.cdist(centroids, centroids, compute_mode="donot_use_mm_for_euclid_dist")
        between = between.masked_fill(between == 0, torch.inf)
        worst = ((spreads.unsqueeze(1) + spreads) / between).amax(1)
        return worst.mean()


def _deviations(clusters: Clusters, centroids: Tensor, start: int, block: Tensor) -> Tensor:
    """Return a block's samples less their clusters' means."""
    return block - centroids[clusters.labels[start : start + len(block)]]
