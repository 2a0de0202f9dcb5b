"""When an event's handlers are due: by count, or by a user's predicate.

A filter by count knows the next count at which it is due, so the loop compares one number per
event instead of asking every handler at every event.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

NEVER = 1 << 62
"""A count that no run reaches."""


class Filter(Protocol):
    """Decides at which counts of an event its handlers run."""

    def next_due(self, count: int) -> int:
        """Return the first count from ``count`` on at which handlers may be due."""
        ...

    def is_due(self, engine: Any, count: int) -> bool:
        """Tell whether handlers run at ``count``."""
        ...


@dataclass(frozen=True)
class Periodic:
    """Every ``period``-th count with ``after < count < before``, beginning with ``first``."""

    period: int
    first: int
    before: int = NEVER

    def next_due(self, count: int) -> int:
        due = self.first
        if count > due:
            due += -(-(count - due) // self.period) * self.period
        return due if due < self.before else NEVER

    def is_due(self, engine: Any, count: int) -> bool:  # noqa: ARG002 - the protocol's signature
        return self.next_due(count) == count


@dataclass(frozen=True)
class Once:
    """The given counts, in ascending order."""

    counts: tuple[int, ...]

    def next_due(self, count: int) -> int:
        index = bisect_left(self.counts, count)
        return self.counts[index] if index < len(self.counts) else NEVER

    def is_due(self, engine: Any, count: int) -> bool:  # noqa: ARG002 - the protocol's signature
        return count in self.counts


@dataclass(frozen=True)
class Predicate:
    """A user's function ``(engine, count) -> bool``, asked each time."""

    function: Callable[[Any, int], bool]

    def next_due(self, count: int) -> int:
        return count

    def is_due(self, engine: Any, count: int) -> bool:
        return bool(self.function(engine, count))


def make_filter(
    event_filter: Callable[[Any, int], bool] | None,
    every: int | None,
    once: int | Sequence[int] | None,
    before: int | None,
    after: int | None,
) -> Filter | None:
    """Build the filter of ``Events.X(...)``; None where every count is due.

    Raises:
        TypeError: ``event_filter`` is not callable.
        ValueError: nothing was given, what was given excludes each other, or a count is out of
            range.
    """
    windowed = every is not None or before is not None or after is not None
    if (event_filter is not None) + (once is not None) + windowed != 1:
        raise ValueError(
            "an event is filtered by one of event_filter=, once=, or every=/before=/after= "
            f"together; got event_filter={event_filter!r}, every={every!r}, once={once!r}, "
            f"before={before!r}, after={after!r}"
        )
    if event_filter is not None:
        if not callable(event_filter):
            raise TypeError(
                "event_filter must be a function (engine, count) -> bool, "
                f"got {type(event_filter).__name__}"
            )
        return Predicate(event_filter)
    if once is not None:
        counts = list(once) if isinstance(once, Sequence) else [once]
        if not counts or not all(_is_count(count, 1) for count in counts):
            raise ValueError(f"once must be a positive integer or a list of them, got {once!r}")
        return Once(tuple(sorted(set(counts))))
    if every is not None and not _is_count(every, 1):
        raise ValueError(f"every must be a positive integer, got {every!r}")
    for name, bound in (("before", before), ("after", after)):
        if bound is not None and not _is_count(bound, 0):
            raise ValueError(f"{name} must be an integer of at least 0, got {bound!r}")
    if before is not None and after is not None and before - after < 2:
        raise ValueError(f"before={before!r}, after={after!r}: no count lies between the two")
    period = every or 1
    if before is None and after is None:
        # Multiples of the period (0 too: events before the first iteration have that count); in a
        # window the first count in it is the first due.
        return None if period == 1 else Periodic(period, first=0)
    return Periodic(period, first=(after or 0) + 1, before=NEVER if before is None else before)


def _is_count(value: object, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum
