"""The store that holds the values of a metric's states."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cookfire.metrics._state import MetricState, Value


@dataclass
class Values:
    """States' values by name, and how many updates they come from."""

    values: dict[str, Value]
    updates: int = 0
    derived: dict[Hashable, Any] = field(default_factory=dict)
    """What formulas worked out of the values, for the others that share them."""


@dataclass(eq=False)
class Store:
    """The values of one metric's states; metrics that need the same statistic share one store."""

    local: Values
    """What this process accumulated."""
    reduced: Values | None = None
    """The same over all ranks; there only while a value is computed, and never put into local."""
    alone: bool = False
    """While a value is computed: of this process only, without a collective."""
    restored: bool = False
    """Whether the values come from a checkpoint: the event that begins a resumed run keeps them."""
    wanted: frozenset[Hashable] = frozenset()
    """What the metrics that share it need of the statistic; the rest need not be counted."""

    @classmethod
    def of(cls, states: dict[str, MetricState], wanted: frozenset[Hashable]) -> Store:
        """Return an empty store."""
        return cls(Values(dict.fromkeys(states)), wanted=wanted)

    def copy(self) -> Store:
        """Return a store that goes on from these values by itself."""
        values = {
            name: list(value) if isinstance(value, list) else value
            for name, value in self.local.values.items()
        }
        return Store(Values(values, self.local.updates), restored=self.restored, wanted=self.wanted)

    def clear(self) -> None:
        """Forget everything."""
        self.local = Values(dict.fromkeys(self.local.values))
        self.restored = False
