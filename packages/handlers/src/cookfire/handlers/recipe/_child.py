"""Commands that this process starts and waits for, and that end with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Linux sends the signal when the process that started this one is gone, also after `exec`.
_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def run_python(arguments: Sequence[str], folder: Path) -> int:
    """Run this Python with the arguments in a folder, first in its PATH; return the exit code.

    It is ended when this process is killed (on Linux). At Ctrl-C, which a terminal sends to both,
    it is let come to its own end, unless there is a second one.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    command = [sys.executable, "-c", _WITH_PARENT, *arguments]
    sys.stdout.flush()
    with subprocess.Popen(command, cwd=folder, env={**os.environ, "PATH": path}) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
            process.kill()
            raise
