"""A saver that is as slow as a test wants it."""

from __future__ import annotations

import threading
from typing import Any

from tests.handlers.helpers import Memory


class Slow(Memory):
    """Stores when it is let, and fails when it is told."""

    keeps_nothing = True

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.failing: dict[str, Exception] = {}
        self.threads: set[threading.Thread] = set()

    def __call__(self, checkpoint: Any, filename: str, metadata: Any = None) -> None:
        """Keep a copy of the checkpoint, when it is let."""
        self.threads.add(threading.current_thread())
        self.entered.release()
        assert self.go.acquire(timeout=30)
        if filename in self.failing:
            raise self.failing[filename]
        copied = {name: value.clone() for name, value in checkpoint.items()}
        super().__call__(copied, filename, metadata)
