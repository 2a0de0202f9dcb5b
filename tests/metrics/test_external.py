"""Metrics of other libraries, wherever one of ours can stand."""

import copy

import pytest
import torch
import torchmetrics
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

import cookfire.distributed as idist
from cookfire.engine import Engine, create_supervised_evaluator
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import Accuracy, ExternalMetric, MetricGroup, MetricsLambda


def collection():
    return torchmetrics.MetricCollection(
        {"acc": MulticlassAccuracy(3, average="micro"), "auc": MulticlassAUROC(3)}
    )


def batches(number=4):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(5, 3, generator=generator), torch.randperm(5, generator=generator) % 3)
        for _ in range(number)
    ]


def expected(data):
    metric = collection()
    for batch in data:
        metric.update(*batch)
    return {name: value.item() for name, value in metric.compute().items()}


def test_a_collections_values_go_into_the_engines_metrics():
    engine = Engine(lambda engine, batch: batch)
    metric = ExternalMetric(collection())
    metric.attach(engine, "both")
    last = ExternalMetric(collection(), metrics_result_mode="named")
    last.attach(engine, "last batch", "running_epoch_wise")
    (100 * MetricsLambda(lambda values: values["acc"], metric)).attach(engine, "percent")
    state = engine.run(batches())
    assert state.metrics["both"] == pytest.approx(expected(batches()))
    assert state.metrics["acc"] == state.metrics["both"]["acc"]
    assert state.metrics["percent"] == pytest.approx(100 * state.metrics["acc"])
    assert state.metrics["last batch"] == pytest.approx(expected(batches()[-1:]))


def test_an_evaluator_and_a_group_take_another_librarys_metric_as_it_is():
    theirs = MulticlassAccuracy(3, average="micro")
    metrics = {"theirs": theirs, "ours": Accuracy(), "group": MetricGroup({"inner": theirs})}
    evaluators = [create_supervised_evaluator(nn.Identity(), metrics=metrics) for _ in range(2)]
    for evaluator, data in zip(evaluators, (batches(), batches(1)), strict=True):
        values = evaluator.run(data).metrics
        assert values["theirs"] == pytest.approx(values["ours"])
        assert values["inner"] == pytest.approx(values["ours"])
    assert evaluators[0].state.metrics["ours"] != evaluators[1].state.metrics["ours"]
    assert not theirs.update_called  # a copy was
    with pytest.raises(TypeError, match="int lacks the methods update, compute, reset"):
        create_supervised_evaluator(nn.Identity(), metrics={"x": 3})
    with pytest.raises(TypeError, match="int lacks the methods"):
        MetricGroup({"x": 3})


def test_a_reset_and_nothing_since_is_not_computable():
    metric = ExternalMetric(collection())
    with pytest.raises(NotComputableError):
        metric.compute()
    metric.update(batches()[0])
    assert metric.compute() == pytest.approx(expected(batches(1)))
    metric.reset()
    with pytest.raises(NotComputableError):
        metric.compute()


def test_a_checkpoint_holds_the_state_and_it_goes_on_from_there(tmp_path):
    metric = ExternalMetric(collection())
    for batch in batches()[:2]:
        metric.update(batch)
    torch.save(metric.state_dict(), tmp_path / "state.pt")
    other = ExternalMetric(collection())
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.compute() == pytest.approx(expected(batches()[:2]))  # without a warning
    for batch in batches()[2:]:
        other.update(batch)
    assert other.compute() == pytest.approx(expected(batches()))
    again = copy.deepcopy(other)
    other.reset()
    assert again.compute() == pytest.approx(expected(batches()))


def on_a_rank():
    rank = idist.get_rank()
    metric = ExternalMetric(collection())
    engine = Engine(lambda engine, batch: batch)
    metric.attach(engine, "both")
    Accuracy().attach(engine, "ours")
    engine.run(batches()[rank::2])
    state = metric.state_dict()
    other = ExternalMetric(collection())
    other.load_state_dict(state)
    # One rank has nothing: the others' counts are the value.
    sums = ExternalMetric(MulticlassAccuracy(3, average="micro"))
    if rank == 0:
        for batch in batches():
            sums.update(batch)
    nothing = ExternalMetric(MulticlassAccuracy(3))
    with pytest.raises(NotComputableError):
        nothing.compute()
    return dict(engine.state.metrics), other.compute(), sums.compute(), state


def test_it_synchronises_by_itself_and_as_many_ranks_load_as_saved(processes):
    results = processes(2, on_a_rank)
    for metrics, loaded, lopsided, _ in results:
        assert metrics["both"] == pytest.approx(expected(batches()))
        assert metrics["ours"] == pytest.approx(expected(batches())["acc"])
        assert loaded == pytest.approx(expected(batches()))
        assert lopsided == pytest.approx(expected(batches())["acc"])
    with pytest.raises(ValueError, match="2 processes saved and 1 can't share"):
        ExternalMetric(collection()).load_state_dict(results[0][3])
