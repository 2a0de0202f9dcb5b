"""Processes that are started together end together, and say why."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from torch.utils.data import DataLoader

import cookfire.distributed as idist
from tests.distributed.starting import spawn, wait_until_gone


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("cannot travel")
        self.lock = threading.Lock()


class Unloadable(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__("two arguments make one")


def _fail(local_rank: int, how: str, folder: Path) -> None:
    if how == "workers":
        loader = DataLoader(range(100), num_workers=1, prefetch_factor=2)
        batches = iter(loader)
        next(batches)
        workers = [worker.pid for worker in active_children()]
        (folder / str(local_rank)).write_text(" ".join(map(str, workers)))
        idist.barrier()
    if local_rank == 0:
        if how == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        idist.barrier()
        time.sleep(600)
    errors = {
        "unpicklable": Unpicklable,
        "unloadable": lambda: Unloadable(1, 2),
        "long": lambda: ValueError("long " * 100_000),
    }
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        sys.exit(3)
    if how == "exit as if done":
        sys.exit(0)
    if how == "exit at once":
        os._exit(0)
    raise errors.get(how, lambda: ValueError("wrong", local_rank))()


@pytest.mark.parametrize("how", ["plain", "deaf", "workers", "unpicklable", "unloadable", "long"])
def test_an_exception_in_one_rank_ends_all_within_seconds(processes, tmp_path, how):
    start = time.monotonic()
    with pytest.raises(ProcessRaisedException) as caught:
        spawn(_fail, how, tmp_path)
    assert time.monotonic() - start < 30
    assert active_children() == []
    error = caught.value
    assert error.error_index == 1
    assert re.match(rf"rank 1 \(process {error.error_pid}\) raised\n\nTraceback ", str(error))
    assert "in _fail" in str(error)
    if how.startswith("un"):
        assert error.__cause__ is None
        assert re.search("cannot travel|two arguments make one", str(error))
    else:
        assert type(error.__cause__) is ValueError
    if how == "plain":
        assert error.__cause__.args == ("wrong", 1)
    if how == "workers":
        workers = [int(pid) for rank in "01" for pid in (tmp_path / rank).read_text().split()]
        assert len(workers) == 2
        wait_until_gone(workers)


def test_a_rank_that_is_killed_ends_all_and_is_named(processes, tmp_path):
    with pytest.raises(ProcessExitedException, match=r"rank 1 .* was ended by SIGKILL") as caught:
        spawn(_fail, "killed", tmp_path)
    assert (caught.value.exit_code, caught.value.signal_name) == (-9, "SIGKILL")
    assert active_children() == []


def test_a_rank_that_exits_ends_all_and_its_code_is_named(processes, tmp_path):
    with pytest.raises(ProcessExitedException, match=r"rank 1 .* exited with code 3") as caught:
        spawn(_fail, "exit", tmp_path)
    assert (caught.value.exit_code, caught.value.signal_name) == (3, None)
    assert active_children() == []


@pytest.mark.parametrize("how", ["exit as if done", "exit at once"])
def test_a_rank_that_exits_before_its_function_returned_has_failed(processes, tmp_path, how):
    words = r"rank 1 .* exited with code 0, before its function returned"
    with pytest.raises(ProcessExitedException, match=words) as caught:
        spawn(_fail, how, tmp_path)
    assert caught.value.exit_code == 0
    assert active_children() == []


def test_an_interrupt_ends_all(processes, tmp_path):
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        spawn(time.sleep)
    timer.join()
    assert active_children() == []
