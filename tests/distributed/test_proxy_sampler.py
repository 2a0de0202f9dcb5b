"""Any sampler made a distributed one."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
)

import cookfire.distributed as idist


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
