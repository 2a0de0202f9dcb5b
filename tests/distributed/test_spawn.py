"""Processes that are started here: their places, how they meet, and code for some of them."""

from __future__ import annotations

import os
import socket
import threading
from datetime import timedelta
from multiprocessing import get_start_method
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import cookfire.distributed as idist
from cookfire.distributed._together import run_together
from tests.distributed.starting import spawn


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
    spawn(_write_settings, tmp_path)
    assert (tmp_path / "1").read_text() == str([threads, get_start_method()])


def test_several_nodes_join_in_one_group(processes, tmp_path):
    options = {"nnodes": 2, "master_addr": "127.0.0.1", "master_port": _free_port()}

    def node(node_rank: int) -> None:
        spawn(_write_place, tmp_path, node_rank=node_rank, **options)

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
    spawn(_write_place, tmp_path, init_method=f"file://{tmp_path / 'store'}")
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
