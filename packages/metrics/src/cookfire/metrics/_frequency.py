"""Items per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.engine.events import AnyEvent
from cookfire.metrics._own_events import ListeningMetric
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import same


class Frequency(ListeningMetric):
    """Items processed per second since the epoch started, over all processes; a float.

    Over ranks, the sum of their items by the mean of their seconds.

    Args:
        output_transform: turns the engine's output into a number of items, an int or an integer
            tensor without dimensions.
        device: where a number that comes as a tensor is kept; None: where it is.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Example:
        >>> frequency = Frequency(output_transform=lambda output: output["tokens"])
        >>> frequency.attach(evaluator, "tokens/s", event_name=Events.ITERATION_COMPLETED(every=50))
    """

    required_output_keys = None

    items = MetricState(torch.int64)
    seconds = MetricState(torch.float64, reduction="mean")

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        self._handles = []
        super().__init__(output_transform, device, skip_unrolling)

    def reset(self) -> None:
        """Begin afresh: time runs from now on."""
        super().reset()
        self._last = time.perf_counter()

    def update(self, output: int | Tensor) -> None:
        """Add a number of items, and the time since the last ones."""
        self.accumulate(items=output)
        now = time.perf_counter()
        held = self._store.local.values["seconds"]
        self.seconds = now - self._last + (0.0 if held is None else float(self.seconds))
        self._last = now

    def compute(self) -> float | Tensor:
        """Return the items per second as a float.

        Raises:
            NotComputableError: there was no update.
        """
        return self.items / self.seconds

    def attach(  # type: ignore[override] # it is shown at an event, and has no usage
        self, engine: Engine, name: str, event_name: AnyEvent = Events.ITERATION_COMPLETED
    ) -> None:
        """Have the engine put the items per second into ``engine.state.metrics[name]``.

        At ``event_name`` it is this process's rate times the number of processes, which needs no
        exchange; at the end of each epoch it is exact. It is reset when an epoch starts.
        """
        self._listen(engine, Events.EPOCH_STARTED, self.started)
        self._listen(engine, Events.ITERATION_COMPLETED, self.iteration_completed)
        self._listen(engine, event_name, self._show, name)
        self._listen(engine, Events.EPOCH_COMPLETED, self.completed, name)

    def _show(self, engine: Engine, name: str) -> None:
        engine.state.metrics[name] = float(self._value_here()) * idist.get_world_size()
