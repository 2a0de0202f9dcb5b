"""What starting under a launcher costs beyond torch's own initialisation: nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

import cookfire.distributed as idist

COLLECTIVES = (
    "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "barrier",
    "broadcast", "broadcast_object_list", "new_group", "monitored_barrier",
)  # fmt: skip


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _count(start: Callable[[], object], stop: Callable[[], object], port: int) -> tuple[int, int]:
    """Return the collectives called and the keys left in the store."""
    os.environ["MASTER_PORT"] = str(port)
    calls = 0
    kept = {name: getattr(dist, name) for name in COLLECTIVES}

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return function(*args, **kwargs)

        return call

    for name, function in kept.items():
        setattr(dist, name, counted(function))
    start()
    keys = dist.distributed_c10d._get_default_store().num_keys()
    for name, function in kept.items():
        setattr(dist, name, function)
    # Whoever has the store leaves last.
    dist.barrier()
    stop()
    return calls, keys


def _start_in_turn(ports: list[int]) -> dict[str, Any]:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    dist.destroy_process_group()
    os.environ |= {"RANK": f"{rank}", "WORLD_SIZE": f"{world_size}", "MASTER_ADDR": "127.0.0.1"}
    parallel = idist.Parallel(backend="gloo")
    found: dict[str, Any] = {
        "torch": _count(
            lambda: dist.init_process_group("gloo"), dist.destroy_process_group, ports[0]
        ),
        "ours": _count(parallel.__enter__, lambda: parallel.__exit__(None, None, None), ports[1]),
    }
    # Under an agent that keeps the store and may restart the processes, twice.
    names = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3"}
    os.environ |= names
    timeout = timedelta(seconds=30)
    if rank == 0:
        agent = dist.TCPStore(
            "127.0.0.1", ports[2], is_master=True, timeout=timeout, wait_for_workers=False
        )
    for attempt in (1, 2):
        found[f"attempt {attempt}"] = _count(
            lambda: idist.initialize("gloo"), idist.finalize, ports[2]
        )
    if rank == 0:
        del agent  # kept until here: it serves the store
    return found


def test_starting_adds_nothing_to_torchs_own_start(processes):
    ports = [_free_port() for _ in range(3)]
    for rank in processes(2, _start_in_turn, ports):
        calls, keys = rank["torch"]
        assert rank["ours"] == (calls, keys)
        assert calls == 0
        for attempt in (1, 2):
            more_calls, more_keys = rank[f"attempt {attempt}"]
            assert more_calls == 0
            # One list of words, an answer to each, and their thanks.
            assert more_keys <= attempt * (keys + 3) + 1
