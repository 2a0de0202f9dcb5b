"""The order of data: a pure function of (seed, epoch, batch), whoever asks."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler

from cookfire.distributed import DataOrder, derive_seed, set_position

sizes = st.integers(0, 70)
batch_sizes = st.integers(3, 20)
epochs = st.integers(0, 5)
seeds = st.integers(-(2**70), 2**70)


def _orders(world_size: int, **arguments: Any) -> list[DataOrder]:
    return [DataOrder(rank=rank, world_size=world_size, **arguments) for rank in range(world_size)]


def _together(orders: list[DataOrder], epoch: int, batch: int = 0) -> list[list[int]]:
    """Global batches: batch k of every rank, one after the other."""
    for order in orders:
        order.set_position(epoch, batch)
    passes = [list(order) for order in orders]
    count = max(len(batches) for batches in passes)
    return [
        [index for batches in passes if k < len(batches) for index in batches[k]]
        for k in range(count)
    ]


@given(sizes, batch_sizes, seeds, epochs, st.booleans(), st.sampled_from([2, 3]))
def test_the_shares_of_the_ranks_are_the_batches_of_one_process(
    size, batch_size, seed, epoch, shuffle, world_size
):
    arguments = {"size": size, "batch_size": batch_size, "shuffle": shuffle, "seed": seed}
    alone = _together(_orders(1, **arguments), epoch)
    shared = _together(_orders(world_size, **arguments), epoch)
    if shuffle and 0 < size % batch_size < world_size:
        alone.pop()  # dropped: a rank without data would keep the others waiting
    assert shared == alone


@given(sizes, batch_sizes, epochs, st.sampled_from([1, 2, 3]))
def test_in_evaluation_every_item_is_seen_exactly_once(size, batch_size, epoch, world_size):
    orders = _orders(world_size, size=size, batch_size=batch_size, shuffle=False)
    seen = [index for batch in _together(orders, epoch) for index in batch]
    assert seen == list(range(size))
    assert all(order.dropped == 0 for order in orders)


@given(sizes, batch_sizes, seeds, epochs, st.sampled_from([1, 2, 3]), st.booleans())
def test_in_training_items_are_seen_once_but_for_those_said_to_be_dropped(
    size, batch_size, seed, epoch, world_size, drop_last
):
    orders = _orders(
        world_size,
        size=size,
        batch_size=batch_size,
        shuffle=True,
        seed=seed,
        drop_last=drop_last,
    )
    seen = [index for batch in _together(orders, epoch) for index in batch]
    assert len(seen) == len(set(seen)) == size - orders[0].dropped
    assert set(seen) <= set(range(size))
    assert len({len(order) for order in orders}) == 1, "all ranks make equally many steps"


@given(sizes, batch_sizes, st.booleans(), st.booleans(), st.sampled_from([1, 2, 3]))
def test_shares_differ_by_one_at_most_and_none_is_empty(
    size, batch_size, shuffle, drop_last, world_size
):
    arguments = {"size": size, "batch_size": batch_size, "shuffle": shuffle}
    orders = _orders(world_size, drop_last=drop_last, **arguments)
    passes = [list(order) for order in orders]
    assert [len(batches) for batches in passes] == [len(order) for order in orders]
    assert all(batch for batches in passes for batch in batches)
    for shares in zip(*passes, strict=False):
        lengths = [len(share) for share in shares]
        assert max(lengths) - min(lengths) <= 1


@given(sizes, batch_sizes, seeds, epochs, st.booleans(), st.sampled_from([1, 2, 3]), st.data())
def test_a_pass_that_starts_in_the_middle_is_the_tail_of_the_whole_one(
    size, batch_size, seed, epoch, shuffle, world_size, data
):
    orders = _orders(world_size, size=size, batch_size=batch_size, shuffle=shuffle, seed=seed)
    whole = _together(orders, epoch)
    start = data.draw(st.integers(0, len(whole)))
    assert _together(orders, epoch, start) == whole[start:]
    # The position was for one pass: the next is all of the same epoch.
    assert [len(list(order)) for order in orders] == [len(order) for order in orders]


@given(sizes, st.integers(1, 20), st.booleans())
def test_without_shuffling_one_process_sees_what_torchs_batch_sampler_gives(
    size, batch_size, drop_last
):
    theirs = BatchSampler(SequentialSampler(range(size)), batch_size, drop_last)
    ours = DataOrder(size, batch_size, shuffle=False, drop_last=drop_last)
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs)


def test_an_epochs_order_is_the_permutation_of_its_derived_seed():
    order = DataOrder(10, 4, shuffle=True, seed=7)
    order.set_position(3)
    generator = torch.Generator().manual_seed(derive_seed(7, 3))
    assert [index for batch in order for index in batch] == torch.randperm(
        10, generator=generator
    ).tolist()


def test_nothing_is_drawn_from_the_global_random_state():
    before = torch.get_rng_state()
    list(DataOrder(10, 4, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_plain_loops_shuffle_anew_and_count_from_the_first_epoch():
    order, told = DataOrder(50, 50, shuffle=True), DataOrder(50, 50, shuffle=True)
    passes = []
    for epoch in (1, 2, 3):
        told.set_position(epoch)
        passes.append(list(order))
        assert passes[-1] == list(told)
    assert passes[0] != passes[1] != passes[2]


def test_an_order_that_was_told_its_epoch_stays_there():
    order = DataOrder(50, 50, shuffle=True)
    order.set_position(3)
    assert list(order) == list(order)


def test_the_position_counts_when_the_pass_begins_not_at_its_first_batch():
    order = DataOrder(6, 2, shuffle=False)
    order.set_position(1, batch=1)
    begun = iter(order)
    order.set_position(1, batch=2)
    assert list(begun) == [[2, 3], [4, 5]]
    assert list(order) == [[4, 5]]


def test_an_iterator_that_is_never_advanced_uses_no_position_up():
    order = DataOrder(6, 2, shuffle=False, with_epoch=True)
    unused = iter(order)
    assert next(iter(order))[0] == (1, 0)
    assert next(iter(order))[0] == (2, 0)
    order.set_position(4, batch=1)
    iter(order)
    assert next(unused)[0] == (1, 0)
    assert next(iter(order))[0] == (4, 2)
    assert next(iter(order))[0] == (4, 0)


def test_seeds_and_epochs_change_the_order():
    def first(seed: int, epoch: int) -> list[Any]:
        order = DataOrder(50, 50, shuffle=True, seed=seed)
        order.set_position(epoch)
        return next(iter(order))

    orders = [first(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_keys_hold_the_epoch_for_data_that_ask_for_it():
    order = DataOrder(4, 2, shuffle=False, with_epoch=True)
    order.set_position(5)
    assert list(order) == [[(5, 0), (5, 1)], [(5, 2), (5, 3)]]


def test_a_generator_is_seeded_anew_by_seed_epoch_and_rank():
    def drawn(seed: int, epoch: int, rank: int) -> int:
        generator = torch.Generator()
        order = DataOrder(
            4, 2, shuffle=False, seed=seed, rank=rank, world_size=2, generator=generator
        )
        order.set_position(epoch, batch=1)
        iter(order)
        return generator.initial_seed()

    assert drawn(1, 1, 0) == drawn(1, 1, 0)
    assert len({drawn(s, e, r) for s in range(2) for e in range(2) for r in range(2)}) == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": -1}, "size -1: expected 0 or more"),
        ({"batch_size": 0}, "batch_size 0: expected 1 or more"),
        ({"rank": 0, "world_size": 3}, "batch_size 2: .* each of the 3 processes"),
        ({"rank": 0}, "expected both or neither"),
        ({"rank": 2, "world_size": 2}, "rank 2: expected a rank from 0 to 1"),
    ],
)
def test_impossible_orders_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        DataOrder(**{"size": 4, "batch_size": 2, "shuffle": False} | arguments)


def test_a_position_past_the_end_is_refused():
    order = DataOrder(10, 4, shuffle=False)
    order.set_position(1, batch=3)
    assert list(order) == []
    with pytest.raises(ValueError, match="batch 4: an epoch of 10 items has 3 batches of 4"):
        order.set_position(1, batch=4)
    with pytest.raises(ValueError, match="expected neither to be negative"):
        order.set_position(-1)


@given(seeds, st.lists(st.integers(-(2**40), 2**40), max_size=3))
def test_derived_seeds_are_63_bits_of_a_hash_of_the_path(seed, path):
    text = "/".join(map(str, [seed, *path]))
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    assert derive_seed(seed, *path) == int(digest, 16) // 2 < 2**63
    torch.Generator().manual_seed(derive_seed(seed, *path))


def test_derived_seeds_stay_what_they_are():
    # Orders and augmentations of published runs follow from these.
    assert derive_seed(0, 1) == 9221934688551543782
    assert derive_seed(0) != derive_seed(0, 0)
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_a_seed_has_to_be_a_whole_number():
    with pytest.raises(TypeError):
        derive_seed(0.5)


class _Recorder:
    def __init__(self, *methods: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        for name in methods:
            setattr(self, name, lambda *args, name=name: self.calls.append((name, *args)))


class _Data:
    def __init__(self, **samplers: object) -> None:
        vars(self).update(samplers)


def test_the_position_is_given_to_the_first_that_takes_it():
    data, batches, sampler = (_Recorder("set_position") for _ in range(3))
    data.batch_sampler = batches
    assert set_position(data, 2, 3)
    assert (data.calls, batches.calls) == ([("set_position", 2, 3)], [])
    assert set_position(_Data(batch_sampler=batches, sampler=sampler), 2, 3)
    assert (batches.calls, sampler.calls) == ([("set_position", 2, 3)], [])
    assert set_position(_Data(batch_sampler=object(), sampler=sampler), 4, 5)
    assert sampler.calls == [("set_position", 4, 5)]


def test_nobody_knows_the_position_in_a_list():
    assert not set_position([1, 2], 1, 0)
    assert not set_position(DataLoader(range(4)), 1, 2)


def test_torchs_distributed_sampler_is_told_the_epoch_but_cannot_skip():
    sampler = DistributedSampler(range(8), num_replicas=2, rank=0)
    loader = DataLoader(range(8), sampler=sampler, batch_size=2)
    assert set_position(loader, 3, 0)
    assert sampler.epoch == 3
    assert not set_position(loader, 4, 1)
    assert sampler.epoch == 4


def test_where_the_next_pass_begins_can_be_asked():
    order = DataOrder(10, 4, shuffle=False)
    assert order.next_position == (1, 0)
    list(order)
    assert order.next_position == (2, 0)
    order.set_position(epoch=5, batch=2)
    assert order.next_position == (5, 2)
    list(order)
    assert order.next_position == (5, 0)
