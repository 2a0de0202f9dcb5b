"""XLA's replicas, one process a device, with a torch_xla that only records what it is asked.

There is no TPU here. What is tested is our side: what we ask of torch_xla, in which order, and what
we make of its answers.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import cookfire.distributed as idist
from cookfire.distributed import _group


class FakeXLA:
    """Two replicas that always hold the same, one after the other in this process."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.rank = 0
        self.replicas = 2
        self.kind = "TPU"

    def modules(self) -> dict[str, ModuleType]:
        def module(name: str, **members: Any) -> ModuleType:
            made = ModuleType(name)
            vars(made).update(members)
            return made

        runtime = module(
            "torch_xla.runtime",
            world_size=lambda: self.replicas,
            global_ordinal=lambda: self.rank,
            local_ordinal=lambda: self.rank,
            local_device_count=lambda: 2,
            process_count=lambda: 1,
            global_runtime_device_count=lambda: 2,
            device_type=lambda: self.kind,
            is_spmd=lambda: False,
        )
        model = module(
            "torch_xla.core.xla_model",
            all_reduce=self.all_reduce,
            all_gather=lambda tensor, dim: self.note(
                "all_gather", torch.cat([tensor, tensor], dim)
            ),
            rendezvous=lambda tag: self.note(f"rendezvous {tag}"),
            set_rng_state=lambda seed: self.note("set_rng_state"),
            broadcast_master_param=lambda model: self.note("broadcast_master_param"),
            reduce_gradients=lambda optimizer: self.note("reduce_gradients"),
        )
        spmd = module("torch_xla.distributed.spmd", Mesh=object)
        top = module(
            "torch_xla",
            device=lambda: torch.device("cpu"),
            sync=lambda: self.note("sync"),
            launch=self.launch,
            runtime=runtime,
            _XLAC=module("_XLAC", _xla_runtime_is_initialized=lambda: False),
        )
        core = module("torch_xla.core", xla_model=model)
        distributed = module("torch_xla.distributed", spmd=spmd)
        return {made.__name__: made for made in (top, runtime, core, model, distributed, spmd)}

    def note(self, call: str, result: Any = None) -> Any:
        self.calls.append(call)
        return result

    def all_reduce(self, kind: str, tensor: torch.Tensor) -> torch.Tensor:
        return self.note(f"all_reduce {kind}", tensor * 2 if kind == "sum" else tensor.clone())

    def launch(self, function: Any, args: tuple[Any, ...], start_method: str) -> None:
        self.note(f"launch {start_method}")
        for self.rank in range(2):
            function(self.rank, *args)


@pytest.fixture
def xla(monkeypatch):
    fake = FakeXLA()
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(_group, "has_xla_support", True)
    monkeypatch.setattr(dist.Backend, "backend_list", [*dist.Backend.backend_list])
    ours = "cookfire.distributed._xla"
    monkeypatch.setitem(sys.modules, ours, None)  # so that what stood there comes back
    del sys.modules[ours]
    yield fake
    idist.finalize()


def run(xla: FakeXLA, function: Any, nproc_per_node: int = 2) -> None:
    with idist.Parallel("xla", nproc_per_node=nproc_per_node) as parallel:
        parallel.run(function)


def test_torch_xla_starts_the_replicas_and_says_where_each_stands(xla):
    seen = []

    def look(local_rank: int) -> None:
        seen.append((local_rank, idist.get_rank(), idist.get_world_size(), idist.get_node_rank()))
        assert idist.model_name() == "xla-dist"
        assert idist.get_nproc_per_node() == 2

    run(xla, look)
    assert seen == [(0, 0, 2, 0), (1, 1, 2, 0)]
    assert xla.calls == ["launch spawn"]
    assert idist.backend() is None


def test_what_devices_can_reduce_is_reduced_there_and_the_rest_exactly_on_the_host(xla):
    def reduce(_: int) -> None:
        xla.calls.clear()
        assert idist.all_reduce(torch.ones(2)).tolist() == [2, 2]
        assert idist.all_reduce(torch.ones(2), "MAX").tolist() == [1, 1]
        assert idist.all_reduce(torch.ones(2), "AVERAGE").tolist() == [1, 1]
        assert xla.calls == ["all_reduce sum", "all_reduce max", "all_reduce sum"]
        xla.calls.clear()
        tiny = torch.tensor([1 + 2**-40], dtype=torch.float64)
        assert torch.equal(idist.all_reduce(tiny), 2 * tiny)
        assert idist.all_reduce(2**40 + 1) == 2**41 + 2
        assert idist.all_reduce(torch.tensor([3.0]), "PRODUCT").tolist() == [9]
        assert set(xla.calls) == {"all_gather"}

    run(xla, reduce)


def test_everything_else_travels_as_bytes(xla):
    def exchange(_: int) -> None:
        assert idist.all_gather("a") == ["a", "a"]
        assert idist.all_gather(torch.tensor([1, 2], dtype=torch.int16)).tolist() == [1, 2, 1, 2]
        assert idist.broadcast(torch.tensor([0.1], dtype=torch.float64), src=1).tolist() == [0.1]
        xla.calls.clear()
        idist.barrier()
        assert xla.calls == ["rendezvous cookfire"]
        with pytest.raises(NotImplementedError, match="has no groups of some of the processes"):
            idist.new_group([0])

    run(xla, exchange)


def test_a_training_averages_gradients_before_each_step_and_starts_a_graph_a_batch(xla):
    def train(_: int) -> None:
        model = idist.auto_model(net := nn.Linear(2, 1))
        assert model is net  # gradients are averaged by the optimizer, not by a wrapper
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):  # once is enough, twice does no harm
            assert idist.auto_optim(optimizer) is optimizer
        optimizer.register_step_post_hook(lambda *_: xla.note("step"))
        loader = idist.auto_dataloader(torch.ones(8, 2), batch_size=4, shuffle=True)
        assert len(loader) == 2
        xla.calls.clear()
        for batch in loader:
            assert batch.shape == (2, 2)  # this replica's half
            model(batch).sum().backward()
            optimizer.step()
        each = ["set_rng_state", "reduce_gradients", "step", "sync"]
        assert xla.calls == 2 * each

    run(xla, train)


def test_replicas_begin_with_the_same_weights(xla):
    def make(_: int) -> None:
        xla.calls.clear()
        idist.auto_model(nn.Linear(2, 1))
        assert "broadcast_master_param" in xla.calls
        with pytest.raises(ValueError, match="sync_bn=True: XLA's replicas can't do that"):
            idist.auto_model(nn.Linear(2, 1), sync_bn=True)

    run(xla, make)


def test_as_many_replicas_as_devices_are_started_or_none(xla):
    with pytest.raises(ValueError, match="nproc_per_node=3: this host has 2 XLA devices"):
        run(xla, print, nproc_per_node=3)


def test_several_hosts_need_no_address_among_tpus(xla):
    with pytest.raises(ValueError, match="backend 'xla': expected no nnodes"):
        idist.Parallel(
            "xla", nproc_per_node=2, nnodes=2, node_rank=0, master_addr="a", master_port=1
        )


def test_on_the_cpu_replicas_are_refused_before_any_starts(xla):
    xla.kind = "CPU"
    with pytest.raises(RuntimeError, match=r"cannot run collectives between replicas .*use SPMD"):
        idist.Parallel("xla", nproc_per_node=2)
    assert xla.calls == []


def test_ignites_name_of_the_backend_means_the_same(xla):
    assert "xla" in idist.available_backends()
    with idist.Parallel("xla-tpu", nproc_per_node=2) as parallel:
        parallel.run(lambda _: xla.note(str(idist.backend())))
    assert xla.calls == ["launch spawn", "xla", "xla"]
