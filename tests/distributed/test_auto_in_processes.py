"""What two processes see of loaders, and train, is what one would."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import (
    DistributedSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import cookfire.distributed as idist
from tests.distributed.loading import Stream, lists, second_epoch


def _refusal(function: Callable[..., object], *args: object, **arguments: Any) -> str:
    try:
        function(*args, **arguments)
    except ValueError as error:
        return str(error)
    return ""


def _logged(function: Callable[[], object]) -> list[str]:
    records: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logger, handler = logging.getLogger("cookfire.distributed"), Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    function()
    logger.removeHandler(handler)
    return records


def _loaders() -> dict[str, Any]:
    weighted = WeightedRandomSampler([0.1] * 9 + [0.9], num_samples=10)
    shuffled = idist.auto_dataloader(range(10), batch_size=4, shuffle=True, seed=5)
    return {
        "order": lists(idist.auto_dataloader(range(10), batch_size=4)),
        "tail": lists(idist.auto_dataloader(range(9), batch_size=4)),
        "shuffled": second_epoch(shuffled),
        "resumed": second_epoch(shuffled, 1),
        "dropped": lists(idist.auto_dataloader(range(9), batch_size=4, shuffle=True)),
        "said": _logged(lambda: idist.auto_dataloader(range(9), batch_size=4, shuffle=True)),
        "sampler": lists(idist.auto_dataloader(range(10), batch_size=4, sampler=weighted)),
        "sampler's tail": [
            (lists(loader), len(loader))
            for drop_last in (False, True)
            for loader in [
                idist.auto_dataloader(
                    range(9), batch_size=4, sampler=SequentialSampler(range(9)), drop_last=drop_last
                )
            ]
        ],
        "batch sampler": lists(
            idist.auto_dataloader(range(9), batch_sampler=[[0, 1, 2], [3], [4, 5], [6, 7, 8]])
        ),
        "distributed sampler": lists(
            idist.auto_dataloader(
                range(8), batch_size=4, sampler=DistributedSampler(range(8), shuffle=False)
            )
        ),
        "single": list(idist.auto_dataloader(range(5), batch_size=None)),
        "single sampler": list(
            idist.auto_dataloader(range(5), batch_size=None, sampler=SequentialSampler(range(5)))
        ),
        "stream": lists(idist.auto_dataloader(Stream(), batch_size=4)),
        "said of stream": _logged(lambda: idist.auto_dataloader(Stream(), batch_size=4)),
        "workers": idist.auto_dataloader(range(8), batch_size=4, num_workers=1).num_workers,
        "odd": _refusal(idist.auto_dataloader, range(9), batch_size=5),
        "one": _refusal(idist.auto_dataloader, range(9)),
        "odd stream": _refusal(idist.auto_dataloader, Stream(), batch_size=3),
    }


def _data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(24, 4, generator=generator)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True))


def _net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def _trained() -> dict[str, Tensor]:
    model = idist.auto_model(_net())
    optimizer = idist.auto_optim(torch.optim.SGD(model.parameters(), lr=0.1))
    loader = idist.auto_dataloader(_data(), batch_size=8, shuffle=True, seed=2)
    for _ in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            mse_loss(model(inputs), targets).backward()
            optimizer.step()
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    return copy.deepcopy(plain.state_dict())


def _models() -> dict[str, Any]:
    frozen = _net().requires_grad_(False)
    wrapped = idist.auto_model(_net(), find_unused_parameters=True)
    return {
        "wrapped": type(wrapped),
        "option": wrapped.find_unused_parameters,
        "twice": idist.auto_model(wrapped) is wrapped,
        "frozen": idist.auto_model(frozen) is frozen,
        "norm": _refusal(idist.auto_model, nn.BatchNorm1d(2), sync_bn=True),
        "trained": _trained(),
    }


def _pair() -> dict[str, Any]:
    return _loaders() | _models()


@pytest.fixture(scope="module")
def pair(processes: Callable[..., list[Any]]) -> list[dict[str, Any]]:
    return processes(2, _pair)


def test_two_processes_share_each_batch_and_no_item_is_repeated(pair):
    assert pair[0]["order"] == [[0, 1], [4, 5], [8]]
    assert pair[1]["order"] == [[2, 3], [6, 7], [9]]
    assert pair[0]["tail"] == [[0, 1], [4, 5], [8]]
    assert pair[1]["tail"] == [[2, 3], [6, 7]]


def test_two_processes_see_what_one_would_and_resume_where_it_would(pair):
    alone = idist.auto_dataloader(range(10), batch_size=4, shuffle=True, seed=5)
    shares = zip(pair[0]["shuffled"], pair[1]["shuffled"], strict=True)
    assert [mine + others for mine, others in shares] == second_epoch(alone)
    for rank in pair:
        assert rank["resumed"] == rank["shuffled"][1:]


def test_a_last_batch_too_small_for_all_is_dropped_from_training_and_that_is_said_once(pair):
    for rank in pair:
        assert [len(batch) for batch in rank["dropped"]] == [2, 2]
    assert pair[0]["said"] == [
        "1 of the items are left out of each epoch: the last batch has fewer than the 2 processes "
        "need"
    ]
    assert pair[1]["said"] == []


def test_a_users_batches_are_shared_and_those_too_small_for_all_dropped(pair):
    weighted = WeightedRandomSampler([0.1] * 9 + [0.9], num_samples=10)
    alone = idist.auto_dataloader(range(10), batch_size=4, sampler=weighted)
    shares = zip(pair[0]["sampler"], pair[1]["sampler"], strict=True)
    assert [mine + others for mine, others in shares] == lists(alone)
    assert pair[0]["sampler's tail"] == [([[0, 1], [4, 5]], 2)] * 2
    assert pair[1]["sampler's tail"] == [([[2, 3], [6, 7]], 2)] * 2
    assert pair[0]["batch sampler"] == [[0, 1], [4], [6, 7]]
    assert pair[1]["batch sampler"] == [[2], [5], [8]]


def test_samplers_that_share_by_themselves_get_their_part_of_the_batch_size(pair):
    assert pair[0]["distributed sampler"] == [[0, 2], [4, 6]]
    assert pair[1]["distributed sampler"] == [[1, 3], [5, 7]]


def test_single_items_are_shared_in_turn(pair):
    assert (pair[0]["single"], pair[1]["single"]) == ([0, 2, 4], [1, 3])
    assert (pair[0]["single sampler"], pair[1]["single sampler"]) == ([0, 2], [1, 3])


def test_streams_share_by_themselves_and_get_their_part_of_the_batch_size(pair):
    assert pair[0]["stream"] == [[0, 2], [4, 6], [8, 10]]
    assert pair[1]["stream"] == [[1, 3], [5, 7], [9, 11]]
    assert "must differ from process to process" in pair[0]["said of stream"][0]


def test_every_process_has_as_many_workers_as_asked_for(pair):
    assert [rank["workers"] for rank in pair] == [1, 1]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("odd", "batch_size 5: .* by 2 processes; the nearest that can be: 4 or 6"),
        ("one", "batch_size 1: .*; the nearest that can be: 2$"),
        ("odd stream", "the nearest that can be: 2 or 4"),
    ],
)
def test_a_batch_size_that_cannot_be_shared_is_refused_with_the_nearest_that_can(pair, case, words):
    for rank in pair:
        with pytest.raises(ValueError, match=words):
            raise ValueError(rank[case])


def test_a_model_with_something_to_train_is_wrapped_once_with_its_options(pair):
    for rank in pair:
        assert rank["wrapped"] is DistributedDataParallel
        assert rank["option"] is True
        assert rank["twice"]
        assert rank["frozen"]


def test_statistics_over_all_processes_are_refused_on_the_cpu(pair):
    for rank in pair:
        assert rank["norm"].startswith("sync_bn=True: torch can do that on accelerators only")


def test_two_processes_train_the_weights_that_one_would(pair):
    alone = _trained()
    for name, weights in alone.items():
        torch.testing.assert_close(pair[0]["trained"][name], weights)
        assert torch.equal(pair[0]["trained"][name], pair[1]["trained"][name])
