"""Loaders, models and optimizers that fit the processes there are."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import cookfire.distributed as idist


class Keys(Dataset[Any]):
    """A data set that gives back what it is asked for, and a number drawn in its process."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, key: Any) -> Any:
        return key, int(torch.randint(1_000_000, ()))


class Endless(Sampler[int]):
    """A sampler without end, as for training by iterations."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield int(torch.randint(100, ()))


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(idist.get_rank(), 12, idist.get_world_size()))


class Counted(SequentialSampler):
    """A sampler that wants to know the epoch."""

    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def _lists(loader: Any) -> list[Any]:
    return [batch.tolist() for batch in loader]


def _second_epoch(loader: DataLoader[Any], batch: int = 0) -> list[Any]:
    assert idist.set_position(loader, 2, batch)
    return _lists(loader)


# -- one process ------------------------------------------------------------------------------


def test_without_a_sampler_the_data_come_in_the_order_of_data_order():
    loader = idist.auto_dataloader(range(10), batch_size=4, shuffle=True, seed=5)
    order = idist.DataOrder(10, 4, shuffle=True, seed=5)
    order.set_position(2)
    assert _second_epoch(loader) == list(order)
    assert len(loader) == 3
    assert _second_epoch(loader, 1) == list(order)[1:]


def test_batches_are_torchs_where_nothing_is_shuffled():
    for arguments in ({}, {"batch_size": 4}, {"batch_size": 4, "drop_last": True}):
        ours = idist.auto_dataloader(range(10), **arguments)
        assert _lists(ours) == _lists(DataLoader(range(10), **arguments))


def test_a_pass_draws_nothing_from_the_global_random_state():
    loader = idist.auto_dataloader(range(10), batch_size=4, shuffle=True)
    weighted = WeightedRandomSampler([0.1] * 10, num_samples=10)
    before = torch.get_rng_state()
    list(loader)
    list(idist.auto_dataloader(range(10), batch_size=4, sampler=weighted))
    list(idist.auto_dataloader(Stream(), batch_size=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_other_options_reach_the_loader_unchanged():
    generator = torch.Generator()
    loader = idist.auto_dataloader(
        range(4), num_workers=1, timeout=1, pin_memory=True, generator=generator, prefetch_factor=5
    )
    assert (loader.num_workers, loader.timeout, loader.prefetch_factor) == (1, 1, 5)
    assert loader.pin_memory
    assert loader.generator is generator
    with pytest.raises(TypeError, match="bogus"):
        idist.auto_dataloader(range(4), bogus=1)


def test_memory_is_pinned_for_cuda_only():
    expected = idist.device().type == "cuda"
    assert idist.auto_dataloader(range(4)).pin_memory == expected


def test_a_users_sampler_draws_the_same_in_an_epoch_and_other_things_in_the_next():
    weights = [1.0] * 50
    loaders = [
        idist.auto_dataloader(range(50), batch_size=20, sampler=sampler, seed=1)
        for sampler in (
            WeightedRandomSampler(weights, num_samples=50),
            WeightedRandomSampler(weights, num_samples=50),
        )
    ]
    torch.manual_seed(0)
    first = _lists(loaders[0])
    torch.manual_seed(1)
    assert _lists(loaders[1]) == first
    assert [len(batch) for batch in first] == [20, 20, 10]
    assert len(loaders[0]) == 3
    second = _second_epoch(loaders[1])
    assert second != first
    assert _second_epoch(loaders[0], 1) == second[1:]


def test_a_users_sampler_is_told_the_epoch():
    sampler = Counted(range(6))
    for arguments in (
        {"sampler": sampler, "batch_size": 2},
        {"batch_sampler": BatchSampler(sampler, 2, False)},
    ):
        sampler.epoch = -1
        loader = idist.auto_dataloader(range(6), **arguments)
        assert _second_epoch(loader) == [[0, 1], [2, 3], [4, 5]]
        assert sampler.epoch == 2


def test_an_endless_sampler_is_read_batch_by_batch():
    loader = idist.auto_dataloader(range(100), batch_size=3, sampler=Endless())
    first = [batch.tolist() for batch, _ in zip(loader, range(4), strict=False)]
    idist.set_position(loader, 1, 2)
    again = [batch.tolist() for batch, _ in zip(loader, range(2), strict=False)]
    assert again == first[2:]


def test_a_batch_sampler_that_knows_positions_is_taken_as_it_is():
    order = idist.DataOrder(10, 5, shuffle=False)
    assert idist.auto_dataloader(range(10), batch_sampler=order).batch_sampler is order


def test_a_distributed_sampler_is_taken_as_it_is():
    sampler = DistributedSampler(range(10), num_replicas=1, rank=0, shuffle=False)
    loader = idist.auto_dataloader(range(10), sampler=sampler, batch_size=5)
    assert loader.sampler is sampler
    batches = BatchSampler(sampler, 5, False)
    assert idist.auto_dataloader(range(10), batch_sampler=batches).batch_sampler is batches


def test_items_come_one_by_one_where_no_batches_are_wanted():
    loader = idist.auto_dataloader(range(5), batch_size=None, shuffle=True, seed=3)
    order = idist.DataOrder(5, 1, shuffle=True, seed=3)
    assert list(loader) == [index for (index,) in order]
    assert len(loader) == 5
    assert idist.set_position(loader, 1, 3)
    order.set_position(1, 3)
    assert list(loader) == [index for (index,) in order]
    chosen = idist.auto_dataloader(range(5), batch_size=None, sampler=SequentialSampler(range(2)))
    assert list(chosen) == [0, 1]


def test_a_sampler_that_chooses_and_shuffling_are_refused_together():
    with pytest.raises(ValueError, match="shuffle=True: expected no sampler"):
        idist.auto_dataloader(range(4), sampler=SequentialSampler(range(4)), shuffle=True)
    with pytest.raises(ValueError, match="batch_sampler"):  # torch's own
        idist.auto_dataloader(
            range(4), batch_sampler=BatchSampler(range(4), 2, False), batch_size=2
        )


@pytest.mark.parametrize("batch_size", [0, -4, 2.5, "4"])
def test_a_batch_size_that_is_none_is_refused(batch_size):
    with pytest.raises(ValueError, match="expected a whole number, 1 or more"):
        idist.auto_dataloader(range(4), batch_size=batch_size)


def test_data_can_ask_for_the_epoch_with_the_index():
    loader = idist.auto_dataloader(Keys(), batch_size=4, with_epoch=True)
    idist.set_position(loader, 3, 1)
    ((epochs, indices), _), *rest = loader
    assert (epochs.tolist(), indices.tolist(), rest) == ([3] * 4, [4, 5, 6, 7], [])
    with pytest.raises(ValueError, match="with_epoch=True: expected neither"):
        idist.auto_dataloader(Keys(), sampler=SequentialSampler(range(4)), with_epoch=True)


def test_random_numbers_of_workers_depend_on_the_epoch_and_not_on_what_was_before():
    def drawn(*epochs: int) -> list[Any]:
        loader = idist.auto_dataloader(Keys(), batch_size=4, num_workers=1, seed=1)
        for epoch in epochs:
            idist.set_position(loader, epoch, 0)
            numbers = [numbers.tolist() for _, numbers in loader]
        return numbers

    first_then_second, second = drawn(1, 2), drawn(2)
    assert first_then_second == second != drawn(1)


def test_workers_change_nothing_in_where_a_pass_begins_or_which_epoch_it_is():
    arguments = {"batch_size": 4, "shuffle": True, "seed": 1}
    plain = idist.auto_dataloader(range(10), **arguments)
    loader = idist.auto_dataloader(range(10), num_workers=1, **arguments)
    assert [_lists(loader) for _ in range(2)] == [_lists(plain) for _ in range(2)]
    assert _second_epoch(loader, 1) == _second_epoch(plain, 1)
    assert _lists(loader) == _second_epoch(plain)


def test_streams_are_passed_through():
    loader = idist.auto_dataloader(Stream(), batch_size=5)
    assert _lists(loader) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


def test_a_model_goes_to_the_device_and_stays_what_it_is():
    model = nn.Linear(2, 1)
    assert idist.auto_model(model, sync_bn=True, find_unused_parameters=True) is model
    assert model.weight.device == idist.device()


def test_with_several_devices_one_is_used_and_the_way_to_all_is_said(monkeypatch, caplog):
    monkeypatch.setattr("cookfire.distributed._model.device", lambda: torch.device("meta", 0))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    model = nn.Linear(2, 1, device="meta")
    with caplog.at_level(logging.INFO):
        assert idist.auto_model(model) is model
    assert "using 1 of 4 devices" in caplog.text
    assert "torchrun --nproc_per_node=" in caplog.text


def test_an_optimizer_is_given_back_and_takes_no_options():
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    assert idist.auto_optim(optimizer) is optimizer
    with pytest.raises(TypeError, match="unexpected options compression"):
        idist.auto_optim(optimizer, compression=None)


def test_a_proxy_sampler_gives_each_replica_equally_many_of_the_same_indices():
    sampler = RandomSampler(range(10))
    proxies = [idist.DistributedProxySampler(sampler, 3, rank) for rank in range(3)]
    before = torch.get_rng_state()
    for epoch in (0, 1):
        for proxy in proxies:
            proxy.set_epoch(epoch)
        parts = [list(proxy) for proxy in proxies]
        merged = [index for group in zip(*parts, strict=True) for index in group]
        assert sorted(merged[:10]) == list(range(10))
        assert merged[10:] == merged[:2]  # repeated to come out even, as torch's do
        assert [len(proxy) for proxy in proxies] == [4, 4, 4]
        if epoch == 0:
            first = merged
    assert first != merged
    assert torch.equal(torch.get_rng_state(), before)


def test_a_proxy_sampler_repeats_as_torchs_distributed_sampler_does():
    for size in (1, 2, 5, 6, 7):
        for rank in range(4):
            theirs = DistributedSampler(range(size), 4, rank, shuffle=False)
            ours = idist.DistributedProxySampler(SequentialSampler(range(size)), 4, rank)
            assert list(ours) == list(theirs)
    assert isinstance(ours, DistributedSampler)
    assert list(idist.DistributedProxySampler(SequentialSampler(range(3)))) == [0, 1, 2]


def test_a_proxy_sampler_wants_a_sampler_that_tells_its_length():
    with pytest.raises(TypeError, match="expected a sampler, given 3"):
        idist.DistributedProxySampler(3)

    class Liar(SequentialSampler):
        def __len__(self) -> int:
            return 7

    with pytest.raises(ValueError, match="its length is 7, and it gave 3 indices"):
        list(idist.DistributedProxySampler(Liar(range(3)), 1, 0))


# -- two processes ----------------------------------------------------------------------------


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
        "order": _lists(idist.auto_dataloader(range(10), batch_size=4)),
        "tail": _lists(idist.auto_dataloader(range(9), batch_size=4)),
        "shuffled": _second_epoch(shuffled),
        "resumed": _second_epoch(shuffled, 1),
        "dropped": _lists(idist.auto_dataloader(range(9), batch_size=4, shuffle=True)),
        "said": _logged(lambda: idist.auto_dataloader(range(9), batch_size=4, shuffle=True)),
        "sampler": _lists(idist.auto_dataloader(range(10), batch_size=4, sampler=weighted)),
        "sampler's tail": [
            (_lists(loader), len(loader))
            for drop_last in (False, True)
            for loader in [
                idist.auto_dataloader(
                    range(9), batch_size=4, sampler=SequentialSampler(range(9)), drop_last=drop_last
                )
            ]
        ],
        "batch sampler": _lists(
            idist.auto_dataloader(range(9), batch_sampler=[[0, 1, 2], [3], [4, 5], [6, 7, 8]])
        ),
        "distributed sampler": _lists(
            idist.auto_dataloader(
                range(8), batch_size=4, sampler=DistributedSampler(range(8), shuffle=False)
            )
        ),
        "single": list(idist.auto_dataloader(range(5), batch_size=None)),
        "single sampler": list(
            idist.auto_dataloader(range(4), batch_size=None, sampler=SequentialSampler(range(4)))
        ),
        "stream": _lists(idist.auto_dataloader(Stream(), batch_size=4)),
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
    assert [mine + others for mine, others in shares] == _second_epoch(alone)
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
    assert [mine + others for mine, others in shares] == _lists(alone)
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
