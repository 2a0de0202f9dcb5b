"""One training at a time in a folder: a lock that dies with its process, however that ends."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cookfire.handlers.recipe._errors import RecipeError, show_path

LOCK = "lock"

PATIENCE = 5.0
"""Seconds to wait for the lock: the processes of a killed run end within three."""

logger = logging.getLogger("cookfire.handlers.recipe")

_held: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the file ``lock`` in the folder, which is made if need be; it holds the process's id.

    Raises:
        RecipeError: another process holds it; its id is named.
    """
    descriptor = _acquire(folder)
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def clear(folder: Path) -> None:
    """Delete what is in a folder whose lock this process holds, but for the lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def remove(folder: Path) -> None:
    """Delete such a folder, and ``.resume`` around it if nothing else is in it."""
    clear(folder)
    (folder / LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # who waited for the lock has the folder now; or something is there
        folder.rmdir()
        if folder.parent.name == ".resume":
            folder.parent.rmdir()


def _acquire(folder: Path) -> int:
    path = folder / LOCK
    deadline = time.monotonic() + PATIENCE
    said = False
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its holder has just removed the folder
            continue
        if not _flock(descriptor):
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "(unknown)"
            os.close(descriptor)
            if time.monotonic() < deadline:
                if not said:
                    logger.info(
                        "%s: process %s is training this; waiting %g s for it to end",
                        show_path(folder), holder, PATIENCE,
                    )  # fmt: skip
                said = True
                time.sleep(0.1)
                continue
            raise RecipeError(
                f"{show_path(folder)}: process {holder} is training this already; "
                "wait for it or end it"
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)  # its holder finished and removed the file: lock the new one
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release_in_child() -> None:
    # A data loader's forked worker may outlive a killed training for seconds; a lock is free only
    # when all copies of its descriptor are closed.
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)
