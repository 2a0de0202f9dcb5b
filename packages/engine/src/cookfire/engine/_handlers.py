"""Handlers attached to events: how they are called, and how an event finds them quickly."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cookfire.engine._filters import NEVER, Filter
from cookfire.engine.events import EventEnum, Events

if TYPE_CHECKING:
    from cookfire.engine._emitter import Emitter

Handler = Callable[..., Any]
Call = Callable[[Any], Any]
CallWrapper = Callable[[EventEnum | str, Handler, Call], Call]

# What these events hand over besides the engine.
_EVENT_ARGUMENTS: dict[EventEnum | str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    Events.EXCEPTION_RAISED: ((Exception(),), {}),
    Events.TERMINATE_SINGLE_EPOCH: ((), {"iter_counter": 0}),
}


class Attachment:
    """One handler on one event, with its filter and the user's arguments."""

    __slots__ = ("args", "event", "filter", "handler", "kwargs", "takes_engine", "takes_extra")

    def __init__(
        self,
        event: EventEnum | str,
        filter: Filter | None,  # noqa: A002 - the word for it
        handler: Handler,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.event = event
        self.filter = filter
        self.handler = handler
        self.args = args
        self.kwargs = kwargs
        self.takes_engine, self.takes_extra = _calling_convention(event, handler, args, kwargs)

    def compile(self) -> Callable[[Emitter], Any]:
        """Return a call that takes the engine alone, so that the loop need not know signatures."""
        handler, args, kwargs = self.handler, self.args, self.kwargs
        if self.takes_engine:
            if not args and not kwargs:
                return handler
            return lambda engine: handler(engine, *args, **kwargs)
        if not args and not kwargs:
            return lambda _: handler()
        return lambda _: handler(*args, **kwargs)

    def call(self, engine: Emitter, extra: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Call the handler with what the event hands over."""
        if not self.takes_extra:
            extra, named = (), {}
        first = (engine,) if self.takes_engine else ()
        self.handler(*first, *extra, *self.args, **self.kwargs, **named)

    def explain(self, error: BaseException, engine: Emitter) -> None:
        """Note on ``error`` which handler raised it, when, and where it was defined."""
        state = engine.state
        error.add_note(
            f"raised by the handler {describe(self.handler)} of the event '{self.event}' "
            f"(epoch {state.epoch}, iteration {state.iteration})"
        )


class Dispatch:
    """The handlers of one event, ready to be called.

    ``due`` is the next count at which some filtered handler is due. At any other count only
    ``unfiltered`` runs; at ``due`` all are walked, in the order in which they were attached.
    """

    __slots__ = ("_all", "_last", "_unfiltered_items", "due", "unfiltered")

    def __init__(
        self, attachments: Iterable[Attachment], count: int, wrappers: Iterable[CallWrapper] = ()
    ) -> None:
        self._all = tuple((_wrapped(item, wrappers), item) for item in attachments)
        self._unfiltered_items = [item for _, item in self._all if item.filter is None]
        self.unfiltered = tuple(call for call, item in self._all if item.filter is None)
        self.due = self._next_due(count)
        self._last = count - 1

    def __call__(self, engine: Emitter, count: int) -> None:
        """Run what is due at ``count``."""
        if count <= self._last:  # a user's counter may start again
            self.due = self._next_due(count)
        self._last = count
        if count < self.due:
            calls = iter(self.unfiltered)
            try:
                for call in calls:
                    call(engine)
            except BaseException as error:  # raised again, with where
                self.explain(error, engine, calls)
                raise
            return
        for call, item in self._all:
            try:
                if item.filter is None or item.filter.is_due(engine, count):
                    call(engine)
            except BaseException as error:  # raised again, with where
                item.explain(error, engine)
                raise
        self.due = self._next_due(count + 1)

    def explain(self, error: BaseException, engine: Emitter, calls: Iterator[Any]) -> None:
        """Note on ``error`` which unfiltered handler raised it: the last that ``calls`` gave."""
        index = len(self.unfiltered) - length_hint(calls) - 1
        self._unfiltered_items[index].explain(error, engine)

    def _next_due(self, count: int) -> int:
        filters = {item.filter for _, item in self._all if item.filter is not None}
        return min((item.next_due(count) for item in filters), default=NEVER)


def _wrapped(item: Attachment, wrappers: Iterable[CallWrapper]) -> Call:
    call = item.compile()
    for wrapper in wrappers:
        call = wrapper(item.event, item.handler, call)
    return call


class HandlerTable:
    """All attachments of one engine, by event, in the order in which they were made."""

    def __init__(self) -> None:
        self._attachments: dict[EventEnum | str, list[Attachment]] = {}

    def register(self, event: EventEnum | str) -> None:
        self._attachments.setdefault(event, [])

    def __contains__(self, event: object) -> bool:
        return event in self._attachments

    def __getitem__(self, event: EventEnum | str) -> list[Attachment]:
        return self._attachments[event]

    def __iter__(self) -> Iterator[EventEnum | str]:
        return iter(self._attachments)

    def add(self, attachment: Attachment) -> None:
        self._attachments[attachment.event].append(attachment)

    def remove(self, attachments: Iterable[Attachment]) -> int:
        """Remove the given attachments; return how many of them were still there."""
        count = 0
        for item in attachments:
            # By identity: two attachments of one handler are two things.
            kept = [other for other in self._attachments[item.event] if other is not item]
            count += len(self._attachments[item.event]) - len(kept)
            self._attachments[item.event] = kept
        return count


class RemovableEventHandle:
    """What ``add_event_handler`` returns: removes exactly what was added.

    As a context manager it removes on leaving.

    Example:
        >>> engine = Engine(lambda engine, batch: None)
        >>> with engine.add_event_handler(Events.STARTED, lambda: print("started")):
        ...     state = engine.run([0])
        started
        >>> state = engine.run([0])
    """

    def __init__(self, engine: Emitter, event_name: Any, attachments: list[Attachment]) -> None:
        self._engine = weakref.ref(engine)
        self._attachments = attachments
        self.event_name = event_name

    def remove(self) -> None:
        """Detach the handler; a second call does nothing."""
        engine = self._engine()
        if engine is not None:
            engine._remove(self._attachments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


def describe(function: Any) -> str:
    """Name a function and where it was defined: ``'log' (train.py:12)``."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    target = inspect.unwrap(function)
    if not inspect.isroutine(target):  # an instance with __call__
        target = type(target).__call__
    code = getattr(target, "__code__", None)
    return f"'{name}' ({code.co_filename}:{code.co_firstlineno})" if code else f"'{name}'"


def _calling_convention(
    event: EventEnum | str, handler: Handler, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[bool, bool]:
    """Tell whether ``handler`` takes the engine, and what its event hands over.

    Raises:
        TypeError: the handler is no callable, or can be called in none of the ways.
    """
    if not callable(handler):
        raise TypeError(
            f"a handler of the event '{event}' must be callable, "
            f"got {handler!r} ({type(handler).__name__})"
        )
    try:
        signature = inspect.signature(handler)
    except (ValueError, TypeError):
        return True, False  # some built-in functions have none to look at
    extra, named = _EVENT_ARGUMENTS.get(event, ((), {}))
    ways = [(True, True), (True, False), (False, False)] if extra or named else []
    for takes_engine, takes_extra in ways or [(True, False), (False, False)]:
        first: tuple[Any, ...] = (object(),) if takes_engine else ()
        first += extra if takes_extra else ()
        try:
            signature.bind(*first, *args, **kwargs, **(named if takes_extra else {}))
        except TypeError:
            continue
        return takes_engine, takes_extra
    given = [repr(value) for value in args] + [
        f"{name}={value!r}" for name, value in kwargs.items()
    ]
    also = "".join(f", {word}" for word in given)
    raise TypeError(
        f"the handler {describe(handler)} takes {signature}, but the event '{event}' would call it "
        f"with (engine{also}) or ({', '.join(given)})"
    )
