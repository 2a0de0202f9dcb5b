"""Backends that plug in, of which the documentation shows one in full."""

from __future__ import annotations

import importlib
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import cookfire.distributed as idist
from cookfire.distributed import _backends
from cookfire.distributed._together import run_together
from cookfire.engine import Engine
from cookfire.metrics import Accuracy, Loss

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backends.md"


@pytest.fixture
def names(monkeypatch):
    """What a test registers is forgotten afterwards."""
    monkeypatch.setattr(_backends, "_registered", {})
    monkeypatch.setattr(dist.Backend, "backend_list", [*dist.Backend.backend_list])
    return _backends._registered


@pytest.fixture
def store_backend(tmp_path, monkeypatch, names):
    """The backend of the documentation, registered under the name "store"."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    (tmp_path / "documented_backend.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("documented_backend").StoreBackend
    del sys.modules["documented_backend"]


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def _step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer = idist.auto_optim(torch.optim.SGD(model.parameters(), lr=0.1))
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def everything(_: int) -> None:
    """Every collective, a metric and a training step; the rank is 0 or 1."""
    rank = idist.get_rank()
    assert (idist.backend(), idist.model_name()) == ("store", "native-dist")
    assert (idist.get_world_size(), idist.get_local_rank(), idist.get_nnodes()) == (2, rank, 1)
    assert idist.device() == torch.device("cpu")
    # numbers, objects
    assert idist.all_reduce(2**24 + 1 + rank) == 2**25 + 3
    assert idist.all_reduce(0.25, "PRODUCT") == 0.0625
    assert idist.all_gather("ab"[rank]) == ["a", "b"]
    assert idist.all_gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert idist.broadcast("yes" if rank else "no", src=1) == "yes"
    assert idist.broadcast(0.1 if rank == 0 else None, safe_mode=True) == 0.1
    # tensors of every kind
    for dtype in (torch.float64, torch.bfloat16, torch.int16, torch.int64, torch.uint8):
        mine = torch.tensor([1, 2 + rank], dtype=dtype)
        for op, expected in {
            "SUM": [2, 5],
            "PRODUCT": [1, 6],
            "MIN": [1, 2],
            "MAX": [1, 3],
        }.items():
            assert torch.equal(idist.all_reduce(mine, op), torch.tensor(expected, dtype=dtype))
    assert idist.all_reduce(torch.tensor([1.0 + rank]), "AVERAGE").item() == 1.5
    assert idist.all_reduce(torch.tensor(4 + rank), "AND").item() == 4
    assert idist.all_reduce(torch.tensor([rank == 0, False])).tolist() == [True, False]
    ragged = idist.all_gather(torch.arange(3.0)[: 2 * rank + 1])
    assert ragged.tolist() == [0, 0, 1, 2]
    known = idist.all_gather_tensors_with_shapes(torch.ones(rank, 2), [(0, 2), (1, 2)])
    assert [tuple(tensor.shape) for tensor in known] == [(0, 2), (1, 2)]
    assert idist.broadcast(torch.full((2,), rank), src=1).tolist() == [1, 1]
    assert idist.broadcast(torch.empty(0, 3)).shape == (0, 3)
    idist.barrier()
    # groups
    assert idist.all_reduce(1, group=[0, 1]) == 2
    assert idist.all_reduce(1, group=idist.new_group([0, 1])) == 2
    with pytest.raises(NotImplementedError, match=r"'store' has no groups of some .* ranks \[0\]"):
        idist.new_group([0])
    with pytest.raises(NotImplementedError, match="expected all 2"):
        idist.all_reduce(1, group=[1])
    # metrics
    scores, labels = (
        torch.randn(9, 3, generator=torch.Generator().manual_seed(1)),
        torch.arange(9) % 3,
    )
    share = slice(0, 4) if rank == 0 else slice(4, 9)
    evaluator = Engine(lambda engine, batch: batch)
    Accuracy().attach(evaluator, "accuracy")
    Loss(nn.functional.cross_entropy).attach(evaluator, "loss")
    metrics = evaluator.run([(scores[share], labels[share])]).metrics
    assert metrics["accuracy"] == int((scores.argmax(1) == labels).sum()) / 9
    assert metrics["loss"] == pytest.approx(nn.functional.cross_entropy(scores, labels).item())
    # a step of DistributedDataParallel
    x, y = torch.randn(4, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 1, 0])
    wrapped = idist.auto_model(_net().eval())
    assert isinstance(wrapped, DistributedDataParallel)
    half = slice(2 * rank, 2 * rank + 2)
    _step(wrapped, x[half], y[half])
    alone = _net().eval()
    _step(alone, x, y)
    for ours, expected in zip(wrapped.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)


def _joined(rank: int, *ports: int) -> None:
    import documented_backend  # noqa: F401 - registers

    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    for port in ports:  # once more after leaving
        os.environ["MASTER_PORT"] = str(port)
        with idist.Parallel(backend="store") as parallel:
            parallel.run(_says_where)
            idist.barrier()
        assert idist.model_name() == "serial"


def _says_where(local_rank: int) -> None:
    assert idist.all_gather(local_rank) == [0, 1]


def test_the_documented_backend_does_everything_in_processes_that_parallel_starts(store_backend):
    with idist.Parallel("store", nproc_per_node=2, start_method="forkserver") as parallel:
        parallel.run(everything)


def test_the_documented_backend_joins_processes_that_a_launcher_started(store_backend):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        ports = [one.getsockname()[1], two.getsockname()[1]]
    run_together("forkserver", 2, _joined, *ports)


def test_one_process_alone_needs_no_launcher(store_backend):
    with idist.Parallel("store"):
        assert idist.get_world_size() == 1
        assert idist.all_reduce(3) == 3
    assert idist.backend() is None


def test_a_registered_backend_is_available_by_its_name(store_backend):
    assert "store" in idist.available_backends()
    assert isinstance(store_backend(), idist.Backend)
    with pytest.raises(ValueError, match="backend 'shop': unknown; expected one of .*'store'"):
        idist.Parallel("shop")


class Half:
    """A backend without its second half."""

    def initialize(self, **kwargs: Any) -> None: ...
    def finalize(self) -> None: ...
    def place(self) -> idist.Place: ...
    def device(self) -> torch.device: ...


def test_functions_that_a_backend_lacks_are_named(names):
    missing = "Half has no all_reduce, all_gather, broadcast, barrier"
    with pytest.raises(TypeError, match=missing):
        idist.register_backend("half", Half())


@pytest.mark.parametrize("name", ["store", "gloo", "xla"])
def test_a_name_is_given_once(store_backend, name):
    with pytest.raises(ValueError, match=f"the name '{name}' is taken"):
        idist.register_backend(name, store_backend())


def test_registering_the_same_backend_again_changes_nothing(store_backend, names):
    idist.register_backend("store", names["store"])


@pytest.mark.parametrize("name", ["", "My Backend", "cpu:store", None])
def test_what_torch_could_not_take_for_a_name_is_refused(store_backend, name):
    with pytest.raises(ValueError, match="expected lower case letters"):
        idist.register_backend(name, store_backend())


def test_a_backend_that_cannot_join_leaves_no_group(store_backend, names, monkeypatch):
    def lost(self: Any) -> idist.Place:
        raise OSError("lost")

    monkeypatch.setattr(store_backend, "place", lost)
    with pytest.raises(OSError, match="lost"):
        idist.initialize("store")
    assert idist.backend() is None
    assert not hasattr(names["store"], "_store")


@pytest.mark.parametrize(
    ("function", "answer", "words"),
    [
        ("place", (0, 1), "StoreBackend.place gave (0, 1), expected a cookfire.distributed.Place"),
        ("device", "cpu", "StoreBackend.device gave 'cpu', expected a torch.device"),
        ("place", idist.Place(1, 1), "expected a rank below the world size"),
    ],
)
def test_a_backend_that_does_not_say_where_it_is_is_refused(
    store_backend, names, monkeypatch, function, answer, words
):
    monkeypatch.setattr(store_backend, function, lambda self: answer)
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        idist.initialize("store")
    assert idist.backend() is None


@pytest.mark.parametrize(
    ("function", "answer", "words"),
    [
        ("all_reduce", lambda *_: None, "gave None, expected float32[3] on cpu"),
        ("all_reduce", lambda _, sent, __: sent.double(), "gave float64[3] on cpu, expected float"),
        ("all_reduce", lambda _, sent, __: sent[:2], "gave float32[2] on cpu, expected float32[3]"),
        ("all_gather", lambda _, sent: sent, "gave float32[3] on cpu, expected float32[1, 3]"),
        ("all_gather", lambda _, sent: [sent], "expected float32[1, 3] on cpu"),
        ("broadcast", lambda _, sent, __: sent.to("meta"), "gave float32[3] on meta, expected "),
    ],
)
def test_a_result_that_is_not_what_was_asked_for_names_backend_and_function(
    store_backend, monkeypatch, function, answer, words
):
    monkeypatch.setattr(store_backend, function, answer)
    tensor = torch.ones(3)
    calls = {
        "all_reduce": lambda: dist.all_reduce(tensor),
        "all_gather": lambda: dist.all_gather([tensor.clone()], tensor),
        "broadcast": lambda: dist.broadcast(tensor, 0),
    }
    with idist.Parallel("store"), pytest.raises(ValueError, match=re.escape(words)) as caught:
        calls[function]()
    assert f"backend 'store': StoreBackend.{function} gave" in str(caught.value)
