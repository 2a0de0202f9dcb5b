import gc
import weakref

import pytest
import torch
from torch import nn

from cookfire.engine import Engine, EventEnum, Events, create_supervised_evaluator
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import (
    Accuracy,
    BatchFiltered,
    BatchWise,
    ConfusionMatrix,
    EpochWise,
    Fbeta,
    Loss,
    MetricGroup,
    MetricUsage,
    Precision,
    Recall,
    RunningBatchWise,
    RunningEpochWise,
    SingleEpochRunningBatchWise,
)
from tests.metrics.engines import Total, accuracy_of, batches, echo


def history(engine, name, event):
    seen = []
    engine.add_event_handler(event, lambda engine: seen.append(engine.state.metrics.get(name)))
    return seen


def test_an_attached_metric_is_reset_updated_and_computed_each_epoch():
    engine, data = echo(), batches()
    accuracy = Accuracy()
    accuracy.attach(engine, "accuracy")
    seen = history(engine, "accuracy", Events.EPOCH_COMPLETED)
    engine.run(data, max_epochs=2)
    assert seen == [accuracy_of(data)] * 2
    assert accuracy.compute() == seen[0]
    assert type(seen[0]) is float


@pytest.mark.parametrize(
    ("usage", "event", "expected"),
    [
        (EpochWise(), Events.EPOCH_COMPLETED, [6.0, 6.0]),
        ("epoch_wise", Events.EPOCH_COMPLETED, [6.0, 6.0]),
        (BatchWise(), Events.ITERATION_COMPLETED, [1.0, 2.0, 3.0] * 2),
        ("batch_wise", Events.ITERATION_COMPLETED, [1.0, 2.0, 3.0] * 2),
        (RunningBatchWise(), Events.ITERATION_COMPLETED, [1.0, 3.0, 6.0, 7.0, 9.0, 12.0]),
        ("running_batch_wise", Events.ITERATION_COMPLETED, [1.0, 3.0, 6.0, 7.0, 9.0, 12.0]),
        (SingleEpochRunningBatchWise(), Events.ITERATION_COMPLETED, [1.0, 3.0, 6.0] * 2),
        (RunningEpochWise(), Events.EPOCH_COMPLETED, [3.0, 6.0]),
        (BatchFiltered(every=2), Events.EPOCH_COMPLETED, [2.0, 4.0]),
        (
            MetricUsage(Events.STARTED, Events.COMPLETED, Events.ITERATION_COMPLETED(once=2)),
            Events.COMPLETED,
            [2.0],
        ),
    ],
)
def test_a_usage_says_when(usage, event, expected):
    engine = echo()
    Total().attach(engine, "total", usage)
    seen = history(engine, "total", event)
    engine.run([1.0, 2.0, 3.0], max_epochs=2)
    assert seen == expected


def test_a_usage_may_have_events_of_the_users_own():
    class Step(EventEnum):
        TAKEN = "step_taken"

    def step(engine, batch):
        engine.state.output = batch
        engine.fire_event(Step.TAKEN)
        engine.fire_event(Step.TAKEN)
        return batch

    engine = Engine(step)
    engine.register_events(*Step)
    Total().attach(engine, "total", MetricUsage(Events.STARTED, Events.COMPLETED, Step.TAKEN))
    assert engine.run([1.0, 2.0]).metrics["total"] == 6.0


def test_usages_are_equal_by_their_events():
    assert EpochWise() == EpochWise()
    assert EpochWise() != BatchWise()
    assert BatchFiltered(every=2) == BatchFiltered(every=2)
    assert BatchFiltered(every=2) != BatchFiltered(every=3)
    assert len({BatchFiltered(every=2), BatchFiltered(every=2), EpochWise()}) == 2
    assert "epoch_completed" in repr(EpochWise())
    with pytest.raises(ValueError, match="unknown usage 'epochwise'; expected one of epoch_wise"):
        Accuracy().attach(echo(), "accuracy", "epochwise")
    with pytest.raises(TypeError, match="usage must be a MetricUsage or the name of one, got 3"):
        Accuracy().attach(echo(), "accuracy", 3)


def test_detached_metrics_are_no_longer_computed():
    engine, data = echo(), batches()
    accuracy, loss = Accuracy(), Loss(nn.functional.cross_entropy)
    for usage in (EpochWise(), BatchFiltered(every=2), "batch_wise"):
        assert not accuracy.is_attached(engine, usage)
        accuracy.detach(engine, usage)
        accuracy.attach(engine, "accuracy", usage)
        loss.attach(engine, "loss", usage)
        assert accuracy.is_attached(engine, usage)
        accuracy.detach(engine, usage)
        assert not accuracy.is_attached(engine, usage)
        assert loss.is_attached(engine, usage)
        assert set(engine.run(data).metrics) >= {"loss"}
        assert "accuracy" not in engine.state.metrics
        loss.detach(engine, usage)
    assert list(engine.handlers()) == []


def test_a_metric_may_have_several_names():
    engine, data = echo(), batches()
    accuracy = Accuracy()
    for name in ("a", "b"):
        accuracy.attach(engine, name)
    metrics = engine.run(data).metrics
    assert metrics["a"] == metrics["b"] == accuracy_of(data)
    accuracy.detach(engine)
    assert not accuracy.is_attached(engine)


def test_a_second_engine_gets_a_copy_with_a_state_of_its_own():
    accuracy, loss = Accuracy(), Loss(nn.CrossEntropyLoss())
    first, second = batches(seed=1), batches(seed=2)
    model = nn.Identity()
    evaluator = create_supervised_evaluator(model, {"accuracy": accuracy, "loss": loss})
    train_evaluator = create_supervised_evaluator(model, {"accuracy": accuracy, "loss": loss})
    f1 = Fbeta(1.0)
    for engine in (evaluator, train_evaluator):
        f1.attach(engine, "f1")
    # One runs while the other is in its midst.
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED(once=2), lambda: train_evaluator.run(second)
    )
    evaluator.run(first)
    for engine, data in ((evaluator, first), (train_evaluator, second)):
        assert engine.state.metrics["accuracy"] == accuracy_of(data)
        own = Fbeta(1.0)
        for batch in data:
            own.update(batch)
        assert engine.state.metrics["f1"] == own.compute()
    assert accuracy.compute() == accuracy_of(first)
    for metric in (accuracy, loss, f1):
        assert metric.is_attached(evaluator)
        assert metric.is_attached(train_evaluator)
        metric.detach(train_evaluator)
        assert metric.is_attached(evaluator)
        assert not metric.is_attached(train_evaluator)


def test_two_usages_of_one_engine_do_not_mix():
    engine, data = echo(), batches()
    accuracy = Accuracy()
    accuracy.attach(engine, "epoch")
    accuracy.attach(engine, "batch", BatchWise())
    engine.run(data)
    assert engine.state.metrics["epoch"] == accuracy_of(data)
    assert engine.state.metrics["batch"] == accuracy_of(data[-1:])


def test_a_metric_is_free_again_when_its_engine_is_gone():
    accuracy = Accuracy()
    engine = echo()
    accuracy.attach(engine, "accuracy")
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
    engine, data = echo(), batches()
    accuracy.attach(engine, "accuracy")
    engine.run(data)
    assert accuracy.compute() == accuracy_of(data)


def test_composed_metrics_are_computed_from_parts_that_are_updated_once():
    updates = []

    class Spy(Precision):
        def update(self, output):
            updates.append(self)
            super().update(output)

    engine, data = echo(), batches()
    precision, recall = Spy(average=False), Recall(average=False)
    f1 = (precision * recall * 2 / (precision + recall)).mean()
    f1.attach(engine, "f1")
    precision.attach(engine, "precision")
    (1 - f1).attach(engine, "rest")
    engine.run(data)
    assert len(updates) == len(data)
    p, r = precision.compute(), recall.compute()
    expected = (p * r * 2 / (p + r)).mean().item()
    assert engine.state.metrics["f1"] == pytest.approx(expected)
    assert engine.state.metrics["rest"] == pytest.approx(1 - expected)
    assert not recall.is_attached(engine)
    precision.detach(engine)
    assert f1.is_attached(engine)
    recall.detach(engine)
    assert not f1.is_attached(engine)


def test_a_part_that_is_detached_takes_what_is_composed_of_it_along():
    engine = echo()
    precision = Precision(average=False)
    mean = precision.mean()
    mean.attach(engine, "mean")
    assert mean.is_attached(engine)
    assert not precision.is_attached(engine)
    precision.detach(engine)
    assert not mean.is_attached(engine)


def count_calls(monkeypatch, where):
    calls = []
    module, _, name = where.rpartition(".")
    module = __import__(module, fromlist=[name])
    function = getattr(module, name)

    def counted(*args, **kwargs):
        calls.append(name)
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_metrics_that_need_the_same_counts_share_them(monkeypatch):
    engine, data = echo(), batches()
    precision, recall = Precision(average=False), Recall(average=False)
    metrics = {
        "precision": Precision(average=True),
        "recall": Recall(average="weighted"),
        "fbeta": Fbeta(2.0),
        "f1": (precision * recall * 2 / (precision + recall)).mean(),
        "accuracy": Accuracy(),
        "group": MetricGroup({"more": Recall(average="micro")}),
        "matrix": ConfusionMatrix(3),
    }
    expected = {}
    for name, metric in metrics.items():
        for batch in data:
            metric.update(batch)
        expected[name] = metric.compute()
        metric.attach(engine, name)
    counts = count_calls(monkeypatch, "cookfire.metrics._class_counts.count_pairs")
    argmaxes = count_calls(monkeypatch, "cookfire.metrics._class_counts.predict_classes")
    engine.run(data, max_epochs=2)
    assert len(counts) == len(argmaxes) == 2 * len(data)
    matrix = engine.state.metrics.pop("matrix")
    assert torch.equal(matrix, expected.pop("matrix"))
    for name, value in expected.items():
        assert engine.state.metrics[name] == pytest.approx(value)


def test_other_settings_are_not_shared():
    engine = echo()
    data = [(torch.randint(0, 2, (6, 3)), torch.randint(0, 2, (6, 3))) for _ in range(3)]

    def negated(output):
        return 1 - output[0], output[1]

    metrics = {
        "plain": Precision(),
        "multilabel": Precision(is_multilabel=True),
        "samples": Recall(is_multilabel=True, average="samples"),
        "other": Recall(output_transform=negated),
    }
    for name, metric in metrics.items():
        metric.attach(engine, name)
    engine.run(data)
    for name, metric in metrics.items():
        alone = type(metric)(average=metric._average, is_multilabel=metric._is_multilabel)
        for batch in data:
            alone.update(negated(batch) if name == "other" else batch)
        value = torch.as_tensor(engine.state.metrics[name], dtype=torch.float64)
        assert torch.equal(value, torch.as_tensor(alone.compute(), dtype=torch.float64)), name


def test_what_was_shared_goes_on_by_itself_after_detaching():
    engine, data = echo(), batches()
    precision, recall = Precision(average=True), Recall(average=True)
    precision.attach(engine, "precision")
    recall.attach(engine, "recall")
    engine.run(data)
    before = recall.compute()
    precision.detach(engine)
    precision.reset()
    assert recall.compute() == before
    with pytest.raises(NotComputableError):
        precision.compute()
    engine.run(data[:1])
    assert recall.compute() == engine.state.metrics["recall"]
    recall.detach(engine)
    precision.update(data[0])
    assert precision.compute() > 0


def test_overridden_handlers_are_called():
    calls = []

    class Loud(Total):
        def started(self, engine):
            calls.append("started")
            super().started(engine)

        def iteration_completed(self, engine):
            calls.append("iteration_completed")
            super().iteration_completed(engine)

        def completed(self, engine, name):
            calls.append(name)
            super().completed(engine, name)

    engine = echo()
    Loud().attach(engine, "total")
    engine.run([1.0, 2.0])
    assert calls == ["started", "iteration_completed", "iteration_completed", "total"]
    assert engine.state.metrics["total"] == 3.0


def test_updates_in_an_engine_do_not_build_a_graph():
    engine = echo()
    Total(output_transform=lambda y: y.sum()).attach(engine, "total")
    modes = []

    class Spy(Total):
        def update(self, output):
            modes.append(torch.is_grad_enabled())

    Spy().attach(engine, "spy", BatchWise())
    with pytest.raises(NotComputableError):
        engine.run([torch.ones(2, requires_grad=True) * 2])
    assert modes == [False]


def test_an_epoch_without_data_for_a_metric_says_so():
    engine = echo()
    Total().attach(engine, "total", BatchFiltered(every=5))
    with pytest.raises(NotComputableError, match="Total can't be computed"):
        engine.run([1.0])
