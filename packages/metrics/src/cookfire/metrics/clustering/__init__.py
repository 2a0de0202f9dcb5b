"""How well samples are clustered, by their features alone.

All take ``(features, labels)``, or a mapping with these keys: features ``(batch, features)`` of
any real dtype and integer labels ``(batch,)``. All samples are kept, and scores are calculated in
float64, a block at a time. With less than two clusters, or as many as samples, a score is NaN.

``update`` raises ValueError for other shapes.
"""

from cookfire.metrics.clustering._centroids import CalinskiHarabaszScore, DaviesBouldinScore
from cookfire.metrics.clustering._silhouette import SilhouetteScore

__all__ = ["CalinskiHarabaszScore", "DaviesBouldinScore", "SilhouetteScore"]
