"""Ending a training when its time is up."""

from __future__ import annotations

import logging
from time import monotonic

import cookfire.distributed as idist
from cookfire.engine import Engine
from cookfire.handlers._checks import check_above_zero, check_whole

__all__ = ["TimeLimit"]


class TimeLimit:
    """Terminates the engine when so many seconds have passed since this object was made.

    Attach it to an event of the trainer, mostly ITERATION_COMPLETED. The clock of the first process
    decides for all: attach it on every rank.

    Args:
        limit_sec: seconds; 28800, which is 8 hours, by default. None for no limit.
        every: among several processes, iterations between their looks at the clock: they exchange
            a number each time.

    Raises:
        ValueError: a number is not positive.

    Example:
        >>> handle = trainer.add_event_handler(Events.ITERATION_COMPLETED, TimeLimit(3600))
    """

    def __init__(self, limit_sec: int | None = 28800, every: int = 10) -> None:
        if limit_sec is not None:
            check_above_zero("limit_sec", limit_sec, "seconds")
        check_whole("every", every, "iteration")
        self.limit_sec = limit_sec
        self.every = every
        self.start_time = monotonic()
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")
        self._looked_at = 0

    def __call__(self, engine: Engine) -> None:
        """Look at the clock, and terminate the engine if its time is up."""
        if self.limit_sec is None:
            return
        seconds = monotonic() - self.start_time
        if idist.get_world_size() > 1:
            # Compared by periods, so that it also works where the handler is called seldom.
            if engine.state.iteration // self.every == self._looked_at // self.every:
                return
            self._looked_at = engine.state.iteration
            seconds = idist.broadcast(seconds)
        if seconds > self.limit_sec:
            self.logger.info("stopped: %.0f seconds have passed", seconds)
            engine.terminate()
