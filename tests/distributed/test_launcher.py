"""Parallel and spawn in real processes: how they start, what they say, how they end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import active_children, get_start_method
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from torch.utils.data import DataLoader

import cookfire.distributed as idist
from cookfire.distributed._together import run_together

INTRODUCTION = """
import sys
import torch
import torch.distributed as dist
import cookfire.distributed as idist

def training(local_rank, config, tensor, **kwargs):
    groups = len(dist.distributed_c10d._world.pg_names)
    say(idist.get_rank(), ': run with config:', config, '- backend=', idist.backend())
    say(local_rank, tensor.tolist(), kwargs, groups)

def say(*words):  # in one piece, so that two processes do not mix theirs
    sys.stdout.write(' '.join(map(str, words)) + '\\n')

if __name__ == '__main__':
    with idist.Parallel(backend='gloo', **eval(sys.argv[1])) as parallel:
        parallel.run(training, {'c': 12345}, torch.arange(3), a=1, b=2)
"""

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} cookfire\.distributed\.launcher\.Parallel INFO: "


def _environment(**variables: str) -> dict[str, str]:
    launchers = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "MASTER_", "SLURM_", "TORCHELASTIC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    # Unbuffered, a line is written piece by piece, and those of two processes mix.
    kept.pop("PYTHONUNBUFFERED", None)
    return kept | variables


def _run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=_environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "main.py"
        path.write_text(text)
        return path

    return write


def test_a_script_starts_two_processes_and_says_so(script):
    done = _run(script(INTRODUCTION), "{'nproc_per_node': 2}")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "0 : run with config: {'c': 12345} - backend= gloo",
        "0 [0, 1, 2] {'a': 1, 'b': 2} 1",
        "1 : run with config: {'c': 12345} - backend= gloo",
        "1 [0, 1, 2] {'a': 1, 'b': 2} 1",
    ]
    expected = [
        "Initialized distributed launcher with backend: 'gloo'",
        "- Parameters to spawn processes: \n\tnproc_per_node: 2\n\tnnodes: 1\n\tnode_rank: 0",
        "Spawn function '<function training at 0xADDRESS>' in 2 processes",
        "End of run",
    ]
    pattern = "".join(f"{STAMP}{re.escape(line)}\n" for line in expected)
    assert re.fullmatch(pattern.replace("ADDRESS", "[0-9a-f]+"), done.stderr)


def test_the_same_script_joins_the_processes_that_torchrun_started(script):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = _run(*torchrun, script(INTRODUCTION), "{}")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "0 : run with config: {'c': 12345} - backend= gloo",
        "0 [0, 1, 2] {'a': 1, 'b': 2} 1",
        "1 : run with config: {'c': 12345} - backend= gloo",
        "1 [0, 1, 2] {'a': 1, 'b': 2} 1",
    ]
    said = [line for line in done.stderr.splitlines() if "cookfire" in line]
    expected = [
        "Initialized processing group with backend: 'gloo'",
        "- Run '<function training at 0xADDRESS>' in 2 processes",
        "End of run",
        "Finalized processing group with backend: 'gloo'",
    ]
    pattern = "\n".join(STAMP + re.escape(line) for line in expected)
    assert re.fullmatch(pattern.replace("ADDRESS", "[0-9a-f]+"), "\n".join(said))


STUCK = """
import os, time
import cookfire.distributed as idist

def training(local_rank):
    print(os.getpid(), flush=True)
    if local_rank == 0:
        idist.barrier()  # nobody else comes
    time.sleep(600)

if __name__ == '__main__':
    with idist.Parallel(backend='gloo', nproc_per_node=2) as parallel:
        parallel.run(training)
"""


def test_processes_end_when_their_parent_is_killed(script):
    parent = subprocess.Popen(
        [sys.executable, script(STUCK)],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        try:
            assert parent.stdout is not None
            children = [int(parent.stdout.readline()) for _ in range(2)]
            assert all(_lives(child) for child in children)
        finally:
            parent.kill()
        _wait_until_gone(children)


FAILING = """
import cookfire.distributed as idist

def training(local_rank):
    if local_rank == 1:
        raise KeyError('no such key')
    idist.barrier()

if __name__ == '__main__':
    with idist.Parallel(backend='gloo', nproc_per_node=2, start_method='fork') as parallel:
        parallel.run(training)
"""


def test_a_script_with_a_failing_rank_shows_that_ranks_traceback_once_and_fails(script):
    done = _run(script(FAILING))
    assert done.returncode == 1
    assert "line 6, in training\n    raise KeyError('no such key')" in done.stderr
    assert "rank 1 (process " in done.stderr
    assert "End of run" not in done.stderr
    assert done.stderr.count("raise KeyError") == 1
    assert "barrier" not in done.stderr, "the others' complaints are consequences"


# -- in the processes of a fork server, which start faster --------------------------------------


def _spawn(function: Callable[..., object], *args: object, **options: Any) -> None:
    options = {"nproc_per_node": 2, "start_method": "forkserver"} | options
    idist.spawn("gloo", function, args, **options)


def _lives(process: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def _wait_until_gone(processes: list[int], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while any(_lives(process) for process in processes):
        assert time.monotonic() < deadline, "a process is left behind"
        time.sleep(0.1)


def _write_place(local_rank: int, folder: Path, **kwargs: object) -> None:
    place = [
        idist.get_rank(),
        idist.get_world_size(),
        idist.get_local_rank(),
        idist.get_nproc_per_node(),
        idist.get_node_rank(),
        idist.get_nnodes(),
    ]
    (folder / f"{idist.get_rank()}").write_text(f"{local_rank} {place} {kwargs}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_spawned_function_gets_its_local_rank_and_arguments(processes, tmp_path):
    idist.spawn(
        "gloo",
        _write_place,
        (tmp_path,),
        kwargs_dict={"a": 1},
        nproc_per_node=2,
        start_method="forkserver",
        timeout=timedelta(seconds=30),
    )
    assert (tmp_path / "0").read_text() == "0 [0, 2, 0, 2, 0, 1] {'a': 1}"
    assert (tmp_path / "1").read_text() == "1 [1, 2, 1, 2, 0, 1] {'a': 1}"
    assert not idist.utils.backend()


def _write_settings(local_rank: int, folder: Path) -> None:
    settings = [torch.get_num_threads(), get_start_method()]
    (folder / str(local_rank)).write_text(str(settings))


@pytest.mark.parametrize(("variable", "threads"), [(None, 3), ("2", 1)])
def test_threads_are_divided_unless_the_environment_says_how_many(
    processes, tmp_path, monkeypatch, variable, threads
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:  # what the fork server had when it started, stays
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    _spawn(_write_settings, tmp_path)
    assert (tmp_path / "1").read_text() == str([threads, get_start_method()])


def test_several_nodes_join_in_one_group(processes, tmp_path):
    options = {"nnodes": 2, "master_addr": "127.0.0.1", "master_port": _free_port()}

    def node(node_rank: int) -> None:
        _spawn(_write_place, tmp_path, node_rank=node_rank, **options)

    other = threading.Thread(target=node, args=(1,))
    other.start()
    node(0)
    other.join()
    found = [(tmp_path / str(rank)).read_text() for rank in range(4)]
    assert found == [
        "0 [0, 4, 0, 2, 0, 2] {}",
        "1 [1, 4, 1, 2, 0, 2] {}",
        "0 [2, 4, 0, 2, 1, 2] {}",
        "1 [3, 4, 1, 2, 1, 2] {}",
    ]


def test_processes_can_meet_at_a_url(processes, tmp_path):
    _spawn(_write_place, tmp_path, init_method=f"file://{tmp_path / 'store'}")
    assert (tmp_path / "1").read_text() == "1 [1, 2, 1, 2, 0, 1] {}"


def _task_of_slurm(rank: int, port: int, folder: Path) -> None:
    task = {
        "SLURM_PROCID": rank,
        "SLURM_STEP_NUM_TASKS": 2,
        "SLURM_LOCALID": 0,
        "SLURM_NODEID": rank,
        "SLURM_STEP_NUM_NODES": 2,
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_STEP_NODELIST": "127.0.0.1,elsewhere",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in task.items()})
    with idist.Parallel(backend="gloo") as parallel:
        parallel.run(_write_place, folder)


def test_tasks_of_slurm_join_in_one_group(processes, tmp_path):
    run_together("forkserver", 2, _task_of_slurm, _free_port(), tmp_path)
    assert (tmp_path / "0").read_text() == "0 [0, 2, 0, 1, 0, 2] {}"
    assert (tmp_path / "1").read_text() == "0 [1, 2, 0, 1, 1, 2] {}"


def _initialized_by_others() -> dict[str, Any]:
    found = {"place": (idist.get_rank(), idist.get_local_rank(), idist.get_nproc_per_node())}
    os.environ.update({"RANK": "7", "WORLD_SIZE": "9", "LOCAL_RANK": "3"})  # of somebody else
    found["stale"] = (idist.get_rank(), idist.get_local_rank(), idist.get_world_size())
    idist.set_local_rank(5)
    found["hint"] = idist.get_local_rank()
    found["device"] = idist.device()
    dist.destroy_process_group()
    found["after"] = (idist.get_rank(), idist.get_world_size(), idist.backend())
    return found


def test_a_group_that_others_brought_up_or_took_down_is_seen_at_once(processes):
    for rank, found in enumerate(processes(2, _initialized_by_others)):
        assert found["place"] == (rank, rank, 2)
        assert found["stale"] == (rank, rank, 2)
        assert found["hint"] == 5
        assert found["device"] == torch.device("cpu")
        assert found["after"] == (0, 1, None)


def _guarded() -> dict[str, Any]:
    rank = idist.get_rank()
    events: list[Any] = []
    only = idist.one_rank_only(rank=1, with_barrier=True)(lambda: events.append("mine") or "done")
    found: dict[str, Any] = {"returned": only()}
    with idist.one_rank_first(rank=1):
        # Whoever is not first finds what the first one left.
        order = dist.distributed_c10d._get_default_store().add("order", 1)
    with idist.one_rank_first(local=True):
        local = dist.distributed_c10d._get_default_store().add("local", 1)
    try:
        with idist.one_rank_first():
            if rank == 0:
                raise KeyError("the first fails, and the other goes on")
    except KeyError:
        events.append("caught")
    return found | {"events": events, "order": order, "local": local}


def test_guards_keep_the_ranks_apart_and_in_step(processes):
    zero, one = processes(2, _guarded)
    assert (zero["returned"], one["returned"]) == (None, "done")
    assert (zero["events"], one["events"]) == (["caught"], ["mine"])
    assert (zero["order"], one["order"]) == (2, 1)
    assert (zero["local"], one["local"]) == (1, 2)


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
    raise errors.get(how, lambda: ValueError("wrong", local_rank))()


@pytest.mark.parametrize("how", ["plain", "deaf", "workers", "unpicklable", "unloadable", "long"])
def test_an_exception_in_one_rank_ends_all_within_seconds(processes, tmp_path, how):
    start = time.monotonic()
    with pytest.raises(ProcessRaisedException) as caught:
        _spawn(_fail, how, tmp_path)
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
        _wait_until_gone(workers)


def test_a_rank_that_is_killed_ends_all_and_is_named(processes, tmp_path):
    with pytest.raises(ProcessExitedException, match=r"rank 1 .* was ended by SIGKILL") as caught:
        _spawn(_fail, "killed", tmp_path)
    assert (caught.value.exit_code, caught.value.signal_name) == (-9, "SIGKILL")
    assert active_children() == []


def test_a_rank_that_exits_ends_all_and_its_code_is_named(processes, tmp_path):
    with pytest.raises(ProcessExitedException, match=r"rank 1 .* exited with code 3") as caught:
        _spawn(_fail, "exit", tmp_path)
    assert (caught.value.exit_code, caught.value.signal_name) == (3, None)
    assert active_children() == []


def test_an_interrupt_ends_all(processes, tmp_path):
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        _spawn(time.sleep)
    timer.join()
    assert active_children() == []
