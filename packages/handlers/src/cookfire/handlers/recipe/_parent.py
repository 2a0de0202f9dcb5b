"""A training that DVC started ends with it: nobody would wait for its outs any more."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

SECONDS = 0.5
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "busybox"})


def end_with_parent() -> None:
    """Watch this process's parent from a thread, and end the process when the parent has died.

    It ends as if killed: the next run resumes. DVC starts its commands through a shell, so that
    where the parent is a shell, the shell's parent is watched too.
    """
    links = [(os.getpid(), os.getppid())]
    while _name(links[-1][1]) in SHELLS and (above := _parent(links[-1][1])):
        links.append((links[-1][1], above))
    threading.Thread(target=_watch, args=(links,), name="parent-watch", daemon=True).start()


def _watch(links: list[tuple[int, int]]) -> None:
    while all(_parent(child) == parent for child, parent in links):
        time.sleep(SECONDS)
    with suppress(OSError):  # whoever read this may be gone as well
        os.write(2, b"the process that started this one is gone: ending; run again to resume\n")
    os._exit(1)


def _parent(process: int) -> int | None:
    """Return the parent's id; None where only the process itself could tell, and it is another."""
    if process == os.getpid():
        return os.getppid()
    stat = _stat(process)
    return int(stat[1].split()[1]) if stat else None


def _name(process: int) -> str | None:
    stat = _stat(process)
    return stat[0] if stat else None


def _stat(process: int) -> tuple[str, str] | None:
    """Return name and remaining fields of Linux's ``/proc/<id>/stat``: ``7 (a name) S 1 ...``."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, _, fields = text.partition("(")[2].rpartition(")")
    return name, fields
