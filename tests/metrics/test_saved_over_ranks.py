"""States that some processes saved are loaded by others."""

from __future__ import annotations

import itertools

import pytest
import torch

import cookfire.distributed as idist
from cookfire.metrics import RunningAverage
from tests.metrics.test_ranks import (
    Plain,
    close,
    data,
    expected_values,
    feed,
    make_metrics,
    shard,
)


def save_on_a_rank(split):
    states, values = {}, {}
    for name, metric in make_metrics().items():
        for batch in shard(split, idist.get_rank()):
            feed(name, metric, batch)
        states[name] = metric.state_dict()
        values[name] = metric.compute()
    average = RunningAverage(output_transform=lambda x: x)
    average.update(torch.tensor(2.0 * (idist.get_rank() + 1)))
    return states, average.state_dict()


def load_on_a_rank(states, average):
    values = {}
    for name, metric in make_metrics().items():
        metric.load_state_dict(states[name])
        values[name] = metric.compute()
        if idist.get_rank() == 0:
            feed(name, metric, data()[0])
        values[f"{name} and more"] = metric.compute()
    running = RunningAverage(output_transform=lambda x: x, alpha=0.5)
    running.load_state_dict(average)
    values["running"] = running.compute()
    running.update(torch.tensor(5.0))
    values["running on"] = running.compute()
    return values


def test_a_state_saved_by_some_ranks_is_loaded_by_others(processes):
    expected = expected_values()
    for name, metric in make_metrics().items():
        for batch in itertools.chain(data(), data()[:1]):
            feed(name, metric, batch)
        expected[f"{name} and more"] = metric.compute()
    saved = processes(3, save_on_a_rank, (0, 1, 1, 2, 1, 0))
    states, average = saved[0]
    for world_size in (1, 2, 3):
        if world_size == 1:
            loaded = [load_on_a_rank(states, average)]
        else:
            loaded = processes(world_size, load_on_a_rank, states, average)
        for values in loaded:
            assert values.pop("running") == pytest.approx(4.0)
            assert values.pop("running on") == pytest.approx(4.5)
            for name, value in values.items():
                close(value, expected[name], f"{name} loaded by {world_size}")


def plain_on_a_rank(state):
    metric = Plain()
    with pytest.raises(ValueError, match="in plain attributes, which 1 processes saved and 2"):
        metric.load_state_dict(state)
    return True


def test_plain_attributes_are_loaded_by_as_many_ranks_only(processes):
    class Named(Plain):
        _state_dict_all_req_keys = ("_sum", "_count")

    Named.__name__ = "Plain"
    state = Named().state_dict()
    assert processes(2, plain_on_a_rank, state) == [True, True]
