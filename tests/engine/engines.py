"""Engines and data that several tests run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cookfire.engine import Engine


class Unsized:
    """Gives walks of the given lengths, one after the other."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = iter(lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(range(next(self.lengths)))


def recording_engine() -> tuple[Engine, list[Any]]:
    """Return an engine, and the list of the batches that it gets."""
    batches: list[Any] = []
    return Engine(lambda _, batch: batches.append(batch)), batches
