"""The usual handlers of a training in one call."""

from __future__ import annotations

import builtins
import copy
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ignite.contrib.engines.common
import ignite.engine
import ignite.metrics
import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from cookfire.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from cookfire.handlers import Checkpoint, EarlyStopping, LRScheduler, common
from cookfire.handlers import logger_utils as logging_setup
from cookfire.metrics import Accuracy
from tests.handlers.helpers import Memory, checkpoints, classification, engine_at, model
from tests.handlers.ranks import use_common_handlers


def introduce(
    engine: Any, accuracy: Any, helpers: Any, folder: Path, pieces: tuple[Any, ...]
) -> Any:
    """Run the introduction's helpers, ours or ignite's."""
    train_data, val_data, net = copy.deepcopy(pieces)
    sgd = SGD(net.parameters(), lr=0.01)
    schedule = lr_scheduler.StepLR(sgd, step_size=10, gamma=0.88)
    trainer = engine.create_supervised_trainer(net, sgd, nn.CrossEntropyLoss())
    evaluator = engine.create_supervised_evaluator(net, metrics={"accuracy": accuracy()})
    trainer.add_event_handler(
        engine.Events.EPOCH_COMPLETED, lambda _: evaluator.run(val_data) and None
    )
    helpers.setup_common_training_handlers(
        trainer=trainer,
        to_save={"trainer": trainer, "model": net, "optimizer": sgd, "lr_scheduler": schedule},
        output_path=str(folder / "checkpoints"),
        save_every_iters=10,
        lr_scheduler=schedule,
        output_names=["batch loss"],
        with_pbars=False,
    )
    helpers.save_best_model_by_val_score(
        str(folder / "best_models"), evaluator=evaluator, model=net, metric_name="accuracy",
        n_saved=2, trainer=trainer, tag="val",
    )  # fmt: skip
    trainer.run(train_data, max_epochs=5)
    files = checkpoints(folder / "checkpoints"), checkpoints(folder / "best_models")
    weights = {name: value.tolist() for name, value in net.state_dict().items()}
    return files, weights, sgd.param_groups[0]["lr"], trainer.state.metrics


def test_files_weights_and_metrics_are_those_of_ignite(tmp_path: Path) -> None:
    pieces = classification()
    ours = introduce(
        importlib.import_module("cookfire.engine"), Accuracy, common, tmp_path / "ours", pieces
    )
    theirs = introduce(
        ignite.engine, ignite.metrics.Accuracy, ignite.contrib.engines.common,
        tmp_path / "theirs", pieces,
    )  # fmt: skip
    assert ours[0] == theirs[0]
    assert ours[0][0] == ["training_checkpoint_50.pt"]
    assert len(ours[0][1]) == 2
    assert ours[1:3] == theirs[1:3]
    assert ours[3] == pytest.approx(theirs[3])


def test_the_checkpoint_continues_the_run(tmp_path: Path) -> None:
    train_data, _, net = classification()
    losses: list[list[float]] = []
    for start in (net, net):
        twin = copy.deepcopy(start)
        sgd = SGD(twin.parameters(), lr=0.1, momentum=0.9)
        schedule = lr_scheduler.ExponentialLR(sgd, 0.9)
        trainer = create_supervised_trainer(twin, sgd, nn.CrossEntropyLoss())
        to_save = {"trainer": trainer, "model": twin, "optimizer": sgd, "schedule": schedule}
        seen: list[float] = []
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda engine, seen: seen.append(float(engine.state.output)),
            seen,
        )
        common.setup_common_training_handlers(
            trainer, to_save=to_save, output_path=str(tmp_path), save_every_iters=7,
            lr_scheduler=schedule, with_pbars=False, n_saved=None,
        )  # fmt: skip
        if losses:
            Checkpoint.load_objects(to_save, tmp_path / "training_checkpoint_14.pt")
        trainer.run(train_data, max_epochs=2)
        losses.append(seen)
    assert losses[1] == losses[0][14:]


def one_step(output: Any, **arguments: Any) -> dict[str, Any]:
    trainer = Engine(lambda *_: output)
    common.setup_common_training_handlers(trainer, with_pbars=False, **arguments)
    return trainer.run([0] * 3).metrics


def test_outputs_are_named_by_key_or_in_order() -> None:
    names = ["a", "b"]
    assert one_step({"b": 2.0, "a": 1.0, "c": 0.0}, output_names=names) == {"a": 1.0, "b": 2.0}
    assert one_step([1.0, torch.tensor(2.0)], output_names=names) == {"a": 1.0, "b": 2.0}
    assert one_step(torch.tensor(1.0), output_names=["a"]) == {"a": 1.0}
    assert one_step(1, output_names=iter(["a"])) == {"a": 1.0}


@pytest.mark.parametrize(
    ("output", "error", "words"),
    [
        ({"loss": 1.0, "acc": 1.0}, ValueError, "no 'a'; it has 'loss', 'acc'"),
        ([], ValueError, "'a' is number 1, but the step's output has 0 items"),
        ("text", TypeError, "must be a number, a tensor, or a dict or list of them, got str"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_an_output_that_is_not_there_is_said(
    output: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        one_step(output, output_names=["a"])


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"to_save": {"model": model()}}, ValueError, "to_save needs a place"),
        (
            {"to_save": {"model": model()}, "output_path": str(tmp_path), "save_handler": Memory()},
            ValueError,
            "output_path or save_handler, not both",
        ),
        ({"lr_scheduler": 3}, TypeError, "a scheduler of torch or a handler, got int"),
        ({"train_sampler": 3}, TypeError, r"must have set_epoch\(\).*int has none"),
        ({"output_names": "loss"}, TypeError, "a list of names, got the string 'loss'"),
    ]
    for arguments, error, words in cases:
        with pytest.raises(error, match=words):
            one_step(0.0, **arguments)


def test_nan_stops_the_run_unless_it_is_not_to() -> None:
    for stop, iterations in ((True, 1), (False, 3)):
        trainer = Engine(lambda *_: float("nan"))
        common.setup_common_training_handlers(trainer, stop_on_nan=stop, with_pbars=False)
        assert trainer.run([0] * 3).iteration == iterations


def test_savers_of_all_kinds_take_the_checkpoints() -> None:
    saver, names = Memory(), []

    def remember(checkpoint: Any, filename: str) -> None:
        names.append(filename)

    handlers: list[Any] = [saver, remember]
    for handler in handlers:
        one_step(
            0.0, to_save={"model": model()}, save_every_iters=2, save_handler=handler,
            filename_prefix="run",
        )  # fmt: skip
    assert list(saver.files) == names == ["run_model_2.pt"]


@pytest.mark.parametrize("kind", ["of torch", "before", "after", "a function"])
def test_a_schedule_of_any_kind_gives_the_values_of_a_plain_loop(kind: str) -> None:
    sgd = SGD([torch.zeros(1)], lr=1.0)
    values = []

    def step(*_: Any) -> float:
        values.append(sgd.param_groups[0]["lr"])
        sgd.step()
        return 0.0

    def by_hand(engine: Engine) -> None:
        sgd.param_groups[0]["lr"] = 0.5 ** (engine.state.iteration - 1)

    schedule: Any = None if kind == "a function" else lr_scheduler.ExponentialLR(sgd, 0.5)
    trainer = Engine(step)
    handlers = {
        "of torch": schedule,
        "before": schedule and LRScheduler(schedule),
        "after": schedule and LRScheduler(schedule, use_legacy=True),
        "a function": by_hand,
    }
    common.setup_common_training_handlers(trainer, lr_scheduler=handlers[kind], with_pbars=False)
    trainer.run([0] * 2, max_epochs=2)
    assert values == [1.0, 0.5, 0.25, 0.125]


def test_a_sampler_is_told_the_epoch() -> None:
    class Sampler:
        epochs: list[int] = []  # noqa: RUF012 - one test, one list

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    trainer = Engine(lambda *_: 0.0)
    common.setup_common_training_handlers(trainer, train_sampler=Sampler(), with_pbars=False)
    trainer.run([0], max_epochs=3)
    assert Sampler.epochs == [0, 1, 2]


def test_bars_show_epochs_and_iterations(capsys: pytest.CaptureFixture[str]) -> None:
    for on_iterations in (True, False):
        trainer = Engine(lambda *_: 2.0)
        common.setup_common_training_handlers(
            trainer, output_names=["loss"], with_pbar_on_iters=on_iterations, log_every_iters=1
        )
        trainer.run([0] * 4, max_epochs=2)
        text = "".join(capsys.readouterr())
        assert "[2/2]" in text
        assert ("loss=2" in text) is on_iterations
        assert ("[4/4]" in text) is on_iterations


def test_gpu_stats_need_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="GpuInfo needs a CUDA GPU"):
        one_step(0.0, with_gpu_stats=True)


def test_gpu_stats_become_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    class Info:
        def attach(self, engine: Engine, event_name: Any) -> None:
            engine.add_event_handler(event_name, self.read)

        def read(self, engine: Engine) -> None:
            engine.state.metrics["gpu:0 mem(%)"] = 75

    monkeypatch.setattr(common, "GpuInfo", Info)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert one_step(0.0, with_gpu_stats=True, log_every_iters=2) == {"gpu:0 mem(%)": 75}


def test_gpu_memory_is_returned_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))
    for available in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        one_step(0.0)
        one_step(0.0, clear_cuda_cache=False)
    assert calls == ["emptied"]


# --- best models and early stopping


def test_best_models_may_be_several_and_a_loss_counts_downwards(tmp_path: Path) -> None:
    evaluator = engine_at(Loss=0.5)
    both = {"generator": model(), "critic": model()}
    checkpoint = common.save_best_model_by_val_score(
        str(tmp_path), evaluator, both, "Loss", n_saved=1, score_sign=-1.0
    )
    saver = Memory()
    other = common.gen_save_best_models_by_val_score(saver, evaluator, model(), "Loss", tag="dev")
    for loss in (0.5, 0.25, 0.75):
        evaluator.run([0])
        evaluator.state.metrics["Loss"] = loss
        evaluator.fire_event(Events.COMPLETED)
    assert checkpoints(tmp_path) == ["best_checkpoint_val_loss=-0.2500.pt"]
    assert checkpoint.n_saved == 1
    assert other.n_saved == 3
    assert "best_model_dev_loss=0.7500.pt" in saver.files


def test_early_stopping_by_a_metric_stops_the_trainer() -> None:
    trainer, evaluator = engine_at(), engine_at()
    losses = iter([3.0, 2.0, 2.5, 2.25, 1.0])
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: evaluator.state.metrics.update(loss=next(losses))
    )
    stopping = common.add_early_stopping_by_val_score(2, evaluator, trainer, "loss", -1.0)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    trainer.run([0], max_epochs=9)
    assert isinstance(stopping, EarlyStopping)
    assert trainer.state.epoch == 4
    assert stopping.best_score == -2.0


def test_a_score_has_a_sign() -> None:
    with pytest.raises(ValueError, match=r"score_sign must be 1\.0 or -1\.0, got 2\.0"):
        common.get_default_score_fn("loss", 2.0)


# --- all of them


@pytest.mark.parametrize("name", common.__all__)
def test_signatures_are_those_of_ignite(name: str) -> None:
    ours, theirs = (
        {
            parameter.name: (parameter.kind, parameter.default)
            for parameter in inspect.signature(getattr(module, name)).parameters.values()
        }
        for module in (common, ignite.contrib.engines.common)
    )
    assert ours == theirs


def test_importing_the_helpers_imports_no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = []
    original = builtins.__import__

    def watch(name: str, *args: Any, **kwargs: Any) -> Any:
        imported.append(name.split(".")[0])
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watch)
    for module in (common, logging_setup):
        importlib.reload(module)
    monkeypatch.undo()
    assert not {"mlflow", "tensorboard", "matplotlib"}.intersection(imported)


def test_two_ranks_use_the_common_handlers(
    tmp_path: Path, processes: Callable[..., list[Any]]
) -> None:
    first, second = processes(2, use_common_handlers, str(tmp_path))
    assert first == second
    assert first["files"] == ["training_checkpoint_6.pt"]
    assert first["best"] == [
        "best_model_1_val_score=1.0000.pt", "best_model_2_val_score=2.0000.pt",
    ]  # fmt: skip


def test_a_supervised_evaluator_saves_its_best_models(tmp_path: Path) -> None:
    _, val_data, net = classification()
    evaluator = create_supervised_evaluator(net, metrics={"accuracy": Accuracy()})
    common.save_best_model_by_val_score(str(tmp_path), evaluator, net, "accuracy")
    evaluator.run(val_data)
    accuracy = evaluator.state.metrics["accuracy"]
    assert checkpoints(tmp_path) == [f"best_model_val_accuracy={accuracy:.4f}.pt"]
