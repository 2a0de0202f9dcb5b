"""Mean, standard deviation and confidence interval of what several seeds gave."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Spread:
    """What n runs gave for one metric."""

    mean: float
    std: float
    """Sample standard deviation: the divisor is n - 1."""

    low: float
    """Lower end of the 95 % confidence interval of the mean, by Student's t."""

    high: float
    runs: int


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of two or more values.

    The interval is ``mean ± t std / sqrt(n)``, t with n - 1 degrees of freedom: were the runs made
    anew many times, 95 % of such intervals would hold the true mean, if values are normal.

    Example:
        >>> found = spread([0.9841, 0.9829, 0.9848])
        >>> f"{found.mean:.4f}: {found.low:.4f} to {found.high:.4f}"
        '0.9839: 0.9815 to 0.9863'
    """
    center, std = mean(values), stdev(values)
    half = student_t(LEVEL, len(values) - 1) * std / math.sqrt(len(values))
    return Spread(center, std, center - half, center + half, len(values))


def spreads(results: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return the spread of each metric that all the results have, in the first one's order."""
    names = [name for name in results[0] if all(name in result for result in results)]
    return {name: spread([result[name] for result in results]) for name in names}


def student_t(level: float, freedom: int) -> float:
    """Return the t that a value of Student's distribution is within, ``±t``, at this probability.

    Args:
        level: probability in (0, 1).
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        high *= 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Return P(|T| <= t): the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for at in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (at - 1) / at
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
