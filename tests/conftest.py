"""Fixtures shared by the tests of the four packages."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

torch.set_num_threads(1)

SECONDS = 120


def _rank(
    rank: int, world_size: int, store: str, queue: Any, function: Callable[..., Any], args: tuple
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    try:
        queue.put((rank, function(*args), None))
    except BaseException:
        queue.put((rank, None, traceback.format_exc()))
    else:
        dist.destroy_process_group()


@pytest.fixture(scope="session")
def processes() -> Callable[..., list[Any]]:
    """Run ``function(*args)`` in real gloo processes: ``processes(2, function, *args)``."""
    context = multiprocessing.get_context("forkserver")
    # The fork server imports torch once, so that a process starts in a fraction of a second.
    context.set_forkserver_preload(["torch", "torch.distributed", "cookfire.distributed"])

    def run(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            store = f"file://{Path(folder) / 'store'}"
            queue = context.Queue()
            workers = [
                context.Process(
                    target=_rank, args=(rank, world_size, store, queue, function, args), daemon=True
                )
                for rank in range(world_size)
            ]
            for worker in workers:
                worker.start()
            results: dict[int, Any] = {}
            try:
                for _ in workers:
                    rank, result, error = queue.get(timeout=SECONDS)
                    assert error is None, f"rank {rank} of {world_size} raised\n{error}"
                    results[rank] = result
            finally:
                for worker in workers:
                    if len(results) < world_size:
                        worker.kill()
                    worker.join(SECONDS)
            return [results[rank] for rank in range(world_size)]

    return run
