"""That metrics of an engine share what they count is not to be seen, but in time."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cookfire.distributed as idist
import cookfire.metrics as ours
from cookfire.engine import Engine, Events
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics.regression import R2Score

CLASSES = 3


def made():
    """Metrics of three kinds of shared states."""
    return {
        "accuracy": ours.Accuracy(),
        "precision": ours.Precision(average=None),
        "f1": ours.Fbeta(1.0),
        "matrix": ours.ConfusionMatrix(CLASSES),
        "kappa": ours.CohenKappa(),
        "roc": ours.ROC_AUC(average=None),
        "ap": ours.AveragePrecision(average=None),
        "mae": ours.MeanAbsoluteError(numbers),
        "r2": R2Score(numbers),
    }


def numbers(output):
    return output[0][:, 0], output[1].double()


def batches(number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.rand(8, CLASSES, generator=generator),
            torch.arange(8).remainder(CLASSES)[torch.randperm(8, generator=generator)],
        )
        for _ in range(number)
    ]


def evaluator():
    return Engine(lambda engine, batch: batch)


def attach(engine, metrics):
    for name, metric in metrics.items():
        metric.attach(engine, name)


def values_of(metrics):
    values = {}
    for name, metric in metrics.items():
        try:
            values[name] = metric.compute()
        except NotComputableError:
            values[name] = None
    return values


def assert_same(values, expected):
    assert values.keys() == expected.keys()
    for name, value in values.items():
        assert (value is None) == (expected[name] is None), name
        if value is not None:
            np.testing.assert_allclose(value, expected[name], err_msg=name)


def perform(number, how, name, metrics, engine):
    """Do something to one of the metrics, as a user may at any time."""
    metric, batch = metrics[name], batches(1, seed=50 + number)[0]
    match how:
        case "reset":
            metric.reset()
        case "update":
            metric.update(metric._transform(batch))
        case "load":
            other = made()[name]
            other.update(other._transform(batch))
            metric.load_state_dict(other.state_dict())
        case "load what it is":
            metric.load_state_dict(metric.state_dict())
        case "detach":
            metric.detach(engine)
        case "attach":
            if not metric.is_attached(engine):
                metric.attach(engine, name)
        case "save and load all":
            owner = engine_of(engine)
            owner.load_state_dict(pickle.loads(pickle.dumps(owner.state_dict())))


def engine_of(engine):
    """What an engine's metrics are saved by."""
    return next(
        handler.__self__
        for handler in engine.handlers()
        if hasattr(getattr(handler, "__self__", None), "load_state_dict")
    )


def play(steps, *, sharing):
    """Return all values after each iteration of two epochs, and the engine's at their ends."""
    with pytest.MonkeyPatch.context() as patch:
        if not sharing:
            patch.setattr(ours.Metric, "_share_updates_of", lambda self, *settings: None)
        engine, metrics, seen = evaluator(), made(), []
        attach(engine, metrics)

        @engine.on(Events.ITERATION_COMPLETED)
        def act(engine):
            number = engine.state.iteration
            for at, how, name in steps:
                if at == number:
                    perform(number, how, name, metrics, engine)
            seen.append(values_of(metrics))

        try:
            engine.run(batches(4), max_epochs=2)
            seen.append(dict(engine.state.metrics))
        except NotComputableError:
            seen.append({})
        return seen


HOWS = ["reset", "update", "load", "load what it is", "detach", "attach", "save and load all"]


@given(
    st.lists(
        st.tuples(st.integers(1, 8), st.sampled_from(HOWS), st.sampled_from(sorted(made()))),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=20)
def test_whatever_is_done_to_one_metric_is_seen_in_no_other(steps):
    for values, expected in zip(play(steps, sharing=True), play(steps, sharing=False), strict=True):
        assert_same(values, expected)


def test_metrics_that_share_are_copied_and_saved_by_themselves(tmp_path):
    engine, metrics = evaluator(), made()
    attach(engine, metrics)
    data = batches(3)
    engine.run(data)
    expected = values_of(metrics)
    copies = [
        copy.deepcopy(metrics["accuracy"]),
        pickle.loads(pickle.dumps(metrics["accuracy"])),
        ours.Accuracy(),
    ]
    torch.save(metrics["accuracy"].state_dict(), tmp_path / "state.pt")
    copies[-1].load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for other in copies:
        assert other.compute() == expected["accuracy"]
        other.update(data[0])
        more = ours.Accuracy()
        for batch in (*data, data[0]):
            more.update(batch)
        assert other.compute() == more.compute()
        other.reset()
    assert_same(values_of(metrics), expected)


def test_metrics_of_an_engine_that_is_gone_go_their_own_ways():
    engine, metrics = evaluator(), made()
    attach(engine, metrics)
    engine.run(batches(3))
    expected = values_of(metrics)
    del engine
    metrics["f1"].reset()
    other = evaluator()
    metrics["accuracy"].attach(other, "accuracy")
    other.run(batches(1, seed=9))
    for name in ("f1", "accuracy"):
        del metrics[name], expected[name]
    assert_same(values_of(metrics), expected)


def test_what_a_metric_had_before_it_is_attached_is_its_own_until_the_engine_starts():
    engine, data = evaluator(), batches(2)
    accuracy, matrix = ours.Accuracy(), ours.ConfusionMatrix(CLASSES)
    accuracy.update(data[0])
    before = accuracy.compute()
    matrix.attach(engine, "matrix")
    accuracy.attach(engine, "accuracy")
    assert accuracy.compute() == before
    with pytest.raises(NotComputableError):
        matrix.compute()


def test_an_overridden_handler_is_called_for_each_metric():
    calls = []

    class Loud(ours.Precision):
        def iteration_completed(self, engine):
            calls.append(engine.state.iteration)
            super().iteration_completed(engine)

    engine = evaluator()
    attach(engine, {"recall": ours.Recall(), "loud": Loud(), "louder": Loud()})
    engine.run(batches(2))
    assert calls == [1, 1, 2, 2]


LOCAL = {1: ("reset", "f1"), 2: ("update", "accuracy"), 3: ("reset", "roc"), 4: ("reset", "mae")}


def differ_by_rank(sharing):
    """Each rank does other things to some metrics; return values, and what was saved."""
    rank = idist.get_rank()
    with pytest.MonkeyPatch.context() as patch:
        if not sharing:
            patch.setattr(ours.Metric, "_share_updates_of", lambda self, *settings: None)
        engine, metrics = evaluator(), made()
        attach(engine, metrics)

        @engine.on(Events.ITERATION_COMPLETED)
        def act(engine):
            if engine.state.iteration % 2 == rank and engine.state.iteration in LOCAL:
                perform(0, *LOCAL[engine.state.iteration], metrics, engine)

        state = engine.run(batches(4, seed=rank), max_epochs=1)
        return {
            "engine": dict(state.metrics),
            "values": values_of(metrics),
            "saved": engine_of(engine).state_dict(),
        }


def test_ranks_may_do_other_things_to_metrics_that_share(processes):
    shared, alone = (processes(2, differ_by_rank, sharing) for sharing in (True, False))
    for mine, expected in zip(shared, alone, strict=True):
        assert_same(mine["engine"], expected["engine"])
        assert_same(mine["values"], expected["values"])
    engine, metrics = evaluator(), made()
    attach(engine, metrics)
    for saved in (shared[0]["saved"], alone[0]["saved"]):
        engine_of(engine).load_state_dict(saved)
        assert_same(values_of(metrics), shared[0]["values"])
