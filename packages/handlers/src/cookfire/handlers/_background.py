"""Saving in a thread, while the training goes on."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from cookfire.engine import Engine, Events
from cookfire.handlers._base_saver import BaseSaveHandler
from cookfire.handlers._snapshots import Snapshot, Snapshots

__all__ = ["IN_FLIGHT", "Background", "Outcome", "is_ending"]

IN_FLIGHT = 2
"""Saves that may be unfinished: one is written, one waits. So many copies are in memory at most."""


class Outcome(NamedTuple):
    """What became of a save."""

    saved: bool
    removed: bool  # the older checkpoints that it replaces
    error: str | None


class Background:
    """Hands copies of checkpoints to a saver, in one thread and in the order in which they come.

    The calling thread is held up by the copy, and, when :data:`IN_FLIGHT` saves are unfinished, by
    the oldest of them: nothing is left out. The interpreter's exit waits for the thread. After a
    save that failed nothing is removed until :meth:`outcomes` has told of it.

    Args:
        saver: stores and removes; called in the thread.
    """

    def __init__(self, saver: BaseSaveHandler) -> None:
        self._saver = saver
        self._snapshots = Snapshots()
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0
        self._unfinished: deque[Future[Outcome]] = deque()
        self._failed = False
        self.cause: BaseException | None = None

    def copy(self, checkpoint: Any) -> Snapshot:
        """Copy a checkpoint, when there is room for one more."""
        self._begin()
        running = [future for future in self._unfinished if not future.done()]
        if len(running) >= IN_FLIGHT:
            running[-IN_FLIGHT].result()
        return self._snapshots.take(checkpoint)

    def save(
        self, copied: Snapshot, filename: str, metadata: Mapping[str, Any], dropped: Sequence[str]
    ) -> None:
        """Save a copy as ``filename``; when that is safe, remove ``dropped``."""
        job = self._begin().submit(self._work, copied, filename, metadata, dropped)
        self._unfinished.append(job)

    def outcomes(self, wait: bool = False) -> list[Outcome]:
        """Return what became of the saves that are finished, in order, and forget them.

        If one failed, or ``wait``, it is waited for all.
        """
        found: list[Outcome] = []
        while self._unfinished and (wait or self._failed or self._unfinished[0].done()):
            found.append(self._unfinished.popleft().result())
        if not self._unfinished:
            self._failed = False
        return found

    def wait(self) -> None:
        """Wait for all saves."""
        for future in self._unfinished:
            future.result()

    def _begin(self) -> ThreadPoolExecutor:
        if self._executor is None or self._process != os.getpid():  # a fork has no threads
            self._executor = ThreadPoolExecutor(1, "cookfire-checkpoint")
            self._process = os.getpid()
            self._snapshots = Snapshots()
            self._unfinished.clear()
            self._failed = False
        return self._executor

    def _work(
        self,
        copied: Snapshot,
        filename: str,
        metadata: Mapping[str, Any],
        dropped: Sequence[str],
    ) -> Outcome:
        saved = False
        try:
            try:
                self._saver(copied.wait(), filename, metadata)
            finally:
                if self._saver.keeps_nothing:
                    copied.release()
            saved = True
            if not self._failed:
                for old in dropped:
                    self._saver.remove(old)
            return Outcome(saved, not self._failed, None)
        except BaseException as error:  # raised in the training's thread, when it asks
            self._failed, self.cause = True, error
            done = "saved, but an older one was not removed" if saved else "not saved"
            report = f"{filename} was {done}: {type(error).__name__}: {error}"
            logging.getLogger(__name__).error("%s", report)
            return Outcome(saved, False, report)


def is_ending(run: Engine | None) -> bool:
    """Tell whether a run is about to end, so that nobody would wait for a save later."""
    return run is not None and (
        run.should_terminate
        or run.should_interrupt
        or run.last_event_name is Events.EXCEPTION_RAISED
        or run._is_done()
    )
