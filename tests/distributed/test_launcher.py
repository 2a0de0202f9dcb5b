"""Parallel in scripts: how they start, what they say, how they end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.starting import lives, wait_until_gone

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
            assert all(lives(child) for child in children)
        finally:
            parent.kill()
        wait_until_gone(children)


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


LEAVING = """
import atexit, time
import cookfire.distributed as idist

def training(local_rank):
    idist.barrier()
    if local_rank == 0:
        atexit.register(time.sleep, 2)  # at work, as torch may be, when it is told to end
    raise KeyError('no such key')

if __name__ == '__main__':
    with idist.Parallel(backend='gloo', nproc_per_node=2) as parallel:
        parallel.run(training)
"""


def test_a_process_that_is_leaving_when_it_is_told_to_end_does_not_complain(script):
    done = _run(script(LEAVING))
    assert done.returncode == 1
    assert "KeyError: 'no such key'" in done.stderr
    assert "SystemExit" not in done.stderr


def test_a_script_with_a_failing_rank_shows_that_ranks_traceback_once_and_fails(script):
    done = _run(script(FAILING))
    assert done.returncode == 1
    assert "line 6, in training\n    raise KeyError('no such key')" in done.stderr
    assert "rank 1 (process " in done.stderr
    assert "End of run" not in done.stderr
    assert done.stderr.count("raise KeyError") == 1
    assert "barrier" not in done.stderr, "the others' complaints are consequences"


HELD = """
import psutil, torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import cookfire.distributed as idist

def threads():
    return psutil.Process().num_threads()

def training(local_rank):
    model = DistributedDataParallel(nn.Linear(2, 1))
    model.known_to = [model]  # as by the handlers of its trainer

if __name__ == '__main__':
    before = threads()
    with idist.Parallel(backend='gloo') as parallel:
        parallel.run(training)
        assert threads() > before
    assert threads() == before, f'{threads()} threads are left of {before}'
"""


def test_a_group_that_garbage_holds_leaves_no_thread_behind(script):
    done = _run(script(HELD), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
