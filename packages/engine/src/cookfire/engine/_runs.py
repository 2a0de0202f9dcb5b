"""Which engines are running, the one around another first: an evaluator runs inside a trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cookfire.engine._engine import Engine

__all__ = ["in_progress", "outermost_run"]

_running: ContextVar[tuple[Engine, ...]] = ContextVar("running engines", default=())


@contextmanager
def in_progress(engine: Engine) -> Iterator[None]:
    """Note that ``engine`` runs, inside of those that do already in this thread."""
    token = _running.set((*_running.get(), engine))
    try:
        yield
    finally:
        _running.reset(token)


def outermost_run() -> Engine | None:
    """Return the engine whose run all other runs of this thread are a part of."""
    running = _running.get()
    return running[0] if running else None
