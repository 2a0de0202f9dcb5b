"""Trainings under torchrun whose processes are killed: they go on from the last checkpoint."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cookfire.distributed._elastic import agree_on_a_name
from cookfire.handlers._files import load_file
from tests import warm
from tests.distributed import elastic

SCRIPT = Path(elastic.__file__)
SECONDS = 240
KILLS = 10
LAST = elastic.EPOCHS * elastic.BATCHES

# Of the weights after 70 steps of SGD, which 1 and 2 processes sum up in another order.
TOLERANCE = 1e-5


@contextmanager
def _torchrun(log: Path, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    launchers = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "MASTER_", "SLURM_", "TORCHELASTIC_")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(launchers)
    }
    root = SCRIPT.parents[2]
    with log.open("wb") as file:
        job = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)],
            env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield job
    finally:
        job.kill()
        job.wait()


class Steps:
    """What the processes of a training have noted: one line a step."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "steps"

    def read(self) -> list[tuple[int, int, int]]:
        """Return (process, rank, iteration) of each step."""
        if not self.file.exists():
            return []
        lines = self.file.read_text().split("\n")[:-1]  # the last one may not be whole
        return [tuple(map(int, line.split())) for line in lines]

    def processes(self) -> set[int]:
        """Return all processes there have been."""
        return {process for process, _, _ in self.read()}

    def wait_for(self, ended: Callable[[], bool], count: int) -> dict[int, int]:
        """Wait for so many steps, all told; return the process of each rank that is there now."""
        deadline = time.monotonic() + SECONDS
        while len(steps := self.read()) < count:
            assert not ended(), "the training has ended"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return {rank: process for process, rank, _ in steps}


def _wait_until_gone(processes: set[int]) -> None:
    deadline = time.monotonic() + 20
    while living := [process for process in processes if _lives(process)]:
        assert time.monotonic() < deadline, f"left behind: {living}"
        time.sleep(0.1)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)


def _lives(process: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _uninterrupted(
    processes: Callable[..., list[Any]], folder: Path, world: int, noise: float
) -> dict[str, Any]:
    folder.mkdir()
    processes(world, elastic.training, 0, folder, noise)
    weights: Any = load_file(folder / "model.pt")
    return dict(weights)


def _agent(log: Path, *args: object) -> None:
    """Do what ``torchrun --standalone --nproc-per-node=2`` does, with processes of a fork server.

    They start in a fraction of the time.
    """
    warm.forkserver()
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    config = LaunchConfig(
        1, 1, nproc_per_node=2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="job",
        max_restarts=KILLS, start_method="forkserver",
    )  # fmt: skip
    elastic_launch(config, elastic.main)(*args)


def test_ten_kills_in_a_row_leave_no_trace_in_the_weights(processes, tmp_path):
    expected = _uninterrupted(processes, tmp_path / "whole", 2, 0.1)
    folder, log = tmp_path / "killed", tmp_path / "log"
    folder.mkdir()
    draw, steps = random.Random(5), Steps(folder)
    job = warm.forkserver().Process(target=_agent, args=(log, folder, 0.1, 0.02))
    job.start()
    try:
        killed: set[int] = set()
        for _ in range(KILLS):
            seen = len(steps.read())
            # A process that did a step after the kill before, in the middle of anything.
            ranks = steps.wait_for(lambda: not job.is_alive(), seen + draw.randint(4, 14))
            while killed & set(ranks.values()):
                ranks = steps.wait_for(lambda: not job.is_alive(), len(steps.read()) + 1)
            time.sleep(0.03 * draw.random())
            victim = ranks[draw.choice([0, 1])]
            os.kill(victim, signal.SIGKILL)
            killed |= set(ranks.values())
        job.join(SECONDS)
        assert job.exitcode == 0, log.read_text()
    finally:
        job.kill()
    assert len(killed) == 2 * KILLS
    found: Any = load_file(folder / "model.pt")
    for name, weights in expected.items():
        assert torch.equal(found[name], weights)
    assert max(iteration for _, _, iteration in steps.read()) == LAST
    _wait_until_gone(steps.processes())


def test_when_a_node_is_lost_the_other_goes_on_alone(processes, tmp_path):
    expected = _uninterrupted(processes, tmp_path / "whole", 1, 0.0)
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "alone").touch()  # until the second one has joined, however slow the machine
    steps = Steps(folder)
    port = _free_port()
    node = (
        "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=job",
        "--rdzv-conf=last_call_timeout=4,keep_alive_interval=1,keep_alive_max_attempt=2",
        SCRIPT, folder, 0.0, 0.05,
    )  # fmt: skip
    logs = [tmp_path / "first", tmp_path / "second"]
    with ExitStack() as stack:
        first = stack.enter_context(_torchrun(logs[0], *node))
        _wait_for(port)  # the first one keeps the rendezvous: with it the job would be lost
        second = stack.enter_context(_torchrun(logs[1], *node))

        def ended() -> bool:
            return first.poll() is not None

        seen = 0
        while set(ranks := steps.wait_for(ended, seen + 1)) != {0, 1}:
            seen = len(steps.read())
        (folder / "alone").unlink()
        steps.wait_for(ended, len(steps.read()) + 10)
        second.kill()  # the launcher alone: its process has to notice
        assert first.wait(SECONDS) == 0, logs[0].read_text()
    found: Any = load_file(folder / "model.pt")
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, atol=TOLERANCE, rtol=0)
    last = steps.read()[-1]
    assert last[0] not in ranks.values()
    assert last[1:] == (0, LAST)
    assert "goes on with 1" in logs[0].read_text()
    _wait_until_gone(steps.processes())


FAILING = """
import sys
import cookfire.distributed as idist

def training(local_rank):
    if idist.get_rank() == 1:
        raise KeyError('no such key')
    idist.barrier()

if __name__ == '__main__':
    with idist.Parallel(backend='gloo') as parallel:
        parallel.run(training)
"""


def test_torchrun_names_the_rank_that_failed_and_its_traceback_and_ends_the_others(tmp_path):
    script, log = tmp_path / "main.py", tmp_path / "log"
    script.write_text(FAILING)
    with _torchrun(log, "--standalone", "--nproc-per-node=2", script) as job:
        assert job.wait(SECONDS) == 1
    said = log.read_text()
    cause = said.rpartition("Root Cause (first observed failure):")[2]
    assert "rank      : 1 (local_rank: 1)" in cause
    assert "in training\n      raise KeyError('no such key')" in cause


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _agree(attempt: list[str]) -> list[str]:
    """Let the two processes of an attempt agree; in it others have died at these points."""
    store = dist.HashStore()
    for died in attempt:
        store.append("words", f"{died} ")
    store.add("thanks for the dead", len(attempt))
    with ThreadPool(1) as pool:
        second = pool.apply_async(agree_on_a_name, (store, 1, 2, timedelta(seconds=20)))
        return [agree_on_a_name(store, 0, 2, timedelta(seconds=20)), second.get()]


@pytest.mark.parametrize("dead", [[], ["one"], ["one", "another"]])
def test_processes_of_an_attempt_agree_on_a_name_whoever_died_before(dead):
    mine, others = _agree(dead)
    assert mine == others
    assert mine not in dead


def test_a_process_that_does_not_come_is_missed_in_time():
    with pytest.raises(RuntimeError, match="not all of the 2 processes have come"):
        agree_on_a_name(dist.HashStore(), 0, 2, timedelta(seconds=0.1))
