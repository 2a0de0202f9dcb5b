"""The phases of a training step, as events that the step fires."""

from __future__ import annotations

from cookfire.engine import EventEnum


class Phases(EventEnum):
    """What has happened within a step; the losses so far are in ``engine.state.output``.

    The pictures of the step are in ``engine.state.pictures``.

    Example:
        >>> @trainer.on(Phases.GENERATORS_UPDATED(every=100))
        ... def look(engine):
        ...     print(engine.state.output["cycle_a"], engine.state.pictures.fake_b.shape)
    """

    GENERATORS_UPDATED = "generators_updated"
    """Both generators have made their step; the discriminators not yet."""

    DISCRIMINATORS_UPDATED = "discriminators_updated"
    """Both discriminators have made theirs: the end of the step."""
