"""Starting processes for a test, and seeing that they are gone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import cookfire.distributed as idist


def spawn(function: Callable[..., object], *args: object, **options: Any) -> None:
    """Run a function in two processes of a fork server, which start faster."""
    options = {"nproc_per_node": 2, "start_method": "forkserver"} | options
    idist.spawn("gloo", function, args, **options)


def lives(process: int) -> bool:
    """Tell whether a process is there, and no zombie."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def wait_until_gone(processes: list[int], seconds: float = 15.0) -> None:
    """Wait until all of them have ended; fail if they do not."""
    deadline = time.monotonic() + seconds
    while any(lives(process) for process in processes):
        assert time.monotonic() < deadline, "a process is left behind"
        time.sleep(0.1)
