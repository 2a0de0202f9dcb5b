"""Metrics of numbers, images, distributions, clusters and features over several processes."""

from __future__ import annotations

import time

import pytest
import torch

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import (
    FID,
    HSIC,
    PSNR,
    SSIM,
    CosineSimilarity,
    Entropy,
    Frequency,
    InceptionScore,
    JSDivergence,
    KLDivergence,
    MaximumMeanDiscrepancy,
    MeanAbsoluteError,
    MeanPairwiseDistance,
    MeanSquaredError,
    MutualInformation,
    RootMeanSquaredError,
    clustering,
    regression,
)
from tests.metrics.test_ranks import collectives

COLUMN = {name: getattr(regression, name) for name in regression.__all__}
BASIC = {
    make.__name__: make for make in (MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError)
}
VECTORS = {make.__name__: make for make in (MeanPairwiseDistance, CosineSimilarity)}
LOGITS = {make.__name__: make for make in (Entropy, KLDivergence, JSDivergence, MutualInformation)}
KERNELS = {make.__name__: make for make in (MaximumMeanDiscrepancy, HSIC)}
SCORES = {name: getattr(clustering, name) for name in clustering.__all__}
SIZES = (7, 4, 5, 12, 6, 4)


def batch(size, generator):
    """What each kind of metric is fed."""
    y_pred, y = 1000 + torch.rand(2, size, generator=generator).round(decimals=1)
    vectors = torch.randn(2, size, 3, generator=generator)
    images = torch.rand(2, size, 2, 8, 8, generator=generator)
    labels = torch.randint(0, 3, (size,), generator=generator)
    return {
        "column": (y_pred, y),
        "vectors": (vectors[0], vectors[1]),
        "images": (images[0], images[1]),
        "clusters": (vectors[0] + labels.unsqueeze(1), labels),
        "probabilities": vectors[0].softmax(1),
    }


def data():
    generator = torch.Generator().manual_seed(0)
    return [batch(size, generator) for size in SIZES]


def make_metrics():
    """Metrics by name, each with what it is fed."""
    made = {name: ("column", make()) for name, make in (COLUMN | BASIC).items()}
    made |= {name: ("vectors", make()) for name, make in (VECTORS | LOGITS | KERNELS).items()}
    made |= {name: ("clusters", make()) for name, make in SCORES.items()}
    made["PSNR"] = "images", PSNR(1.0)
    made["SSIM"] = "images", SSIM(1.0, kernel_size=5)
    made["FID"] = "vectors", FID(num_features=3)
    made["InceptionScore"] = "probabilities", InceptionScore(num_features=3)
    return made


def attach_all(engine):
    for name, (kind, metric) in make_metrics().items():
        metric._output_transform = lambda output, kind=kind: output[kind]
        metric.attach(engine, name)


def shard(split):
    rank = idist.get_rank()
    return [part for part, owner in zip(data(), split, strict=True) if owner == rank]


def on_a_rank(splits, states):
    result = {"alone": [], "engine": [], "loaded": {}}
    for split in splits:
        values = {}
        for name, (kind, metric) in make_metrics().items():
            for part in shard(split):
                metric.update(part[kind])
            values[name] = metric.compute()
        result["alone"].append(values)
    for name, (_, metric) in make_metrics().items():
        with pytest.raises(NotComputableError):
            metric.compute()
        metric.load_state_dict(states[name])
        result["loaded"][name] = metric.compute()

    engine = Engine(lambda engine, batch: batch)
    attach_all(engine)
    mine = shard(splits[0])
    with collectives() as called:
        engine.run(mine)
    result["engine"] = dict(engine.state.metrics), sum(called.values())

    engine = Engine(lambda engine, batch: batch)
    for metric in (
        MeanSquaredError(),
        MeanAbsoluteError(),
        regression.R2Score(),
        regression.PearsonCorrelation(),
    ):
        metric.attach(engine, type(metric).__name__)
    with collectives() as called:
        engine.run([part["column"] for part in mine])
    result["few"] = dict(engine.state.metrics), dict(called)

    saved = {}
    for name, (kind, metric) in make_metrics().items():
        for part in mine:
            metric.update(part[kind])
        saved[name] = metric.state_dict()
    result["saved"] = saved
    return result


def states_of_one_process():
    values, states = {}, {}
    for name, (kind, metric) in make_metrics().items():
        for part in data():
            metric.update(part[kind])
        values[name], states[name] = metric.compute(), metric.state_dict()
    return values, states


SPLITS = {
    2: [(0, 1, 0, 1, 1, 1), (0,) * 6, (1,) * 6],
    3: [(0, 1, 2, 0, 1, 2), (2, 2, 2, 0, 0, 0)],
}


def close(value, expected, name):
    assert type(value) is float, name
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("world_size", [2, 3])
def test_values_over_ranks_are_those_of_one_process(processes, world_size):
    expected, states = states_of_one_process()
    results = processes(world_size, on_a_rank, SPLITS[world_size], states)
    for result in results:
        for values in [*result["alone"], result["engine"][0], result["few"][0], result["loaded"]]:
            for name, value in values.items():
                close(value, expected[name], name)
        assert result["few"][1] == {"all_gather_into_tensor": 1}
        assert result["engine"][1] <= 4  # sizes, sums of unknown shape, histories
    for name, (_, metric) in make_metrics().items():
        metric.load_state_dict(results[0]["saved"][name])
        close(metric.compute(), expected[name], f"{name} loaded by one")


def frequency_on_a_rank():
    rank = idist.get_rank()
    engine = Engine(lambda engine, batch: time.sleep(0.01) or batch)
    shown = []
    Frequency().attach(engine, "rate")
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: shown.append(engine.state.metrics["rate"])
    )
    with collectives() as called:
        engine.run([100 * (rank + 1)] * 3)
    by_hand = Frequency()
    if rank == 0:
        by_hand.update(6)
        by_hand.seconds = 2.0
    return shown, engine.state.metrics["rate"], sum(called.values()), by_hand.compute()


def test_a_frequency_is_that_of_all_ranks_without_an_exchange_an_iteration(processes):
    results = processes(2, frequency_on_a_rank)
    assert results[0][1] == results[1][1]
    for shown, value, called, by_hand in results:
        assert 0 < value < 900 / 0.03
        assert all(rate > 0 for rate in shown)
        assert called == 1
        assert by_hand == 3.0  # a rank without data has no seconds
