"""Scores: the number by which an evaluation is better or worse than another."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

from cookfire.engine import Engine

__all__ = ["ScoreFunction", "get_default_score_fn", "read_score"]

ScoreFunction = Callable[[Engine], int | float]


def get_default_score_fn(metric_name: str, score_sign: float = 1.0) -> ScoreFunction:
    """Return a function that reads a metric of the engine it is given; higher is better.

    Args:
        metric_name: the metric's name in ``engine.state.metrics``.
        score_sign: 1.0, or -1.0 for a metric of which less is better, such as a loss.

    Raises:
        TypeError: the name is no string.
        ValueError: the sign is neither; when called: the engine has no such metric.

    Example:
        >>> score = get_default_score_fn("loss", -1.0)
        >>> evaluator.state.metrics["loss"] = 0.25
        >>> score(evaluator)
        -0.25
    """
    if not isinstance(metric_name, str):
        raise TypeError(f"metric_name must be a string, got {metric_name!r}")
    if score_sign not in (1.0, -1.0):
        raise ValueError(f"score_sign must be 1.0 or -1.0, got {score_sign!r}")

    def score(engine: Engine) -> int | float:
        metrics = engine.state.metrics
        if metric_name not in metrics:
            known = ", ".join(repr(name) for name in metrics) or "none"
            raise ValueError(
                f"the engine has no metric {metric_name!r}; its metrics are: {known}. Attach the "
                f"handler to the engine that computes the metric, at an event after it is computed"
            )
        return score_sign * _number(metrics[metric_name], f"the metric {metric_name!r}")

    return score


def read_score(function: ScoreFunction, engine: Engine) -> int | float:
    """Return the score as a Python number.

    Raises:
        ValueError: it is no number.
    """
    return _number(function(engine), "score_function's result")


def _number(value: Any, what: str) -> int | float:
    """Return a number, also one in a tensor of one element, as Python's int or float."""
    if not isinstance(value, int | float) and callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except (RuntimeError, ValueError):  # more than one element
            raise ValueError(f"{what} must be one number, got {value!r}") from None
    if isinstance(value, int | float):
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise ValueError(f"{what} must be a number, got {value!r} ({type(value).__name__})")
