"""Recording when an engine calls which handler."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from cookfire.engine import Engine, EventEnum, Events

__all__ = ["Recorder", "Series", "name_of"]

Event = EventEnum | str

# Where somebody must listen, so that the time in between can be told.
_BOUNDS = (
    Events.STARTED
    | Events.GET_BATCH_STARTED
    | Events.GET_BATCH_COMPLETED
    | Events.ITERATION_STARTED
    | Events.ITERATION_COMPLETED
)


@dataclass
class Series:
    """Seconds of something that happens again and again, and the event's count each time."""

    seconds: array[float] = field(default_factory=lambda: array("d"))
    counts: array[int] = field(default_factory=lambda: array("q"))

    def add(self, count: int, seconds: float) -> None:
        self.seconds.append(seconds)
        self.counts.append(count)

    def statistics(self) -> dict[str, Any]:
        """Return total, (minimum, index), (maximum, index), mean and deviation, in seconds."""
        seconds = self.seconds
        if not seconds:
            nothing = (None, None)
            return {
                "total": 0.0, "min/index": nothing, "max/index": nothing, "mean": None, "std": None
            }  # fmt: skip
        total, least, most = sum(seconds), min(seconds), max(seconds)
        mean = total / len(seconds)
        squares = sum((value - mean) ** 2 for value in seconds)
        return {
            "total": total,
            "min/index": (least, seconds.index(least)),
            "max/index": (most, seconds.index(most)),
            "mean": mean,
            "std": (squares / (len(seconds) - 1)) ** 0.5 if len(seconds) > 1 else None,
        }


class Recorder:
    """Times the step, the data, and each call of a handler; a run from the beginning starts anew.

    The data's time is that from the last handler of GET_BATCH_STARTED to the first of
    GET_BATCH_COMPLETED, the step's that between ITERATION_STARTED and ITERATION_COMPLETED.

    Attributes:
        processing: of the step.
        dataflow: of the data.
        events: of all handlers of an event together.
        handlers: of each handler of an event, by name.
        epochs: the epoch of each iteration.
    """

    def __init__(self) -> None:
        self._clear()

    def attach(self, engine: Engine) -> None:
        """Record what ``engine`` does."""
        engine.add_event_handler(_BOUNDS, _listen)
        engine.wrap_handlers(self._timed)

    def by_name(self) -> list[tuple[str, str, Series]]:
        """Return (handler, event, times) for each, the longest first."""
        rows = [(name_of(handler), _text(event), series)
                for (event, _), (handler, series) in self.handlers.items()]  # fmt: skip
        return sorted(rows, key=lambda row: -sum(row[2].seconds))

    def _clear(self) -> None:
        self.processing = Series()
        self.dataflow = Series()
        self.events: dict[Event, Series] = {}
        self.handlers: dict[tuple[Event, int], tuple[Callable[..., Any], Series]] = {}
        self.epochs = array("q")
        self._last_event: Event | None = None
        self._ended: dict[Event, float] = {}

    def _timed(
        self, event: Event, handler: Callable[..., Any], call: Callable[[Any], Any]
    ) -> Callable[[Any], Any]:
        def timed(engine: Engine) -> None:
            begin = perf_counter()
            try:
                call(engine)
            finally:
                self._record(engine, event, handler, begin, perf_counter())

        return timed

    def _record(
        self, engine: Engine, event: Event, handler: Callable[..., Any], begin: float, end: float
    ) -> None:
        state = engine.state
        count = state.get_event_attrib_value(event)
        series = self.events.get(event)
        is_first = event != self._last_event or series is None or series.counts[-1] != count
        if is_first:
            if event is Events.STARTED and state.iteration == 0:
                self._clear()
            if event is Events.ITERATION_COMPLETED:
                self.processing.add(count, begin - self._ended.get(Events.ITERATION_STARTED, begin))
                self.epochs.append(state.epoch)
            elif event is Events.GET_BATCH_COMPLETED:
                self.dataflow.add(count, begin - self._ended.get(Events.GET_BATCH_STARTED, begin))
            self._last_event = event
            series = self.events.setdefault(event, Series())
            series.add(count, 0.0)
        self._ended[event] = end
        if handler is _listen:
            return
        assert series is not None
        series.seconds[-1] += end - begin
        # The handler is kept with its number, so that no other can get that.
        of_handler = self.handlers.setdefault((event, id(handler)), (handler, Series()))[1]
        of_handler.add(count, end - begin)


def name_of(handler: Any) -> str:
    """Name a handler: ``Checkpoint``, ``RunState.state_dict``, ``main.<locals>.log``."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    name = getattr(handler, "__qualname__", None)
    return str(name or type(handler).__qualname__)


def _listen() -> None:
    pass


def _text(event: Event) -> str:
    return event if isinstance(event, str) else event.name
