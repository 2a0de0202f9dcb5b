"""Events of one engine and the handlers that hear them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from cookfire.engine._handlers import (
    Attachment,
    CallWrapper,
    Dispatch,
    HandlerTable,
    RemovableEventHandle,
    describe,
)
from cookfire.engine.events import (
    CallableEventWithFilter,
    EventEnum,
    Events,
    EventsList,
    State,
    count_key,
)

AnyEvent = EventEnum | CallableEventWithFilter | EventsList | str
Function = TypeVar("Function", bound=Callable[..., Any])


class Emitter:
    """What an engine does with events: know them, count them, and call who listens.

    Attributes:
        state: counts events and holds what handlers look at.
        last_event_name: the event whose handlers ran last.
    """

    def __init__(self) -> None:
        self.state = State()
        self.last_event_name: EventEnum | str | None = None
        self._handlers = HandlerTable()
        self._dispatches: dict[EventEnum | str, Dispatch | None] = {}
        self._wrappers: list[CallWrapper] = []
        self._seen_counts: dict[EventEnum | str, int] = {}
        self._running = False
        # Something wants the running loop to look: a wish to leave, other data, other handlers.
        self._attention = False
        for event in Events:
            self._handlers.register(event)

    def register_events(
        self,
        *event_names: EventEnum | str,
        event_to_attr: Mapping[Any, str] | None = None,
    ) -> None:
        """Make events known to this engine, so that they can be heard and fired.

        Args:
            event_names: members of an :class:`~cookfire.engine.EventEnum`, or plain strings.
            event_to_attr: for some of them the name of a ``state`` attribute that counts them (it
                starts at 0). When such an event is fired, the attribute advances by one unless
                the step has advanced it since the event was fired last. Events without an
                attribute are counted by the engine.

        Raises:
            TypeError: an event is neither, or was given with a filter.
            ValueError: ``event_to_attr`` names an event that is not among ``event_names``.
        """
        for event in event_names:
            if not isinstance(event, EventEnum | str):
                raise TypeError(
                    "register_events expects members of an EventEnum or strings, "
                    f"got {event!r} ({type(event).__name__})"
                )
            self._handlers.register(event)
        for event, attribute in (event_to_attr or {}).items():
            if event not in event_names:
                raise ValueError(
                    f"event_to_attr: '{event}' is not among the events to register: "
                    f"{', '.join(map(str, event_names))}"
                )
            self.state.event_to_attr[event] = attribute
            if not hasattr(self.state, attribute):
                setattr(self.state, attribute, 0)

    def has_registered_events(self, event: AnyEvent) -> bool:
        """Tell whether ``event`` (without its filter) is known to this engine."""
        return all(base in self._handlers for base, _ in _parts(event))

    def add_event_handler(
        self, event_name: AnyEvent, handler: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> RemovableEventHandle:
        """Attach ``handler`` to an event.

        Args:
            event_name: an event, one with a filter, or several joined by ``|``.
            handler: any callable; it gets the engine first if its signature has room for it
                (EXCEPTION_RAISED also hands over the error).
            args: further arguments for each call.
            kwargs: further named arguments for each call.

        Returns:
            A handle that removes the handler again.

        Raises:
            TypeError: the handler can't be called with these arguments.
            ValueError: the event is not registered.

        Example:
            >>> engine = Engine(lambda engine, batch: None)
            >>> handle = engine.add_event_handler(Events.STARTED, lambda: print("begin"))
            >>> state = engine.run([0])
            begin
        """
        attachments = []
        for event, event_filter in _parts(event_name):
            if event not in self._handlers:
                raise ValueError(self._unknown(event))
            attachments.append(Attachment(event, event_filter, handler, args, kwargs))
        for attachment in attachments:
            self._handlers.add(attachment)
        self._handlers_changed()
        return RemovableEventHandle(self, event_name, attachments)

    def on(self, event_name: AnyEvent, *args: Any, **kwargs: Any) -> Callable[[Function], Function]:
        """Attach the decorated function; see :meth:`add_event_handler`.

        Example:
            >>> engine = Engine(lambda engine, batch: None)
            >>> @engine.on(Events.EPOCH_COMPLETED | Events.COMPLETED)
            ... def show(engine):
            ...     print(engine.last_event_name)
            >>> state = engine.run([0])
            epoch_completed
            completed
        """

        def attach(function: Function) -> Function:
            self.add_event_handler(event_name, function, *args, **kwargs)
            return function

        return attach

    def has_event_handler(
        self, handler: Callable[..., Any], event_name: AnyEvent | None = None
    ) -> bool:
        """Tell whether ``handler`` is attached to ``event_name`` (default: to any event)."""
        return bool(self._find(handler, event_name))

    def remove_event_handler(self, handler: Callable[..., Any], event_name: AnyEvent) -> None:
        """Detach ``handler`` from ``event_name``.

        Raises:
            ValueError: it is not attached there.
        """
        found = self._find(handler, event_name)
        if not found:
            raise ValueError(
                f"the handler {describe(handler)} is not attached to the event '{event_name}'"
            )
        self._remove(found)

    def handlers(self) -> Iterator[Callable[..., Any]]:
        """Iterate over the distinct attached handlers, by event and order of attachment."""
        seen: list[Callable[..., Any]] = []
        for event in self._handlers:
            for item in self._handlers[event]:
                if item.handler not in seen:
                    seen.append(item.handler)
                    yield item.handler

    def wrap_handlers(self, wrapper: CallWrapper) -> Callable[[], None]:
        """Let something stand between events and their handlers, for example to time them.

        The handlers stay what they are; what is attached later is wrapped as well. Events that
        hand over more than the engine (EXCEPTION_RAISED, TERMINATE_SINGLE_EPOCH) are not.

        Args:
            wrapper: ``(event, handler, call) -> call``, asked for each handler when the engine
                prepares an event; both calls take the engine alone.

        Returns:
            A function that takes it away again.

        Example:
            >>> engine = Engine(lambda engine, batch: None)
            >>> handle = engine.add_event_handler(Events.STARTED, lambda: print("begin"))
            >>> def announced(event, handler, call):
            ...     return lambda engine: (print(event), call(engine))
            >>> remove = engine.wrap_handlers(announced)
            >>> state = engine.run([0])
            started
            begin
            >>> remove()
        """
        self._wrappers.append(wrapper)
        self._handlers_changed()

        def remove() -> None:
            if wrapper in self._wrappers:
                self._wrappers.remove(wrapper)
                self._handlers_changed()

        return remove

    def fire_event(self, event_name: EventEnum | str) -> None:
        """Count an event and run its handlers; for events of your own, from a step or a handler.

        Raises:
            TypeError: it has a filter: that is the listener's to say.
            ValueError: the event is not registered.
        """
        if isinstance(event_name, CallableEventWithFilter | EventsList):
            raise TypeError(f"fire_event takes one event, without a filter, got '{event_name}'")
        if event_name not in self._handlers:
            raise ValueError(self._unknown(event_name))
        self._fire(event_name)

    def _fire(self, event: EventEnum | str, **named: Any) -> None:
        self.last_event_name = event
        count = self._count(event)
        if named:
            for item in list(self._handlers[event]):
                if item.filter is None or item.filter.is_due(self, count):
                    try:
                        item.call(self, (), named)
                    except BaseException as error:  # raised again, with where
                        item.explain(error, self)
                        raise
            return
        dispatch = self._dispatch(event)
        if dispatch is not None:
            dispatch(self, count)

    def _count(self, event: EventEnum | str) -> int:
        """Advance the count of an event that has no counter of the loop's; return the count."""
        state = self.state
        attribute = state.event_to_attr.get(event)
        if attribute is None:
            key = count_key(event)
            state.event_counts[key] = state.event_counts.get(key, 0) + 1
            return state.event_counts[key]
        count: int = getattr(state, attribute)
        if not isinstance(event, Events):
            if count == self._seen_counts.get(event, 0):
                count += 1
                setattr(state, attribute, count)
            self._seen_counts[event] = count
        return count

    def _dispatch(self, event: EventEnum | str) -> Dispatch | None:
        """Return the compiled handlers of ``event``, None where there are none."""
        try:
            return self._dispatches[event]
        except KeyError:
            pass
        attachments = self._handlers[event]
        count = self.state.get_event_attrib_value(event)
        dispatch = Dispatch(attachments, count, self._wrappers) if attachments else None
        if self._running:
            self._dispatches[event] = dispatch
        return dispatch

    def _handlers_changed(self) -> None:
        self._dispatches.clear()
        self._attention = True

    def _remove(self, attachments: Iterable[Attachment]) -> None:
        if self._handlers.remove(attachments):
            self._handlers_changed()

    def _find(self, handler: Callable[..., Any], event_name: AnyEvent | None) -> list[Attachment]:
        if event_name is None:
            events: list[EventEnum | str] = list(self._handlers)
        else:
            events = [event for event, _ in _parts(event_name)]
        return [
            item
            for event in events
            if event in self._handlers
            for item in self._handlers[event]
            if item.handler == handler
        ]

    def _unknown(self, event: object) -> str:
        known = ", ".join(str(name) for name in self._handlers if not isinstance(name, Events))
        for built_in in Events:
            if str(event) in (built_in.name, built_in.value):
                return f"the event {event!r} is a text; did you mean Events.{built_in.name}?"
        return (
            f"the event '{event}' is not registered with this engine; call "
            f"engine.register_events first (registered: {known or 'only the built-in Events'})"
        )


def _parts(event: AnyEvent) -> list[tuple[EventEnum | str, Any]]:
    """Split what a handler is attached to into events and their filters."""
    if isinstance(event, EventsList):
        return [part for item in event for part in _parts(item)]
    if isinstance(event, CallableEventWithFilter):
        return [(event.event, event.filter)]
    if isinstance(event, EventEnum | str):
        return [(event, None)]
    raise TypeError(f"expected an event, got {event!r} ({type(event).__name__})")
