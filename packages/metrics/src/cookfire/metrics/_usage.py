"""When an attached metric is reset, updated and computed."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

from cookfire.engine import CallableEventWithFilter, EventEnum, Events, EventsList

Event = EventEnum | CallableEventWithFilter | EventsList


class MetricUsage:
    """The events at which an attached metric is reset, updated and computed.

    Two usages with the same events are equal, so that ``metric.detach(engine, BatchWise())`` finds
    what ``metric.attach(engine, "name", BatchWise())`` made.

    Args:
        started: the metric is reset.
        completed: its value is computed and put into ``engine.state.metrics``.
        iteration_completed: it is updated with ``engine.state.output``.

    Example:
        >>> MetricUsage(Events.STARTED, Events.COMPLETED, Events.ITERATION_COMPLETED) == EpochWise()
        False
    """

    usage_name: ClassVar[str]
    """The name by which ``attach`` knows the usage."""

    def __init__(self, started: Event, completed: Event, iteration_completed: Event) -> None:
        self.STARTED = started
        self.COMPLETED = completed
        self.ITERATION_COMPLETED = iteration_completed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MetricUsage) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        events = f"{self.STARTED}, {self.COMPLETED}, {self.ITERATION_COMPLETED}"
        return f"{type(self).__name__}({events})"

    def _key(self) -> tuple[Hashable, ...]:
        return tuple(
            _key(event) for event in (self.STARTED, self.COMPLETED, self.ITERATION_COMPLETED)
        )


class EpochWise(MetricUsage):
    """Over each epoch: the default.

    Reset at EPOCH_STARTED, updated at ITERATION_COMPLETED, computed at EPOCH_COMPLETED.

    Example:
        >>> Accuracy().attach(evaluator, "accuracy", EpochWise())
    """

    usage_name = "epoch_wise"

    def __init__(self) -> None:
        super().__init__(Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.ITERATION_COMPLETED)


class RunningEpochWise(EpochWise):
    """Once an epoch, over the whole run: a running value of what an epoch gave.

    Reset at STARTED, updated and computed at EPOCH_COMPLETED.

    Example:
        >>> RunningAverage(Accuracy()).attach(evaluator, "smooth", RunningEpochWise())
    """

    usage_name = "running_epoch_wise"

    def __init__(self) -> None:
        MetricUsage.__init__(self, Events.STARTED, Events.EPOCH_COMPLETED, Events.EPOCH_COMPLETED)


class BatchWise(MetricUsage):
    """Over each batch by itself.

    Reset at ITERATION_STARTED, updated and computed at ITERATION_COMPLETED. In a process group
    that is a collective in every iteration.

    Example:
        >>> Accuracy().attach(evaluator, "batch accuracy", BatchWise())
    """

    usage_name = "batch_wise"

    def __init__(self) -> None:
        super().__init__(
            Events.ITERATION_STARTED, Events.ITERATION_COMPLETED, Events.ITERATION_COMPLETED
        )


class RunningBatchWise(BatchWise):
    """At each batch, over the whole run.

    Reset at STARTED, updated and computed at ITERATION_COMPLETED.

    Example:
        >>> Accuracy().attach(evaluator, "accuracy of the run", RunningBatchWise())
    """

    usage_name = "running_batch_wise"

    def __init__(self) -> None:
        MetricUsage.__init__(
            self, Events.STARTED, Events.ITERATION_COMPLETED, Events.ITERATION_COMPLETED
        )


class SingleEpochRunningBatchWise(BatchWise):
    """At each batch, over the epoch so far.

    Reset at EPOCH_STARTED, updated and computed at ITERATION_COMPLETED.

    Example:
        >>> Accuracy().attach(evaluator, "accuracy so far", SingleEpochRunningBatchWise())
    """

    usage_name = "single_epoch_running_batch_wise"

    def __init__(self) -> None:
        MetricUsage.__init__(
            self, Events.EPOCH_STARTED, Events.ITERATION_COMPLETED, Events.ITERATION_COMPLETED
        )


class BatchFiltered(MetricUsage):
    """Over each epoch, but of some batches only.

    Args:
        *args: as for ``Events.ITERATION_COMPLETED(...)``.
        **kwargs: likewise.

    Example:
        >>> BatchFiltered(every=2) == BatchFiltered(every=2)
        True
    """

    usage_name = "batch_filtered"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(
            Events.EPOCH_STARTED,
            Events.EPOCH_COMPLETED,
            Events.ITERATION_COMPLETED(*args, **kwargs),
        )


EPOCH_WISE = EpochWise()
RUNNING_BATCH_WISE = RunningBatchWise()

_BY_NAME = {
    usage.usage_name: usage
    for usage in (
        EPOCH_WISE,
        RunningEpochWise(),
        BatchWise(),
        RUNNING_BATCH_WISE,
        SingleEpochRunningBatchWise(),
    )
}


def find_usage(usage: str | MetricUsage) -> MetricUsage:
    """Return the usage of that name, or the usage itself.

    Raises:
        ValueError: no usage has that name.
        TypeError: neither a name nor a usage.
    """
    if isinstance(usage, MetricUsage):
        return usage
    if not isinstance(usage, str):
        raise TypeError(f"usage must be a MetricUsage or the name of one, got {usage!r}")
    if usage not in _BY_NAME:
        raise ValueError(f"unknown usage {usage!r}; expected one of {', '.join(_BY_NAME)}")
    return _BY_NAME[usage]


def _key(event: Event) -> Hashable:
    if isinstance(event, EventsList):
        return tuple(_key(part) for part in event)
    if isinstance(event, CallableEventWithFilter):
        return event.event, event.filter
    return event
