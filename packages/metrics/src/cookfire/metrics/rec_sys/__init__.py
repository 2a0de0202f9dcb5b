"""Metrics of recommendations: how good the best-ranked items are."""

from cookfire.metrics.rec_sys._hit_rate import HitRate
from cookfire.metrics.rec_sys._ndcg import NDCG

__all__ = ["NDCG", "HitRate"]
