"""These run where torch_xla is installed only; ``.ci/run`` makes that environment and runs them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 400  # most of it for XLA's compiler, on a busy machine

collect_ignore_glob = [] if importlib.util.find_spec("torch_xla") else ["test_*.py"]


@pytest.fixture(scope="session")
def on_xla(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Call a function in a process of its own: ``on_xla(4, "tests.xla.programs", "losses")``.

    In a process, since XLA aborts the interpreter where others raise; the first argument is the
    number of devices into which XLA shall divide the CPU. Returns what the function returned.
    """

    def call(devices: int, module: str, function: str, *args: Any) -> Any:
        path = tmp_path_factory.mktemp("xla") / "result"
        torch.save(args, path)
        code = (
            f"import sys, torch; from {module} import {function}; "
            "path = sys.argv[1]; "
            f"torch.save({function}(*torch.load(path, weights_only=False)), path)"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, str(path)],
            cwd=ROOT,
            env={**os.environ, "PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(devices)},
            timeout=SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-6000:]
        return torch.load(path, weights_only=False)

    return call
