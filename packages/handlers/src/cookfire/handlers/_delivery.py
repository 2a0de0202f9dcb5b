"""Handing records to a tracker that may fail, without ever stopping the training."""

from __future__ import annotations

import importlib.util
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from cookfire.handlers._log_values import WarnOnce

__all__ = ["SILENCE", "Delivery", "Silence", "require"]

BACKLOG = 10_000  # records that are kept while a tracker can't be reached
SECONDS = 30.0  # to wait before it is tried again
SHARE = 10.0  # and at least so many times what the failing call took: it costs a tenth of the run

Write = Callable[[], object]


class Delivery:
    """Writes records to one tracker; says once that it fails, and goes on.

    What fails for want of a connection, a lock or disk space (``OSError``) is an outage: small
    records are kept and written again later, in order. Anything else is the record's own fault:
    it is left out.

    Args:
        tracker: its name, for warnings.
        warn: says each thing once.
        around: makes the context in which each record is written; it may raise as a write may.
    """

    def __init__(
        self,
        tracker: str,
        warn: WarnOnce,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._tracker = tracker
        self._warn = warn
        self._around = around
        self._backlog: deque[tuple[str, Write]] = deque(maxlen=BACKLOG)
        self._retry_at = 0.0

    def __call__(self, kind: str, write: Write, *, keep: bool = False) -> None:
        """Write a record of a ``kind`` ('metrics', 'a figure'), after those that wait.

        ``keep`` says that it is small enough to be kept during an outage.
        """

        def surrounded() -> None:
            with self._around():
                write()

        delivered = time.monotonic() >= self._retry_at and self._drain()
        if not (delivered and self.attempt(kind, surrounded)) and keep:
            self._backlog.append((kind, surrounded))

    def finish(self) -> None:
        """Try what waits a last time; say what is lost."""
        self._retry_at = 0.0
        if not self._drain():
            lost = len(self._backlog)
            self._backlog.clear()
            self._warn("lost", f"{self._tracker} is still out of reach: {lost} records are lost")

    def attempt(self, kind: str, write: Write) -> bool:
        """Write one record now, as it is; return False if the tracker is out of reach."""
        begin = time.monotonic()
        try:
            write()
        except NotImplementedError:
            self._warn(kind, f"{self._tracker} has no place for {kind}; left out")
        except OSError as error:
            now = time.monotonic()
            self._retry_at = now + max(SECONDS, SHARE * (now - begin))
            self._warn(
                "outage",
                f"{self._tracker} could not write {kind}: {_describe(error)}. The training goes "
                "on; metrics and parameters are kept and written when it works again, figures and "
                "files meanwhile are left out",
            )
            return False
        except Exception as error:  # whatever a tracker's library raises: it is no part of training
            self._warn(
                (kind, type(error)),
                f"{self._tracker} could not write {kind}: {_describe(error)}. "
                "The training goes on without this record",
            )
        return True

    def _drain(self) -> bool:
        while self._backlog:
            if not self.attempt(*self._backlog[0]):
                return False
            self._backlog.popleft()
        return True


def _describe(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class Silence:
    """Stands for a tracker's own object where nothing is written: each of its functions is none."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python's own questions, as copy and pickle ask them
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> Silence:
        return self

    def __getitem__(self, _: object) -> Silence:
        return self

    def __setitem__(self, _: object, __: object) -> None: ...

    def __bool__(self) -> bool:
        return False


SILENCE = Silence()


def require(package: str, tracker: str, *, extra: bool = True) -> None:
    """Raise ModuleNotFoundError, saying what to install, where ``package`` is missing.

    Only looks whether it is there: importing it may take seconds and waits for its first use.
    ``extra`` says that ``cookfire-handlers`` has an extra of the package's name.
    """
    if importlib.util.find_spec(package) is None:
        install = f"'cookfire-handlers[{package}]' (or pip install {package})" if extra else package
        raise ModuleNotFoundError(
            f"{tracker} needs the package {package!r}, which is not installed: "
            f"pip install {install}",
            name=package,
        )
