"""The step of a run that a checkpoint's name tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cookfire.engine import Engine

__all__ = ["GlobalStep", "read_step"]

GlobalStep = Callable[[Engine, Any], int]


def read_step(transform: GlobalStep | None, engine: Engine) -> int:
    """Return what ``transform`` makes of the engine and its event; without one, the iteration.

    Raises:
        ValueError: it is no number.
    """
    if transform is None:
        return engine.state.iteration
    step = transform(engine, engine.last_event_name)
    if not isinstance(step, int | float):
        raise ValueError(
            f"global_step_transform must return a number, got {step!r} ({type(step).__name__})"
        )
    return step
