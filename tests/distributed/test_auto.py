"""Loaders, models and optimizers that fit the one process there is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
)

import cookfire.distributed as idist
from tests.distributed.loading import Counted, Endless, Keys, Stream, lists, second_epoch


def test_without_a_sampler_the_data_come_in_the_order_of_data_order():
    loader = idist.auto_dataloader(range(10), batch_size=4, shuffle=True, seed=5)
    order = idist.DataOrder(10, 4, shuffle=True, seed=5)
    order.set_position(2)
    assert second_epoch(loader) == list(order)
    assert len(loader) == 3
    assert second_epoch(loader, 1) == list(order)[1:]


def test_batches_are_torchs_where_nothing_is_shuffled():
    for arguments in ({}, {"batch_size": 4}, {"batch_size": 4, "drop_last": True}):
        ours = idist.auto_dataloader(range(10), **arguments)
        assert lists(ours) == lists(DataLoader(range(10), **arguments))


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
    first = lists(loaders[0])
    torch.manual_seed(1)
    assert lists(loaders[1]) == first
    assert [len(batch) for batch in first] == [20, 20, 10]
    assert len(loaders[0]) == 3
    second = second_epoch(loaders[1])
    assert second != first
    assert second_epoch(loaders[0], 1) == second[1:]


def test_a_users_sampler_is_told_the_epoch():
    sampler = Counted(range(6))
    for arguments in (
        {"sampler": sampler, "batch_size": 2},
        {"batch_sampler": BatchSampler(sampler, 2, False)},
    ):
        sampler.epoch = -1
        loader = idist.auto_dataloader(range(6), **arguments)
        assert second_epoch(loader) == [[0, 1], [2, 3], [4, 5]]
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
    assert [lists(loader) for _ in range(2)] == [lists(plain) for _ in range(2)]
    assert second_epoch(loader, 1) == second_epoch(plain, 1)
    assert lists(loader) == second_epoch(plain)


def test_streams_are_passed_through():
    loader = idist.auto_dataloader(Stream(), batch_size=5)
    assert lists(loader) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


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


OWN = [
    {"batch_size": 3, "sampler": RandomSampler},
    {"batch_size": None, "sampler": RandomSampler},
    {"batch_sampler": lambda data, **own: BatchSampler(RandomSampler(data, **own), 3, False)},
]


@pytest.mark.parametrize("arguments", OWN)
@pytest.mark.parametrize("with_generator", [False, True])
def test_the_order_of_a_users_sampler_is_a_function_of_seed_and_epoch(arguments, with_generator):
    def loader(seed: int) -> DataLoader[Any]:
        own = {"generator": torch.Generator()} if with_generator else {}
        made = {
            name: value(range(10), **own) if callable(value) else value
            for name, value in arguments.items()
        }
        return idist.auto_dataloader(range(10), seed=seed, **made)

    torch.manual_seed(1)
    first = loader(5)
    passes = [[str(batch) for batch in first] for _ in range(2)]
    assert passes[0] != passes[1]
    torch.manual_seed(2)
    resumed = loader(5)
    assert idist.set_position(resumed, 2, 1)
    assert [str(batch) for batch in resumed] == passes[1][1:]
    assert [str(batch) for batch in loader(6)] != passes[0]
