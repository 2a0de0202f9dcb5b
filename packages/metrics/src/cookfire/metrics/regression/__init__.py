"""Metrics of regression besides the most usual, which are in :mod:`cookfire.metrics` itself.

All take ``(y_pred, y)`` with the shapes ``(batch,)`` or ``(batch, 1)`` and any real dtype: half
precision is calculated in float32, integers in float64, and sums are kept in float64. In their
formulas A is ``y``, P is ``y_pred``, n the number of examples; the names are those of Botchkarev,
"Performance metrics (error measures) in machine learning regression, forecasting and prognostics"
(2018), https://arxiv.org/abs/1809.03006.

``update`` raises ValueError for other shapes and TypeError for booleans or complex numbers.
"""

from cookfire.metrics.regression._correlation import PearsonCorrelation, R2Score
from cookfire.metrics.regression._distances import (
    CanberraMetric,
    ManhattanDistance,
    WaveHedgesDistance,
)
from cookfire.metrics.regression._means import (
    FractionalAbsoluteError,
    FractionalBias,
    GeometricMeanAbsoluteError,
    MaximumAbsoluteError,
    MeanAbsoluteRelativeError,
    MeanError,
    MeanNormalizedBias,
)
from cookfire.metrics.regression._medians import (
    GeometricMeanRelativeAbsoluteError,
    MedianAbsoluteError,
    MedianAbsolutePercentageError,
    MedianRelativeAbsoluteError,
)
from cookfire.metrics.regression._ranks import KendallRankCorrelation, SpearmanRankCorrelation

__all__ = [
    "CanberraMetric",
    "FractionalAbsoluteError",
    "FractionalBias",
    "GeometricMeanAbsoluteError",
    "GeometricMeanRelativeAbsoluteError",
    "KendallRankCorrelation",
    "ManhattanDistance",
    "MaximumAbsoluteError",
    "MeanAbsoluteRelativeError",
    "MeanError",
    "MeanNormalizedBias",
    "MedianAbsoluteError",
    "MedianAbsolutePercentageError",
    "MedianRelativeAbsoluteError",
    "PearsonCorrelation",
    "R2Score",
    "SpearmanRankCorrelation",
    "WaveHedgesDistance",
]
