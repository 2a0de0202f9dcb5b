"""Ranks that do not agree on what comes next: told on all of them, not waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import cookfire.distributed as idist
from cookfire.engine import create_supervised_evaluator, create_supervised_trainer

Said = tuple[str, str] | object


def _said(function: Callable[[], object]) -> Said:
    try:
        return function()
    except Exception as error:  # which one is what the tests look at
        return type(error).__name__, str(error)


def _gathered(first: object, second: object) -> Said:
    return _said(lambda: idist.all_gather(second if idist.get_rank() else first))


def _reduced(first: tuple[Any, str], second: tuple[Any, str], safe_mode: bool = True) -> Said:
    value, op = second if idist.get_rank() else first
    return _said(lambda: idist.all_reduce(value, op, safe_mode=safe_mode))


def _sent(first: object, second: object = None) -> Said:
    value = second if idist.get_rank() else first
    return _said(lambda: idist.broadcast(value, safe_mode=True))


def _data(size: int, batch_size: int = 4, **options: Any) -> Any:
    data = [(torch.ones(2), torch.ones(1)) for _ in range(size)]
    return idist.auto_dataloader(data, batch_size=batch_size, **options)


def _train(loader: Any, wrap: Any = "ddp") -> int:
    model = idist.auto_model(nn.Linear(2, 1), wrap=wrap)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = create_supervised_trainer(model, optimizer, mse_loss)
    return trainer.run(loader, max_epochs=2).iteration


def _evaluate(loader: Any, *layers: nn.Module, **options: Any) -> int:
    model = idist.auto_model(nn.Sequential(nn.Linear(2, 1), *layers), **options)
    return create_supervised_evaluator(model).run(loader).iteration


def _own_loop(loader: Any) -> Tensor | None:
    model, loss = idist.auto_model(nn.Linear(2, 1)), None
    with idist.refuse_uneven(loader):
        for x, _ in loader:
            loss = model(x).sum()
    return loss


def _pair() -> dict[str, Said]:
    ones = torch.ones(2)
    found = {
        "tensor and number": _gathered(ones, 1.5),
        "tensor and object": _gathered({}, ones),
        "number and object": _gathered(3, "three"),
        "number and none": _gathered(None, 2**70),
        "lock": _gathered("a", threading.Lock()),
        "dtypes": _reduced((ones, "SUM"), (ones.double(), "SUM")),
        "shapes": _reduced((ones, "SUM"), (torch.ones(2, 1), "SUM")),
        "ops": _reduced((ones, "SUM"), (ones, "MAX")),
        "no op": _reduced((ones, "SUM"), (ones, "MEAN")),
        "kinds": _reduced((ones, "SUM"), (1, "SUM")),
        "no kind": _reduced((1, "SUM"), ("1", "SUM")),
        "too big": _reduced((1, "SUM"), (2**64, "SUM")),
        "alike": _reduced((1, "SUM"), (0.5, "SUM")),
        "alike tensors": _reduced((torch.tensor(1), "SUM"), (torch.tensor(2), "SUM")),
        "ops of numbers": _reduced((1, "SUM"), (1, "MAX"), safe_mode=False),
        "dict": _sent({"a": 1}),
        "nothing": _sent(None),
        "dict elsewhere": _sent("a", {}),
    }
    for wrap in ("ddp", "fsdp"):
        found[f"{wrap} trains 5"] = _said(lambda wrap=wrap: _train(_data(5), wrap))
        found[f"{wrap} trains 6"] = _said(lambda wrap=wrap: _train(_data(6), wrap))
        found[f"{wrap} drops"] = _said(lambda wrap=wrap: _train(_data(5, drop_last=True), wrap))
    single = _data(5, None)
    found |= {
        "single items": _said(lambda: _train(single)),
        "own loop": _said(lambda: _own_loop(_data(5))),
        "own loop shuffles": _said(lambda: _own_loop(_data(5, shuffle=True)) is not None),
        "evaluates 5": _said(lambda: _evaluate(_data(5), nn.BatchNorm1d(1))),
        "evaluates 1": _said(lambda: _evaluate(_data(1))),
        "buffers 1": _said(lambda: _evaluate(_data(1), nn.BatchNorm1d(1))),
        "sharded 5": _said(
            lambda: _evaluate(_data(5), nn.Linear(1, 1), wrap="fsdp", shard=[nn.Linear])
        ),
        "in step": idist.all_gather(idist.get_rank()),
    }
    return found


@pytest.fixture(scope="module")
def pair(processes: Callable[..., list[Any]]) -> list[dict[str, Said]]:
    return processes(2, _pair)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("tensor and number", "rank 0 has a tensor, rank 1 has a number: expected tensors on all"),
        ("tensor and object", "rank 0 has an object, rank 1 has a tensor: expected tensors on all"),
        ("lock", "the value of rank 1 can't be pickled"),
    ],
)
def test_values_that_cannot_be_gathered_are_refused_on_all_ranks(pair, case, words):
    for rank in pair:
        assert rank[case][0] == "TypeError"
        assert words in rank[case][1]


def test_numbers_are_gathered_with_other_objects_and_whatever_their_size(pair):
    for rank in pair:
        assert rank["number and object"] == [3, "three"]
        assert rank["number and none"] == [None, 2**70]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("dtypes", "rank 0 has 'SUM' of float32[2], rank 1 has 'SUM' of float64[2]"),
        ("shapes", "rank 0 has 'SUM' of float32[2], rank 1 has 'SUM' of float32[2, 1]"),
        ("ops", "rank 0 has 'SUM' of float32[2], rank 1 has 'MAX' of float32[2]"),
        ("no op", "rank 1 has 'MEAN' of float32[2]"),
        ("kinds", "rank 0 has 'SUM' of float32[2], rank 1 has 'SUM' of a number"),
        ("no kind", "rank 0 has 'SUM' of a number, rank 1 has 'SUM' of a str"),
        ("too big", "rank 1 has 'SUM' of a number of more than 64 bits"),
        ("ops of numbers", "rank 0 has 'SUM' of a number, rank 1 has 'MAX' of a number"),
    ],
)
def test_reductions_of_unlike_things_are_refused_on_all_ranks(pair, case, words):
    for rank in pair:
        kind, text = rank[case]
        assert kind == "ValueError"
        assert words in text
        assert text.endswith("expected the same on all ranks")


def test_what_is_alike_is_reduced_in_safe_mode_as_ever(pair):
    for rank in pair:
        assert rank["alike"] == 1.5
        assert rank["alike tensors"] == torch.tensor(3)


def test_what_a_sender_cannot_send_is_refused_on_all_ranks_in_safe_mode(pair):
    for rank in pair:
        assert rank["dict"][0] == "TypeError"
        assert "given {'a': 1} (dict)" in rank["dict"][1]
        assert rank["nothing"][0] == "ValueError"
        assert "the sender needs a value" in rank["nothing"][1]
        assert rank["dict elsewhere"] == "a"


@pytest.mark.parametrize("case", ["ddp trains 5", "fsdp trains 5", "single items", "own loop"])
def test_training_is_refused_where_a_process_has_a_batch_less(pair, case):
    for rank in pair:
        kind, text = rank[case]
        assert kind == "ValueError"
        assert text.startswith("training: expected equally many batches in all processes")
        assert "shuffle=True, drop_last=True" in text


def test_training_goes_on_where_all_have_equally_many(pair):
    for rank in pair:
        assert [rank[f"{wrap} trains 6"] for wrap in ("ddp", "fsdp")] == [4, 4]
        assert [rank[f"{wrap} drops"] for wrap in ("ddp", "fsdp")] == [2, 2]
        assert rank["own loop shuffles"] is True


def test_evaluation_sees_each_item_once_and_is_refused_only_where_it_could_not(pair):
    assert [rank["evaluates 5"] for rank in pair] == [2, 1]
    assert [rank["evaluates 1"] for rank in pair] == [1, 0]
    assert "a sharded model" in pair[0]["sharded 5"][1] == pair[1]["sharded 5"][1]
    assert "a model with buffers" in pair[0]["buffers 1"][1]
    assert [rank["in step"] for rank in pair] == [[0, 1], [0, 1]]
