"""Which checkpoints are kept: the newest, or those with the best scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Kept", "Saved"]


class Saved(NamedTuple):
    """A checkpoint, and by what it is kept: its score, else its step."""

    priority: int | float
    filename: str

    @property
    def rank(self) -> tuple[bool, int | float]:
        """What to compare by: not-a-number is worse than everything."""
        return (True, self.priority) if self.priority == self.priority else (False, 0)


class Kept(NamedTuple):
    """The rule by which they are kept.

    Attributes:
        number: how many; None for all.
        by_score: keep the best; else the newest.
        equal_is_better: of two equal scores the newer one is better.
    """

    number: int | None
    by_score: bool
    equal_is_better: bool

    def improved(self, saved: list[Saved], new: Saved) -> list[Saved] | None:
        """Return all in their order, the worst or oldest first; None if ``new`` is no better."""
        if self.by_score:
            rivals = [item for item in saved if item.filename == new.filename]
            if not rivals and self.number is not None and len(saved) >= self.number:
                rivals = [saved[-self.number]]  # the worst of those to keep
            for rival in rivals:
                if new.rank < rival.rank or (new.rank == rival.rank and not self.equal_is_better):
                    return None
        return self.ordered(saved, new)

    def ordered(self, saved: Iterable[Saved], new: Saved) -> list[Saved]:
        """Return all in their order; ``new`` replaces one of the same name."""
        items = [*(item for item in saved if item.filename != new.filename), new]
        return sorted(items, key=lambda item: item.rank) if self.by_score else items

    def beyond(self, saved: list[Saved]) -> list[Saved]:
        """Return those that are too many."""
        return [] if self.number is None else saved[: -self.number]
