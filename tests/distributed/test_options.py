"""Arguments that can not be meant are refused at once, in one line, in one process too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import nn

import cookfire.distributed as idist


def _parallel(**options: Any) -> Callable[[], object]:
    return lambda: idist.Parallel("gloo", **{"nproc_per_node": 2} | options)


def _model(**options: Any) -> Callable[[], object]:
    return lambda: idist.auto_model(nn.Linear(2, 1), **options)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (_parallel(nproc_per_node="2"), TypeError, "nproc_per_node='2': expected a whole number"),
        (_parallel(nproc_per_node=True), TypeError, "nproc_per_node=True: expected a whole number"),
        (_parallel(nproc_per_node=0), ValueError, "nproc_per_node 0: expected 1 or more"),
        (_parallel(nnodes=1.0), TypeError, "nnodes=1.0: expected a whole number"),
        (_parallel(node_rank="0"), TypeError, "node_rank='0': expected a whole number"),
        (_parallel(master_port="29500"), TypeError, "master_port='29500': expected a whole"),
        (_parallel(master_addr=7), TypeError, "master_addr=7: expected an address, given an int"),
        (_parallel(timeout=10), TypeError, "timeout=10: expected a datetime.timedelta"),
        (_parallel(start_method="thread"), ValueError, "start_method='thread': expected one of"),
        (_parallel(timeot=timedelta(1)), TypeError, "unknown option 'timeot'; did you mean 'time"),
        (lambda: idist.Parallel(timeot=1), TypeError, "Parallel: unknown option 'timeot'"),
        (lambda: idist.Parallel(["gloo"]), TypeError, "backend=['gloo']: expected a name"),
        (lambda: idist.initialize(None), TypeError, "backend=None: expected a name"),
        (lambda: idist.spawn("gloo", print, (), prot=1), TypeError, "spawn: unknown option 'prot'"),
        (
            _model(find_unused=True),
            TypeError,
            "unknown option 'find_unused'; did you mean 'find_un",
        ),
        (_model(module=1), TypeError, "auto_model: unknown option 'module'"),
        (_model(wrap="fsdp", mp_polcy=1), TypeError, "'mp_polcy'; did you mean 'mp_policy'?"),
        (_model(compile="eager"), TypeError, "compile='eager': expected True, False, or a mapping"),
        (_model(compile={"bakend": "eager"}), TypeError, "'bakend'; did you mean 'backend'?"),
        (_model(sync_bn="no"), TypeError, "sync_bn='no': expected True or False"),
        (_model(wrap="fsdp", shard=nn.Linear), TypeError, "did you mean [Linear]?"),
        (_model(wrap="fsdp", shard="Linear"), TypeError, "shard='Linear': expected classes"),
        (_model(wrap="fsdp", shard=["Linear"]), TypeError, "shard: 'Linear': expected a class"),
        (_model(wrap="fsdp", shard=3), TypeError, "shard=3: expected classes of modules"),
        (lambda: idist.auto_model(3), TypeError, "model=3: expected a torch.nn.Module"),
        (lambda: idist.auto_optim(3), TypeError, "optimizer=3: expected a torch.optim.Optimizer"),
        (lambda: idist.auto_dataloader([1], seed="0"), TypeError, "seed='0': expected a whole"),
        (lambda: idist.auto_dataloader([1], batch_size=True), ValueError, "batch_size True: exp"),
        (lambda: idist.all_reduce(1, group=[]), ValueError, "ranks []: expected at least one rank"),
        (lambda: idist.all_gather(1, group=[0, 0]), ValueError, "[0, 0]: expected at least one"),
        (lambda: idist.all_gather("a", group="all"), TypeError, "group='all': expected one of"),
        (lambda: idist.new_group([True]), ValueError, "ranks [True]: expected a list of whole"),
        (lambda: idist.new_group([-1]), ValueError, "ranks [-1]: expected at least one"),
        (lambda: idist.broadcast(1, src="0"), TypeError, "src='0': expected a rank"),
        (lambda: idist.set_local_rank("0"), TypeError, "local rank='0': expected a whole number"),
        (lambda: idist.one_rank_only("0"), TypeError, "rank='0': expected a whole number"),
        (lambda: idist.one_rank_only(print), TypeError, "expected a whole number, given a built"),
        (lambda: idist.one_rank_first(None).__enter__(), TypeError, "rank=None: expected a whole"),
    ],
)
def test_what_can_not_be_meant_is_refused_in_one_line(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def _groups() -> list[str]:
    said = []
    for ranks in ([], [0, 2], [1, 1]):
        with pytest.raises(ValueError, match="expected") as caught:
            idist.all_reduce(1, group=ranks)
        said.append(str(caught.value))
    with pytest.raises(TypeError, match="group=7: expected one of new_group"):
        idist.all_reduce(1, group=7)
    return [*said, str(idist.all_reduce(1))]


def test_groups_of_ranks_that_are_not_there_are_refused_on_all_ranks(processes):
    for said in processes(2, _groups):
        assert "ranks [0, 2]: expected ranks from 0 to 1" in said
        assert said[-1] == "2"


def test_options_that_exist_are_taken_in_one_process_too():
    model = nn.Linear(2, 1)
    assert idist.auto_model(model, sync_bn=False, gradient_as_bucket_view=True) is model
    assert idist.auto_model(model, wrap="fsdp", reshard_after_forward=False) is model
    compiled = idist.auto_model(model, compile={"backend": "eager"})
    assert torch.equal(compiled(torch.ones(2)), model(torch.ones(2)))


def test_a_serial_script_may_name_groups_of_more_processes_than_there_are():
    assert idist.all_reduce(3, group=idist.new_group([0, 1, 2])) == 3
