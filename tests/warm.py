"""Processes that start at once, forked from one that has imported what takes seconds."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import sys
import warnings
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

import torch

SECONDS = 300


def forkserver() -> ForkServerContext:
    """Return the context whose processes start in a fraction of a second."""
    context = multiprocessing.get_context("forkserver")
    # Any optimizer imports torch._dynamo.
    context.set_forkserver_preload(
        ["torch", "torch._dynamo", "torch.distributed.fsdp", "cookfire.distributed"]
    )
    return context


def run_script(
    script: Path, environment: Mapping[str, str] | None = None, *, strict: bool = False
) -> CompletedProcess[str]:
    """Run a script in its folder, as ``python script`` would, with one thread of torch.

    Args:
        script: its path.
        environment: variables beside those of this process, set after torch is imported.
        strict: whether its own warnings (UserWarning) are errors.
    """
    with TemporaryDirectory() as name:
        output, errors = Path(name) / "output", Path(name) / "errors"
        process = forkserver().Process(
            target=_run, args=(script, dict(environment or {}), strict, output, errors)
        )
        process.start()
        process.join(SECONDS)
        process.kill()  # nothing happens to one that has ended
        process.join()
        code = process.exitcode
        assert code is not None
        return CompletedProcess([str(script)], code, output.read_text(), errors.read_text())


def _run(
    script: Path, environment: dict[str, str], strict: bool, output: Path, errors: Path
) -> None:
    for stream, path in ((sys.stdout, output), (sys.stderr, errors)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
        stream.reconfigure(line_buffering=False, write_through=False)
    # Unbuffered, a line is written piece by piece, and those of two processes mix.
    os.environ.pop("PYTHONUNBUFFERED", None)
    os.environ.update({"OMP_NUM_THREADS": "1"} | environment)
    torch.set_num_threads(1)
    # What the script starts itself starts as from any script.
    multiprocessing.set_start_method(None, force=True)
    os.chdir(script.parent)
    sys.argv[:] = [script.name]
    sys.path.insert(0, str(script.parent))
    if strict:
        warnings.simplefilter("error", UserWarning)
        os.environ["PYTHONWARNINGS"] = "error::UserWarning"  # of what the script starts
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        atexit._run_exitfuncs()
