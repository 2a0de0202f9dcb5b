"""Which device a process computes on, with accelerators that are only pretended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

import cookfire.distributed as idist
from cookfire.distributed import _group


@pytest.fixture
def accelerators(monkeypatch):
    """Pretend that this machine has CUDA devices: ``accelerators(count, current)``."""
    chosen: list[int] = []

    def pretend(count: int, current: int = 0) -> list[int]:
        for name, answer in {
            "is_available": True,
            "current_accelerator": torch.device("cuda"),
            "current_device_index": current,
            "device_count": count,
        }.items():
            monkeypatch.setattr(torch.accelerator, name, lambda answer=answer: answer)
        monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
        return chosen

    return pretend


@pytest.fixture
def group(monkeypatch):
    """A process group that says of itself that it has this backend: ``group("cuda:nccl")``."""

    def pretend(backends: str, local_rank: int = 0) -> None:
        idist.initialize("gloo")
        idist.set_local_rank(local_rank)
        monkeypatch.setattr(dist, "get_backend_config", lambda group: backends)

    yield pretend
    idist.finalize()


def test_without_a_group_it_is_the_current_one(accelerators):
    accelerators(count=4, current=2)
    assert idist.device() == torch.device("cuda", 2)


def test_gloo_computes_on_the_cpu_even_where_there_are_others(accelerators, group):
    group("cpu:gloo,cuda:gloo")
    accelerators(count=4)
    assert idist.device() == torch.device("cpu")


@pytest.mark.parametrize("backends", ["cuda:nccl", "cpu:gloo,cuda:nccl"])
def test_with_nccl_it_is_the_one_of_the_local_rank(accelerators, group, backends):
    group(backends, local_rank=3)
    accelerators(count=4)
    assert idist.device() == torch.device("cuda", 3)


def test_with_nccl_it_is_the_current_one_if_somebody_chose_it(accelerators, group):
    group("cuda:nccl", local_rank=3)
    accelerators(count=4, current=1)
    assert idist.device() == torch.device("cuda", 1)


def test_with_nccl_it_is_the_only_one_that_the_cluster_shows(accelerators, group):
    group("cuda:nccl", local_rank=3)
    accelerators(count=1)
    assert idist.device() == torch.device("cuda", 0)


def test_more_processes_than_devices_are_refused(accelerators, group):
    group("cuda:nccl", local_rank=3)
    accelerators(count=2)
    with pytest.raises(RuntimeError, match="local rank 3 has no device: 2 are visible"):
        idist.device()


def test_collectives_go_where_the_backend_takes_tensors(accelerators, group):
    group("cpu:gloo,cuda:nccl")
    world = dist.group.WORLD
    assert _group.communicates_on("cpu", world)
    assert _group.communicates_on("cuda", world)
    assert not _group.communicates_on("mps", world)


def test_nccl_binds_each_process_to_the_device_of_its_local_rank(accelerators, monkeypatch):
    chosen = accelerators(count=4)
    given: dict[str, Any] = {}
    monkeypatch.setattr(dist, "is_backend_available", lambda name: name in ("gloo", "nccl"))
    monkeypatch.setattr(dist, "init_process_group", lambda name, **kwargs: given.update(kwargs))
    place = {"RANK": 6, "WORLD_SIZE": 8, "LOCAL_RANK": 2, "LOCAL_WORLD_SIZE": 4}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    idist.initialize("nccl", timeout=timedelta(seconds=5))
    assert chosen == [2]
    assert given == {
        "rank": 6,
        "world_size": 8,
        "timeout": timedelta(seconds=5),
        "device_id": torch.device("cuda", 2),
    }
