"""Exceptions of the core."""

from __future__ import annotations

__all__ = ["NotComputableError"]


class NotComputableError(RuntimeError):
    """A metric was asked for its value before it saw any data."""
