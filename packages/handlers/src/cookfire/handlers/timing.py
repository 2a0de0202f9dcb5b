"""How long things take."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Self

from cookfire.engine import CallableEventWithFilter, Engine, EventEnum, Events, EventsList

__all__ = ["Timer"]

_Event = EventEnum | CallableEventWithFilter | EventsList


class Timer:
    """A stop watch, to be read as a total or as the average of a step.

    It runs from when it is made. What a GPU was told to do and has not done yet is not waited for:
    time an epoch, or call ``torch.cuda.synchronize()``, to measure such work.

    Args:
        average: :meth:`value` is the total divided by the number of steps.

    Attributes:
        total: seconds, without those since it was last resumed.
        step_count: how often :meth:`step` was called.
        running: whether time is being counted.

    Example:
        >>> timer = Timer(average=True)
        >>> timer = timer.attach(
        ...     trainer,
        ...     resume=Events.ITERATION_STARTED,
        ...     pause=Events.ITERATION_COMPLETED,
        ...     step=Events.ITERATION_COMPLETED,
        ... )
        >>> state = trainer.run(data)
        >>> seconds_an_iteration = timer.value()
    """

    total: float
    step_count: int
    running: bool

    def __init__(self, average: bool = False) -> None:
        self._average = average
        self.reset()

    def attach(
        self,
        engine: Engine,
        start: _Event = Events.STARTED,
        pause: _Event = Events.COMPLETED,
        resume: _Event | None = None,
        step: _Event | None = None,
    ) -> Self:
        """Let events of ``engine`` work the timer; return it.

        Args:
            engine: whose events.
            start: sets it to zero and starts it, unless it waits for ``resume``.
            pause: stops it, and keeps what was counted.
            resume: lets it run on.
            step: counts a step.
        """
        engine.add_event_handler(start, self.reset if resume is None else self._reset_and_wait)
        engine.add_event_handler(pause, self.pause)
        if resume is not None:
            engine.add_event_handler(resume, self.resume)
        if step is not None:
            engine.add_event_handler(step, self.step)
        return self

    def reset(self, *args: Any) -> Self:  # noqa: ARG002 - may get an engine
        """Set the time and the steps to zero, and run."""
        self.total = 0.0
        self.step_count = 0
        self.running = True
        self._resumed = perf_counter()
        return self

    def _reset_and_wait(self) -> None:
        # What lies between the start and the first `resume` is not to be counted.
        self.reset()
        self.running = False

    def pause(self, *args: Any) -> None:  # noqa: ARG002 - may get an engine
        """Stop counting time."""
        if self.running:
            self.total += perf_counter() - self._resumed
            self.running = False

    def resume(self, *args: Any) -> None:  # noqa: ARG002 - may get an engine
        """Count time again."""
        if not self.running:
            self.running = True
            self._resumed = perf_counter()

    def step(self, *args: Any) -> None:  # noqa: ARG002 - may get an engine
        """Count a step."""
        self.step_count += 1

    def value(self) -> float:
        """Return the seconds until now; with ``average``, divided by the steps (at least 1)."""
        total = self.total + (perf_counter() - self._resumed if self.running else 0.0)
        return total / max(self.step_count, 1) if self._average else total
