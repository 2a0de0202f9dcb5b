"""Metrics of generated images."""

from cookfire.metrics.gan._frechet import FID
from cookfire.metrics.gan._inception_score import InceptionScore

__all__ = ["FID", "InceptionScore"]
