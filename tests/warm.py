"""Processes that start at once, forked from one that has imported what takes seconds."""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import runpy
import sys
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

from cookfire.distributed._together import run_together

SCRIPT_SECONDS = 300
RANK_SECONDS = 120
COLLECTIVE_SECONDS = 60
HEAVY = (
    "torch._dynamo",  # which any optimizer imports
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
    "pytest",
    "hypothesis",
    "torchvision",
    "timm",
    "cookfire.distributed",
    "cookfire.engine",
    "cookfire.handlers.recipe",
    "cookfire.metrics",
)


def forkserver() -> ForkServerContext:
    """Return the context whose processes start in a fraction of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY))
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
        process.join(SCRIPT_SECONDS)
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


def run_ranks(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Return what each of the gloo processes of a group returned.

    The function must be at the top level of a module; if a rank raises, its exception and traceback
    come back as ``ProcessRaisedException``.
    """
    forkserver()
    with TemporaryDirectory() as name:
        folder = Path(name)
        run_together("forkserver", world_size, _rank, world_size, folder, function, args)
        return [torch.load(folder / str(rank), weights_only=False) for rank in range(world_size)]


def _rank(
    rank: int, world_size: int, folder: Path, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    # One that hangs says where, and ends; that ends the others.
    faulthandler.dump_traceback_later(RANK_SECONDS, exit=True)
    torch.set_num_threads(1)
    # Nobody leaves while another one still connects to it.
    os.environ["TORCH_DIST_INIT_BARRIER"] = "1"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=COLLECTIVE_SECONDS),
    )
    result = function(*args)
    # By a file and by value: nothing is lost or shared when this process ends.
    torch.save(result, folder / str(rank))
    if dist.is_initialized():
        dist.destroy_process_group()
    faulthandler.cancel_dump_traceback_later()
