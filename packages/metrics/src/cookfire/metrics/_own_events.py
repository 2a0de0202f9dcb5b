"""For metrics that listen to an engine's events by themselves."""

from __future__ import annotations

from typing import Any

from cookfire.engine import Engine, RemovableEventHandle
from cookfire.metrics._usage import EPOCH_WISE, MetricUsage
from cookfire.metrics.metric import Metric


class ListeningMetric(Metric):
    """A metric whose ``attach`` adds its own handlers, and notes them."""

    _handles: list[tuple[Engine, RemovableEventHandle]]

    def detach(self, engine: Engine, usage: str | MetricUsage = EPOCH_WISE) -> None:  # noqa: ARG002 - it has no usage
        """Undo ``attach``."""
        for owner, handle in self._handles:
            if owner is engine:
                handle.remove()
        self._handles = [pair for pair in self._handles if pair[0] is not engine]

    def is_attached(self, engine: Engine, usage: str | MetricUsage = EPOCH_WISE) -> bool:  # noqa: ARG002 - it has no usage
        """Tell whether the engine computes this metric."""
        return any(owner is engine for owner, _ in self._handles)

    def _listen(self, engine: Engine, event: Any, handler: Any, *args: Any) -> None:
        self._handles.append((engine, engine.add_event_handler(event, handler, *args)))

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_handles": []}
