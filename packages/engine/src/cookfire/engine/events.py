"""Events of a run, their filters, and the state that handlers look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from cookfire.engine._filters import Filter, make_filter

if TYPE_CHECKING:
    from cookfire.engine._engine import Engine

__all__ = [
    "CallableEventWithFilter",
    "EventEnum",
    "Events",
    "EventsList",
    "State",
]


class _Composable:
    """What events, filtered events and lists of them share: stacking with ``|``."""

    def __or__(self, other: AnyEvent) -> EventsList:
        return EventsList(self, other)


class EventEnum(_Composable, Enum):
    """Base of user events: each member is an event with a string value.

    The engine counts how often each is fired, so filters work at once.

    Example:
        >>> class BackwardEvents(EventEnum):
        ...     STARTED = "backward_started"
        ...     COMPLETED = "backward_completed"
        >>> engine = Engine(lambda engine, batch: engine.fire_event(BackwardEvents.STARTED))
        >>> engine.register_events(*BackwardEvents)
        >>> @engine.on(BackwardEvents.STARTED(every=2))
        ... def show(engine):
        ...     print(engine.state.iteration)
        >>> state = engine.run([0, 1, 2, 3], max_epochs=1)
        2
        4
    """

    # Members are singletons: identity is enough, and it makes a lookup by event cheap.
    __hash__ = object.__hash__

    def __str__(self) -> str:
        return str(self._value_)

    def __call__(
        self,
        event_filter: Callable[[Engine, int], bool] | None = None,
        every: int | None = None,
        once: int | Sequence[int] | None = None,
        before: int | None = None,
        after: int | None = None,
    ) -> CallableEventWithFilter:
        """Return this event, filtered by its count (of epochs, iterations, or firings).

        Args:
            event_filter: function ``(engine, count) -> bool``, asked each time.
            every: each so many counts: ``every=5`` at 5, 10, ...
            once: at this count, or at each of a list of counts.
            before: only at counts below this one.
            after: only at counts above this one. With ``every``, the first count of the window
                is the first due: ``every=3, after=2`` at 3, 6, ...

        Raises:
            TypeError: ``event_filter`` is not callable.
            ValueError: none or more than one kind of filter was given (``every``, ``before`` and
                ``after`` combine), or a count is out of range.

        Example:
            >>> print(Events.EPOCH_COMPLETED(every=5))
            epoch_completed(every=5)
        """
        arguments = {"event_filter": event_filter, "every": every, "once": once}
        arguments |= {"before": before, "after": after}
        given = {name: value for name, value in arguments.items() if value is not None}
        counts = make_filter(event_filter, every, once, before, after)
        return CallableEventWithFilter(self, counts, given)


class CallableEventWithFilter(_Composable):
    """An event that is heard at some of its counts only; made by calling an event.

    Attributes:
        event: the event itself.
        filter: decides which counts are heard; None for all.
    """

    def __init__(
        self,
        event: EventEnum,
        event_filter: Filter | None,
        given: dict[str, Any] | None = None,
    ) -> None:
        self.event = event
        self.filter = event_filter
        self._given = given or {}

    @property
    def name(self) -> str:
        """The event's name, such as ``EPOCH_COMPLETED``."""
        return self.event.name

    @property
    def value(self) -> str:
        """The event's value, such as ``epoch_completed``."""
        return str(self.event)

    def __str__(self) -> str:
        return (
            f"{self.event}({', '.join(f'{name}={value}' for name, value in self._given.items())})"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class EventsList:
    """Several events that share a handler; made by ``|``.

    Example:
        >>> events = Events.EPOCH_COMPLETED(every=3) | Events.COMPLETED
        >>> print(events)
        epoch_completed(every=3) | completed
    """

    def __init__(self, *events: _Composable | EventsList) -> None:
        self._events: list[EventEnum | CallableEventWithFilter] = []
        for event in events:
            if isinstance(event, EventsList):
                self._events.extend(event)
            elif isinstance(event, EventEnum | CallableEventWithFilter):
                self._events.append(event)
            else:
                raise TypeError(
                    f"only events can be joined by '|', got {event!r} ({type(event).__name__})"
                )

    def __or__(self, other: AnyEvent) -> EventsList:
        return EventsList(self, other)

    def __iter__(self) -> Iterator[EventEnum | CallableEventWithFilter]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def __str__(self) -> str:
        return " | ".join(str(event) for event in self._events)


AnyEvent = EventEnum | CallableEventWithFilter | EventsList
"""What a handler can be attached to (besides the name of a registered string event)."""


class Events(EventEnum):
    """The events that every engine fires; :class:`~cookfire.engine.Engine` draws them in place."""

    STARTED = "started"
    """A run begins (also one that continues from a checkpoint)."""
    EPOCH_STARTED = "epoch_started"
    """An epoch begins."""
    GET_BATCH_STARTED = "get_batch_started"
    """The next batch is about to be fetched."""
    GET_BATCH_COMPLETED = "get_batch_completed"
    """It was fetched; it is in ``state.batch``."""
    ITERATION_STARTED = "iteration_started"
    """The step is about to be called."""
    ITERATION_COMPLETED = "iteration_completed"
    """The step returned; its result is in ``state.output``."""
    DATALOADER_STOP_ITERATION = "dataloader_stop_iteration"
    """The data ended; unless ``set_data`` is called now, it is iterated again from its start."""
    EPOCH_COMPLETED = "epoch_completed"
    """An epoch ended."""
    COMPLETED = "completed"
    """The run ended, by itself or by ``terminate``."""
    EXCEPTION_RAISED = "exception_raised"
    """Something raised; handlers get ``(engine, error)``. The error goes on after them all."""
    TERMINATE = "terminate"
    """``terminate`` took effect."""
    TERMINATE_SINGLE_EPOCH = "terminate_single_epoch"
    """``terminate_epoch`` took effect; handlers may take ``iter_counter=``."""
    INTERRUPT = "interrupt"
    """``interrupt`` took effect: the run is paused."""


_COUNTED_BY: dict[EventEnum | str, str] = {
    Events.STARTED: "epoch",
    Events.EPOCH_STARTED: "epoch",
    Events.GET_BATCH_STARTED: "iteration",
    Events.GET_BATCH_COMPLETED: "iteration",
    Events.ITERATION_STARTED: "iteration",
    Events.ITERATION_COMPLETED: "iteration",
    Events.EPOCH_COMPLETED: "epoch",
    Events.COMPLETED: "epoch",
}


def count_key(event: EventEnum | str) -> str:
    """Name an event's count: values need to be unique within their enum only."""
    if isinstance(event, str):
        return event
    return f"{type(event).__module__}.{type(event).__qualname__}.{event.name}"


class State:
    """What an engine knows about its run; handlers read it and may add to it.

    Attributes:
        iteration: iterations since the run began, from 1 in the first iteration.
        epoch: the current epoch, from 1.
        epoch_length: iterations an epoch; of data without a length, those of the epoch before
            (None in the first).
        max_epochs: epochs after which the run ends; None where ``max_iters`` says it.
        max_iters: iterations after which the run ends; None where ``max_epochs`` says it.
        batch: what the data gave last.
        output: what the step returned last.
        metrics: values by name, filled by attached metrics.
        dataloader: the data that the run iterates over.
        seed: seed of a :class:`~cookfire.engine.DeterministicEngine`; None otherwise.
        times: seconds of the last epoch (``"EPOCH_COMPLETED"``) and of the run (``"COMPLETED"``).
        event_counts: how often each event without an attribute was fired, by its full name.
        event_to_attr: the attribute that counts an event, where there is one.
    """

    def __init__(self, **values: Any) -> None:
        self.iteration: int = 0
        self.epoch: int = 0
        self.epoch_length: int | None = None
        self.max_epochs: int | None = None
        self.max_iters: int | None = None
        self.output: Any = None
        self.batch: Any = None
        self.metrics: dict[str, Any] = {}
        self.dataloader: Any = None
        self.seed: int | None = None
        self.times: dict[str, float | None] = {
            Events.EPOCH_COMPLETED.name: None,
            Events.COMPLETED.name: None,
        }
        self.event_counts: dict[str, int] = {}
        self.event_to_attr: dict[EventEnum | str, str] = dict(_COUNTED_BY)
        for name, value in values.items():
            setattr(self, name, value)

    def get_event_attrib_value(self, event: EventEnum | CallableEventWithFilter | str) -> int:
        """Return the count of ``event``: epochs, iterations, or how often it was fired.

        Example:
            >>> State(epoch=3).get_event_attrib_value(Events.EPOCH_COMPLETED)
            3
        """
        base = event.event if isinstance(event, CallableEventWithFilter) else event
        attribute = self.event_to_attr.get(base)
        if attribute is None:
            return self.event_counts.get(count_key(base), 0)
        return int(getattr(self, attribute))

    def __repr__(self) -> str:
        lines = ["State:"]
        for name, value in vars(self).items():
            if name == "event_to_attr":
                continue
            plain = isinstance(value, int | float | str) or value is None
            lines.append(f"\t{name}: {value if plain else type(value)}")
        return "\n".join(lines) + "\n"
