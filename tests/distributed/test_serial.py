"""Without a process group every question has an answer and every collective gives back."""

from __future__ import annotations

import importlib
import inspect
import logging
import socket
import sys
from pathlib import Path

import ignite.distributed
import pytest
import torch

import cookfire.distributed as idist

LEFT_OUT = {
    "has_hvd_support",  # horovod
    "registered_computation_models",  # there are none: questions go to torch itself
}


def _public(module: object) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }


def test_every_name_of_ignite_distributed_is_there():
    assert _public(ignite.distributed).keys() - vars(idist).keys() <= LEFT_OUT


@pytest.mark.parametrize("name", sorted(_public(ignite.distributed).keys() - LEFT_OUT))
def test_arguments_have_the_names_order_and_defaults_that_ignites_have(name):
    theirs, ours = getattr(ignite.distributed, name), getattr(idist, name)
    if not callable(theirs):
        assert type(theirs) is type(ours)
        return
    expected = list(inspect.signature(theirs).parameters.values())
    found = inspect.signature(ours).parameters
    for parameter in expected:
        assert parameter.name in found
        assert found[parameter.name].default == parameter.default
    positional = [p.name for p in found.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [p.name for p in expected if p.kind is p.POSITIONAL_OR_KEYWORD]


def test_all_lists_the_names_and_no_module():
    assert len(set(idist.__all__)) == len(idist.__all__)
    assert not [name for name in idist.__all__ if inspect.ismodule(getattr(idist, name))]


@pytest.mark.parametrize("module", ["auto", "launcher", "utils"])
def test_the_modules_that_ignite_documents_export_what_theirs_do(module):
    theirs = importlib.import_module(f"ignite.distributed.{module}")
    ours = importlib.import_module(f"cookfire.distributed.{module}")
    assert set(theirs.__all__) - LEFT_OUT <= set(ours.__all__)


def test_there_is_one_process():
    assert idist.backend() is None
    assert idist.model_name() == "serial"
    assert idist.hostname() == socket.gethostname()
    assert (idist.get_rank(), idist.get_local_rank(), idist.get_node_rank()) == (0, 0, 0)
    assert (idist.get_world_size(), idist.get_nproc_per_node(), idist.get_nnodes()) == (1, 1, 1)


def test_the_launchers_variables_alone_make_no_group(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (idist.get_rank(), idist.get_local_rank(), idist.get_world_size()) == (0, 0, 1)


def test_backends_that_cannot_be_used_here_are_not_available():
    assert "gloo" in idist.available_backends()
    assert ("nccl" in idist.available_backends()) == torch.cuda.is_available()
    assert not {"undefined", "fake"} & set(idist.available_backends())
    assert idist.has_native_dist_support


def test_the_device_is_the_accelerator_or_the_cpu():
    expected = "cpu"
    if torch.accelerator.is_available():
        expected = torch.accelerator.current_accelerator().type
    assert idist.device().type == expected
    assert torch.empty(0, device=idist.device()).device == idist.device()


@pytest.mark.parametrize("name", ["foo", "horovod", "xla-tpu", "undefined"])
def test_an_unknown_backend_is_refused_with_the_list_of_those_that_are_known(name):
    with pytest.raises(ValueError, match=rf"backend '{name}'.*expected one of .*'gloo'"):
        idist.initialize(name)
    with pytest.raises(ValueError, match="None for one process"):
        idist.Parallel(name)


def test_a_backend_whose_device_is_missing_is_said_to_be_unusable(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'nccl': cannot be used here"):
        idist.Parallel("nccl", nproc_per_node=1)


def test_collectives_give_their_argument_back():
    tensor = torch.arange(3)
    assert idist.all_reduce(tensor) is tensor
    assert idist.all_gather(tensor) is tensor
    assert idist.broadcast(tensor) is tensor
    assert idist.all_gather_tensors_with_shapes(tensor, [(3,)])[0] is tensor
    assert idist.all_gather(torch.tensor(2)).shape == (1,)
    assert (idist.all_reduce(2**60 + 1), idist.all_gather(0.1)) == (2**60 + 1, [0.1])
    assert (idist.all_gather("a"), idist.all_gather(None)) == (["a"], [None])
    assert (idist.broadcast("a"), idist.broadcast(Path("a"))) == ("a", Path("a"))
    assert idist.new_group([0]) == [0]
    assert idist.all_reduce(3, group=[0]) == 3
    idist.barrier()
    idist.sync()
    idist.finalize()


def test_what_would_fail_in_many_processes_fails_in_one():
    with pytest.raises(ValueError, match="op 'MEAN'"):
        idist.all_reduce(1, op="MEAN")
    with pytest.raises(TypeError, match="AVERAGE of torch.int64"):
        idist.all_reduce(torch.arange(3), op="AVERAGE")
    with pytest.raises(TypeError, match=r"expected a tensor or a number, given \[1\] \(list\)"):
        idist.all_reduce([1])
    with pytest.raises(ValueError, match="given None"):
        idist.broadcast(None, safe_mode=True)
    with pytest.raises(ValueError, match="src 1: expected a rank from 0 to 0"):
        idist.broadcast(1, src=1)
    with pytest.raises(ValueError, match="expected a list of whole numbers"):
        idist.new_group("01")
    with pytest.raises(ValueError, match="expected 1 of them"):
        idist.all_gather_tensors_with_shapes(torch.ones(2), [(3,)])
    with pytest.raises(TypeError, match="no arithmetic for torch.float8"):
        idist.all_reduce(torch.zeros(1, dtype=torch.float8_e4m3fn))


def test_a_group_of_one_comes_up_without_a_launcher_and_goes_down_again():
    idist.initialize("gloo")
    try:
        assert (idist.backend(), idist.model_name()) == ("gloo", "native-dist")
        assert (idist.get_world_size(), idist.get_nnodes()) == (1, 1)
        assert idist.all_gather(3) == [3]
        with pytest.raises(RuntimeError, match=r"backend 'gloo' is up already: call finalize\(\)"):
            idist.initialize("gloo")
        idist.set_local_rank(3)
        assert idist.get_local_rank() == 3
    finally:
        idist.finalize()
    assert idist.backend() is None
    assert idist.get_local_rank() == 0


def test_a_negative_local_rank_is_refused():
    with pytest.raises(ValueError, match="local rank -1: expected 0 or more"):
        idist.set_local_rank(-1)


def test_guarded_code_runs_on_its_rank_only():
    calls = []

    @idist.one_rank_only()
    def mine(value):
        """What it does."""
        calls.append(value)
        return value

    @idist.one_rank_only(rank=1, with_barrier=True)
    def others():
        calls.append("never")

    assert (mine(1), others()) == (1, None)
    assert calls == [1]
    assert mine.__doc__ == "What it does."


def test_a_body_runs_where_its_rank_is_first_and_there_must_be_one():
    with idist.one_rank_first(), idist.one_rank_first(local=True):
        ran = True
    assert ran
    with (
        pytest.raises(ValueError, match="rank 1: expected a rank from 0 to 0"),
        idist.one_rank_first(rank=1),
    ):
        pass


def test_the_configuration_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        idist.show_config()
    assert {record.name for record in caplog.records} == {"cookfire.distributed.utils"}
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "distributed configuration: serial"
    assert "world size: 1" in lines
    assert len(lines) == 10


def test_parallel_without_a_backend_runs_in_this_process(caplog):
    seen = []
    with caplog.at_level(logging.INFO), idist.Parallel() as parallel:
        parallel.run(lambda *args, **kwargs: seen.append((args, kwargs)), {"c": 1}, a=2)
    assert seen == [((0, {"c": 1}), {"a": 2})]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("- Run '<function ")
    assert lines[0].endswith("' in 1 processes")
    assert lines[1:] == ["End of run"]


def test_parallel_without_a_backend_warns_when_a_launcher_started_several(monkeypatch, caplog):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    idist.Parallel()
    assert "one of 2 that a launcher started" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"nproc_per_node": 2}, "nproc_per_node=2: expected a backend too"),
        ({"master_port": 1}, "master_port=1: expected a backend too"),
        ({"backend": "gloo", "nnodes": 2}, "nnodes: expected nproc_per_node too"),
        ({"backend": "gloo", "nproc_per_node": 0}, "nproc_per_node 0: expected 1 or more"),
        ({"backend": "gloo", "nproc_per_node": 1, "nnodes": 0}, "nnodes 0: expected 1 or more"),
        ({"backend": "gloo", "nproc_per_node": 1, "nnodes": 2}, "expected node_rank= too"),
        ({"backend": "gloo", "nproc_per_node": 1, "node_rank": 1}, "node_rank 1: expected 0 to 0"),
        (
            {"backend": "gloo", "nproc_per_node": 1, "nnodes": 2, "node_rank": 0},
            "expected address and port of node 0",
        ),
        (
            {"backend": "gloo", "nproc_per_node": 1, "init_method": "env://", "master_port": 1},
            "expected no master_addr or master_port beside it",
        ),
    ],
)
def test_contradicting_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        idist.Parallel(**arguments)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="nproc"):
        idist.Parallel("gloo", nproc_per_node=1, nproc=2)


def test_a_process_that_a_launcher_started_starts_no_others(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="leave nproc_per_node out to join them"):
        idist.Parallel("gloo", nproc_per_node=2)


def test_running_outside_of_the_context_is_refused():
    with pytest.raises(RuntimeError, match="expected inside"):
        idist.Parallel("gloo").run(print)


def test_a_function_that_cannot_be_sent_is_refused_before_anything_starts():
    with pytest.raises(TypeError, match="at the top level of a module"):
        idist.spawn("gloo", lambda local_rank: None, ())


def test_a_function_of_an_interactive_session_is_refused(monkeypatch):
    def function(local_rank):
        pass

    monkeypatch.setattr(function, "__module__", "__main__")
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ValueError, match="defined interactively; put it into a file"):
        idist.spawn("gloo", function, ())


def test_lines_are_shown_where_nobody_configured_logging_and_can_be_silenced(monkeypatch, capsys):
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda logger: False)
    idist.show_config()
    assert "cookfire.distributed.utils INFO: world size: 1" in capsys.readouterr().err
    monkeypatch.setattr(logging.getLogger("cookfire"), "level", logging.WARNING)
    idist.show_config()
    assert capsys.readouterr().err == ""
