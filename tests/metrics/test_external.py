"""Metrics of other libraries, wherever one of ours can stand."""

import copy
import operator

import pytest
import torch
from torch import nn

import cookfire.distributed as idist
from cookfire.engine import Engine, create_supervised_evaluator
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import Accuracy, ExternalMetric, MetricGroup, MetricsLambda


def accuracy():
    from torchmetrics.classification import MulticlassAccuracy

    return MulticlassAccuracy(3, average="micro")


def collection():
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAUROC

    return MetricCollection({"acc": accuracy(), "auc": MulticlassAUROC(3)})


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


def test_a_group_takes_another_librarys_metric_as_it_is_and_an_evaluator_says_how_it_would():
    theirs = accuracy()
    metrics = {"ours": Accuracy(), "group": MetricGroup({"inner": theirs})}
    evaluators = [create_supervised_evaluator(nn.Identity(), metrics=metrics) for _ in range(2)]
    for evaluator, data in zip(evaluators, (batches(), batches(1)), strict=True):
        values = evaluator.run(data).metrics
        assert values["inner"] == pytest.approx(values["ours"])
    assert evaluators[0].state.metrics["ours"] != evaluators[1].state.metrics["ours"]
    assert not theirs.update_called  # a copy was
    with pytest.raises(TypeError, match=r"metrics\['x'\]: .* cookfire.metrics.ExternalMetric"):
        create_supervised_evaluator(nn.Identity(), metrics={"x": theirs})
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


class Mean:
    """A metric of another library, with its own way to synchronise; quicker to import."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.sums = torch.zeros(2)

    def update(self, y_pred, y):
        self.sums += torch.tensor([(y_pred.argmax(1) == y).sum(), len(y)])

    def compute(self):
        total = idist.all_reduce(self.sums)
        return {"acc": total[0] / total[1]}

    def state_dict(self):
        return {"sums": self.sums}

    def load_state_dict(self, state):
        self.sums = state["sums"]


def on_a_rank():
    rank = idist.get_rank()
    metric = ExternalMetric(Mean())
    engine = Engine(lambda engine, batch: batch)
    metric.attach(engine, "theirs")
    Accuracy().attach(engine, "ours")
    engine.run(batches()[rank::2])
    state = metric.state_dict()
    other = ExternalMetric(Mean())
    other.load_state_dict(state)
    # One rank has nothing: the others' counts are the value.
    lopsided = ExternalMetric(Mean())
    if rank == 0:
        for batch in batches():
            lopsided.update(batch)
    with pytest.raises(NotComputableError):
        ExternalMetric(Mean()).compute()
    return dict(engine.state.metrics), other.compute(), lopsided.compute(), state


def test_it_synchronises_by_itself_and_as_many_ranks_load_as_saved(processes):
    results = processes(2, on_a_rank)
    for metrics, loaded, lopsided, state in results:
        assert metrics["acc"] == pytest.approx(metrics["ours"])
        assert loaded == lopsided == metrics["theirs"]
        assert [record["updates"] for (record,) in state["ranks"]] == [2, 2]
    with pytest.raises(ValueError, match="2 processes saved and 1 can't share"):
        ExternalMetric(Mean()).load_state_dict(results[0][3])


def test_arithmetic_takes_metrics_of_another_library():
    ours, theirs, data = Accuracy(), accuracy(), batches()
    value = expected(data)["acc"]
    for combined in (
        ours * theirs,
        MetricsLambda(operator.mul, theirs, ours),
        MetricsLambda(lambda left, right: left * right, left=ours, right=theirs),
    ):
        engine = create_supervised_evaluator(nn.Identity(), {"square": combined})
        for _ in range(2):
            assert engine.run(data).metrics["square"] == pytest.approx(value**2)
    assert not theirs.update_called
