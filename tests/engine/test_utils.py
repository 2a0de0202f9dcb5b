"""Small helpers, the base classes, and truncated back-propagation."""

from __future__ import annotations

import doctest
import hashlib
import importlib
import io
import logging
import pkgutil
import random
from collections import namedtuple
from pathlib import Path
from typing import Any, ClassVar

import ignite.contrib.engines.tbptt
import ignite.utils
import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

import cookfire.engine
from cookfire.engine import Engine, Events
from cookfire.engine.base import ResettableHandler, Serializable, Stateful
from cookfire.engine.tbptt import Tbptt_Events, create_supervised_tbptt_trainer
from cookfire.engine.utils import (
    apply_to_tensor,
    apply_to_type,
    convert_tensor,
    deprecated,
    hash_checkpoint,
    manual_seed,
    setup_logger,
    to_onehot,
)

MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.iter_modules(cookfire.engine.__path__, "cookfire.engine.")
]

Pair = namedtuple("Pair", ["a", "b"])


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_docstrings_examples_print_what_they_say(module: Any) -> None:
    names = {**vars(cookfire.engine), **vars(module), "torch": torch, "nn": nn}
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in finder.find(module, module.__name__, globs=names):
        report = io.StringIO()
        runner.run(test, out=report.write)
        assert runner.failures == 0, report.getvalue()


def test_every_public_name_is_there() -> None:
    for module in [cookfire.engine, *MODULES]:
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{module.__name__}.{name}"


def test_nested_containers_keep_their_shape() -> None:
    x = {"a": [torch.zeros(1), ("b", Pair(torch.ones(1), b"c"))]}
    doubled = apply_to_tensor(x, lambda tensor: tensor + 1)
    assert doubled == {"a": [torch.ones(1), ("b", Pair(torch.ones(1) * 2, b"c"))]}
    assert isinstance(doubled["a"][1], tuple)
    assert isinstance(doubled["a"][1][1], Pair)
    assert convert_tensor(x, device="cpu")["a"][0].device.type == "cpu"
    assert convert_tensor(x) is x
    assert apply_to_type("text", str, len) == 4
    with pytest.raises(TypeError, match="a mapping or sequence of it, got int"):
        apply_to_tensor({"a": 3}, torch.neg)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4)])
def test_one_hot_is_ignites(shape: tuple[int, ...]) -> None:
    indices = torch.randint(5, shape)
    assert torch.equal(to_onehot(indices, 5), ignite.utils.to_onehot(indices, 5))


def test_one_seed_for_all_generators() -> None:
    draws = []
    for _ in range(2):
        manual_seed(2**40 + 3)
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert draws[0] == draws[1]


def test_a_logger_writes_each_line_once(tmp_path: Path) -> None:
    stream = io.StringIO()
    for _ in range(2):
        logger = setup_logger(
            "test.lines", stream=stream, format="%(message)s", filepath=tmp_path / "log"
        )
    logger.info("hello")
    assert stream.getvalue() == "hello\n"
    assert (tmp_path / "log").read_text() == "hello\n"
    assert not logger.propagate
    setup_logger("test.lines", reset=True)


def test_other_ranks_only_warn(tmp_path: Path) -> None:
    stream = io.StringIO()
    logger = setup_logger(
        "test.ranks",
        stream=stream,
        format="%(message)s",
        distributed_rank=1,
        filepath=tmp_path / "log",
    )
    logger.info("hello")
    logger.warning("careful")
    assert stream.getvalue() == "careful\n"
    assert logger.level == logging.WARNING
    assert not (tmp_path / "log").exists()


def test_deprecated_functions_warn_and_work() -> None:
    @deprecated("0.2", "0.4", ("use new",))
    def old(x: int) -> int:
        """Add one."""
        return x + 1

    with pytest.warns(DeprecationWarning, match="old is deprecated since version 0.2 and will be"):
        assert old(1) == 2
    assert "deprecated:: 0.2" in (old.__doc__ or "")


def test_a_checkpoint_is_copied_under_its_hash(tmp_path: Path) -> None:
    source = tmp_path / "model.pt"
    source.write_bytes(b"weights")
    target, digest = hash_checkpoint(source, tmp_path / "out")
    assert digest == hashlib.sha256(b"weights").hexdigest()
    assert target == tmp_path / "out" / f"model-{digest[:8]}.pt"
    assert target.read_bytes() == b"weights"
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        hash_checkpoint(tmp_path / "missing.pt", tmp_path)


def test_serializable_names_the_keys_that_lack() -> None:
    class Counter(Serializable):
        _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("count",)
        _state_dict_one_of_opt_keys: ClassVar[tuple[tuple[str, ...], ...]] = (("a", "b"),)

    counter = Counter()
    counter.load_state_dict({"count": 1, "a": 2})
    with pytest.raises(ValueError, match="lacks 'count'; it has 'a'"):
        counter.load_state_dict({"a": 2})
    with pytest.raises(ValueError, match="exactly one of 'a', 'b'; it has 'count', 'a', 'b'"):
        counter.load_state_dict({"count": 1, "a": 2, "b": 3})
    with pytest.raises(NotImplementedError, match="Counter must define state_dict"):
        counter.state_dict()
    assert isinstance(nn.Linear(1, 1), Stateful)
    with pytest.raises(TypeError, match="abstract"):
        ResettableHandler()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.LSTM(2, 3), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor, hidden: Any = None) -> tuple[torch.Tensor, Any]:
        y, hidden = self.cell(x, hidden)
        return self.head(y), hidden


def test_truncated_back_propagation_gives_ignites_weights() -> None:
    torch.manual_seed(1)
    data = [(torch.randn(7, 4, 2), torch.randn(7, 4, 1)) for _ in range(3)]
    trained = []
    for create in (
        create_supervised_tbptt_trainer,
        ignite.contrib.engines.tbptt.create_supervised_tbptt_trainer,
    ):
        model = Recurrent()
        trainer = create(model, SGD(model.parameters(), 0.1), nn.MSELoss(), tbtt_step=3)
        trainer.run(data, max_epochs=2)
        trained.append(model.state_dict())
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name])


def test_the_pieces_of_a_sequence_are_counted() -> None:
    model = Recurrent()
    trainer = create_supervised_tbptt_trainer(
        model, SGD(model.parameters(), 0.1), nn.MSELoss(), tbtt_step=3
    )
    heard: list[Any] = []
    for event in Tbptt_Events:
        trainer.add_event_handler(
            event(every=2), lambda e: heard.append((e.state.time_iteration, e.last_event_name))
        )
    trainer.run([(torch.randn(7, 4, 2), torch.randn(7, 4, 1))] * 2)
    assert heard == [(count, event) for count in (2, 4, 6) for event in Tbptt_Events]
    with pytest.raises(ValueError, match="tbtt_step must be"):
        create_supervised_tbptt_trainer(model, SGD(model.parameters(), 0.1), nn.MSELoss(), 0)


def test_the_loops_drawing_names_every_event() -> None:
    assert all(event.name in (Engine.__doc__ or "") for event in Events)
