"""Fixtures shared by the tests of the four packages."""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
import torch
import torch.distributed as dist

from cookfire.distributed._together import run_together
from tests import warm

torch.set_num_threads(1)
# An example takes as long as a busy machine lets it.
hypothesis.settings.register_profile("any time", deadline=None)
hypothesis.settings.load_profile("any time")

if importlib.util.find_spec("torch_xla"):
    # Ignite, an oracle, would call what torch_xla has no more; it is not to see it.
    sys.modules["torch_xla"] = None
    importlib.import_module("ignite.distributed")
    del sys.modules["torch_xla"]

COLLECTIVE_SECONDS = 60
SECONDS = 120


def _rank(
    rank: int, world_size: int, folder: Path, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    # One that hangs says where, and ends; that ends the others.
    faulthandler.dump_traceback_later(SECONDS, exit=True)
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


@pytest.fixture(scope="session")
def processes() -> Callable[..., list[Any]]:
    """Run ``function(*args)`` in real gloo processes: ``processes(2, function, *args)``.

    Returns what each rank returned. The function must be at the top level of a module; if a rank
    raises, its exception and traceback come back as ``ProcessRaisedException``.
    """
    warm.forkserver()

    def run(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        with TemporaryDirectory() as name:
            folder = Path(name)
            run_together("forkserver", world_size, _rank, world_size, folder, function, args)
            return [
                torch.load(folder / str(rank), weights_only=False) for rank in range(world_size)
            ]

    return run
