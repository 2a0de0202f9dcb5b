"""Small helpers for handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cookfire.engine import CallableEventWithFilter, Engine

__all__ = ["global_step_from_engine"]


def global_step_from_engine(
    engine: Engine, custom_event_name: Any = None, fallback_attr: str = "epoch"
) -> Callable[[Engine, Any], int]:
    """Return a function that tells how far ``engine`` is, for handlers attached to another engine.

    So a trainer's epoch gets into the names and plots of what an evaluator measures.

    Args:
        engine: the engine to ask, mostly the trainer.
        custom_event_name: the event whose count is wanted. By default the event at which the
            handler runs: epochs at EPOCH_COMPLETED, COMPLETED and the like, iterations at
            ITERATION_COMPLETED.
        fallback_attr: the attribute of the engine's state for events that ``engine`` does not
            count.

    Raises:
        AttributeError: when called: the state has no such attribute.

    Example:
        >>> trainer.state.epoch = 3
        >>> global_step_from_engine(trainer)(evaluator, Events.COMPLETED)
        3
    """

    def global_step(_: Engine, event_name: Any) -> int:
        event = event_name if custom_event_name is None else custom_event_name
        base = event.event if isinstance(event, CallableEventWithFilter) else event
        state = engine.state
        if base in state.event_to_attr or str(base) in state.event_counts:
            return state.get_event_attrib_value(base)
        return int(getattr(state, fallback_attr))

    return global_step
