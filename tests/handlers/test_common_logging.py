"""Loggers of a training in one call: the usual metrics, rates and tags."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import ignite.contrib.engines.common
import ignite.engine
import ignite.metrics
import pytest
import torch
from torch import nn
from torch.optim import SGD

from cookfire.engine import Events
from cookfire.handlers import BaseLogger, common
from cookfire.metrics import Accuracy
from tests.handlers.helpers import classification, engine_at


class Recorder(BaseLogger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[tuple[str, float, int]] = []

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        self.records += [(name, value, step) for name, value in scalars.items()]


def test_metrics_and_rates_go_to_a_logger() -> None:
    trainer, evaluator, second = engine_at(), engine_at(), engine_at()
    sgd, other = SGD([torch.zeros(1)], lr=0.5), SGD([torch.zeros(1)], lr=0.25)
    recorder = Recorder()
    common.setup_any_logging(
        recorder, None, trainer, {"main": sgd, "other": other},
        {"test": evaluator, "dev": second}, log_every_iters=2,
    )  # fmt: skip
    trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: engine.state.metrics.update(loss=1.0)
    )
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(acc=0.25)
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    trainer.run([0] * 2, max_epochs=2)
    expected = [
        record
        for step in (2, 4)
        for record in [
            ("main/lr", 0.5, step),
            ("other/lr", 0.25, step),
            ("training/loss", 1.0, step),
            ("test/acc", 0.25, step // 2),
        ]
    ]
    assert [(name.replace("/group_0", ""), *rest) for name, *rest in recorder.records] == expected


def test_one_evaluator_is_called_validation_and_every_iteration_can_be_logged() -> None:
    trainer, evaluator = engine_at(), engine_at()
    recorder = Recorder()
    common.setup_any_logging(recorder, None, trainer, None, evaluator, log_every_iters=1)
    trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: engine.state.metrics.update(loss=1.0)
    )
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(acc=0.5)
    )
    trainer.run([0] * 2)
    evaluator.run([0])
    assert recorder.records == [
        ("training/loss", 1.0, 1), ("training/loss", 1.0, 2), ("validation/acc", 0.5, 1),
    ]  # fmt: skip


def test_tensorboard_logs_the_same_tags_as_ignite(tmp_path: Path) -> None:
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    tags = []
    for engine, accuracy, helpers in [
        (importlib.import_module("cookfire.engine"), Accuracy, common),
        (ignite.engine, ignite.metrics.Accuracy, ignite.contrib.engines.common),
    ]:
        folder = tmp_path / helpers.__name__
        train_data, val_data, net = classification()
        sgd = SGD(net.parameters(), lr=0.01)
        trainer = engine.create_supervised_trainer(net, sgd, nn.CrossEntropyLoss())
        evaluator = engine.create_supervised_evaluator(net, metrics={"accuracy": accuracy()})
        trainer.add_event_handler(
            engine.Events.EPOCH_COMPLETED, lambda _, run, data: run(data) and None,
            evaluator.run, val_data,
        )  # fmt: skip
        helpers.setup_common_training_handlers(
            trainer, output_names=["batch loss"], with_pbars=False
        )
        logger = helpers.setup_tb_logging(str(folder), trainer, sgd, evaluator, log_every_iters=5)
        trainer.run(train_data, max_epochs=2)
        logger.close()
        events = reader.EventAccumulator(str(folder)).Reload()
        tags.append(
            {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        )
    assert tags[0] == tags[1]


def test_mlflow_logging_hands_its_settings_to_the_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    import cookfire.handlers.mlflow_logger as module

    class Settings(Recorder):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__()
            self.kwargs = kwargs

    monkeypatch.setattr(module, "MLflowLogger", Settings)
    trainer = engine_at(loss=1.0)
    logger: Any = common.setup_mlflow_logging(trainer, log_every_iters=1, run_name="first")
    trainer.run([0])
    assert logger.kwargs == {"run_name": "first"}
    assert isinstance(logger.records, list)


def test_wrong_optimizers_and_evaluators_are_refused() -> None:
    for optimizers, evaluators, words in [
        (3, None, "optimizers must be an Optimizer, or a dict of them, got int"),
        (None, {"val": 3}, "evaluators must be an Engine, or a dict of them, got int"),
    ]:
        with pytest.raises(TypeError, match=words):
            common.setup_any_logging(Recorder(), None, engine_at(), optimizers, evaluators, 1)
