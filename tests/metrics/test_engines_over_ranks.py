"""Engines of several processes, that average over iterations, or have no batch at all."""

from __future__ import annotations

import pytest
import torch

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.metrics import Accuracy, Average, BatchWise, RunningAverage, RunningEpochWise
from tests.metrics.test_ranks import collectives


def running_on_a_rank():
    rank = idist.get_rank()
    data = [torch.tensor(float(x * (rank + 1))) for x in (1, 2, 3, 4)]
    engine = Engine(lambda engine, batch: batch)
    RunningAverage(output_transform=lambda x: x, alpha=0.5).attach(engine, "tensor")
    RunningAverage(output_transform=lambda x: x.item(), alpha=0.5).attach(engine, "number")
    source = Average()
    RunningAverage(source, alpha=0.5).attach(engine, "source")
    RunningAverage(Average(), alpha=0.5).attach(engine, "epochs", RunningEpochWise())
    seen, counts = [], []
    with collectives() as called:
        engine.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda engine: (
                seen.append(float(engine.state.metrics["tensor"])),
                counts.append(sum(called.values())),
            ),
        )
        engine.run(data)
    assert type(engine.state.metrics["tensor"]) is float
    batchwise = Engine(lambda engine, batch: batch)
    Average().attach(batchwise, "average", BatchWise())
    batchwise.run(data[:2])
    by_hand = RunningAverage(output_transform=lambda x: x)
    if rank == 0:
        by_hand.update(3.0)
    return {
        "seen": seen,
        "counts": counts,
        "metrics": dict(engine.state.metrics),
        "called": sum(called.values()),
        "batch": batchwise.state.metrics["average"],
        "by hand": by_hand.compute(),
    }


def test_a_running_average_is_combined_at_the_end_of_the_epoch_only(processes):
    results = processes(2, running_on_a_rank)
    average = 0.5 * (0.5 * (0.5 * (1 + 2) + 3) + 4)
    for rank, result in enumerate(results):
        assert result["seen"] == [pytest.approx(x * (rank + 1)) for x in (1, 1.5, 2.25, 3.125)]
        assert result["counts"] == [0, 0, 0, 0]
        for name in ("tensor", "number", "source"):
            assert result["metrics"][name] == pytest.approx(average * 1.5)
        assert result["metrics"]["epochs"] == pytest.approx(2.5 * 1.5)
        assert result["batch"] == 3.0
        assert result["by hand"] == 3.0
    assert average == 3.125


def _evaluate_two_examples():
    examples = [(torch.eye(2)[label], torch.tensor(label)) for label in (0, 1)]
    evaluator = Engine(lambda engine, batch: batch)
    Accuracy().attach(evaluator, "accuracy")
    loader = idist.auto_dataloader(examples, batch_size=3)
    return len(loader), evaluator.run(loader).metrics["accuracy"]


def test_an_evaluator_without_any_batch_takes_part(processes):
    assert processes(3, _evaluate_two_examples) == [(1, 1.0), (1, 1.0), (0, 1.0)]
