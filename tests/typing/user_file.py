"""A user's file, as strict as a type checker can be: nothing that our signatures promise is Any.

``assert_type`` refuses Any where a type was promised. What is Any on purpose has no assertion: what
steps take and return (``state.batch``, ``state.output``), and metrics that may be anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from cookfire import distributed as idist
from cookfire.engine import (
    CallableEventWithFilter,
    Engine,
    EventEnum,
    Events,
    EventsList,
    RemovableEventHandle,
    State,
    create_supervised_evaluator,
    create_supervised_trainer,
)
from cookfire.engine.deterministic import DeterministicEngine
from cookfire.engine.utils import convert_tensor
from cookfire.handlers import (
    Checkpoint,
    CosineAnnealingScheduler,
    DiskSaver,
    EarlyStopping,
    EMAHandler,
    FastaiLRFinder,
    ModelCheckpoint,
    PiecewiseLinear,
    ProgressBar,
    RunState,
    TableLogger,
    TerminateOnNan,
    Timer,
    export_weights,
    global_step_from_engine,
    load_weights,
)
from cookfire.metrics import (
    Accuracy,
    Average,
    ConfusionMatrix,
    Fbeta,
    Loss,
    MeanSquaredError,
    Metric,
    MetricsLambda,
    Precision,
    Recall,
    RootMeanSquaredError,
    RunningAverage,
)
from cookfire.metrics.clustering import SilhouetteScore
from cookfire.metrics.metric import reinit__is_reduced, sync_all_reduce
from cookfire.metrics.regression import R2Score, SpearmanRankCorrelation

Pair = tuple[Tensor, Tensor]


class Backward(EventEnum):
    """Events of one's own."""

    STARTED = "started"
    DONE = "done"


class Largest(Metric):
    """A metric of one's own."""

    def reset(self) -> None:
        """Forget."""
        self.value = torch.tensor(0.0)

    @reinit__is_reduced
    def update(self, output: Pair) -> None:
        """See a batch."""
        self.value = torch.maximum(self.value, output[0].max())

    @sync_all_reduce("value:MAX")
    def compute(self) -> float:
        """Return it."""
        return float(self.value)


def events(engine: Engine) -> None:
    """Compose events, and attach handlers in each way."""
    assert_type(Events.EPOCH_COMPLETED(every=2), CallableEventWithFilter)
    assert_type(Events.STARTED | Backward.DONE, EventsList)
    assert_type(Events.STARTED(once=1) | Events.COMPLETED, EventsList)
    assert_type(engine.register_events(*Backward), None)

    @engine.on(Events.EPOCH_COMPLETED | Backward.DONE)
    def show(engine: Engine) -> int:
        return engine.state.epoch

    assert_type(show(engine), int)  # a decorated handler is what it was

    @engine.on(Events.ITERATION_COMPLETED(event_filter=lambda engine, count: count > 3))
    def without_arguments() -> None:
        pass

    handle = engine.add_event_handler(Events.COMPLETED, show)
    assert_type(handle, RemovableEventHandle)
    assert_type(handle.remove(), None)
    with engine.add_event_handler(Events.STARTED, without_arguments) as handle:
        assert_type(handle, RemovableEventHandle)
    assert_type(engine.has_event_handler(show, Events.COMPLETED), bool)
    assert_type(engine.fire_event(Backward.STARTED), None)


def steps() -> None:
    """Write steps: they know whose they are."""
    Engine(lambda engine, batch: assert_type(engine, Engine).state.epoch + batch)
    DeterministicEngine(lambda engine, batch: assert_type(engine, DeterministicEngine).state.epoch)
    assert_type(convert_tensor((torch.ones(1), "name"), "cpu"), tuple[Tensor, str])


def state(engine: Engine) -> None:
    """Read a run's state."""
    found = engine.run([torch.zeros(1)], max_epochs=2)
    assert_type(found, State)
    assert_type(engine.state, State)
    assert_type(found.iteration, int)
    assert_type(found.epoch, int)
    assert_type(found.epoch_length, int | None)
    assert_type(found.times, dict[str, float | None])
    assert_type(found.get_event_attrib_value(Events.EPOCH_COMPLETED), int)
    assert_type(engine.state_dict(), dict[str, Any])
    assert_type(engine.terminate(), None)


def metrics(model: nn.Module) -> dict[str, Metric]:
    """Compute, compose and nest metrics."""
    precision, recall = Precision(average=False), Recall(average=False)
    f1 = precision * recall * 2 / (precision + recall + 1e-20)
    assert_type(f1, MetricsLambda)
    assert_type(f1.mean(), MetricsLambda)
    assert_type(precision[0], MetricsLambda)
    assert_type(1 - precision, MetricsLambda)
    assert_type(-(precision**2), MetricsLambda)
    assert_type(MetricsLambda(lambda one, other: one + other, precision, recall), MetricsLambda)

    output = (torch.eye(3), torch.arange(3))
    accuracy, error = Accuracy(), MeanSquaredError()
    assert_type(accuracy.update(output), None)
    assert_type(accuracy.compute(), float | Tensor)
    error.update((torch.ones(3), torch.zeros(3)))
    assert_type(error.compute(), float | Tensor)
    largest = Largest()
    largest.update(output)
    assert_type(largest.compute(), float)
    for metric in (RootMeanSquaredError(), R2Score()):
        metric.update((torch.arange(3.0), torch.arange(3.0)))
        assert_type(metric.compute(), float | Tensor)
    rank_correlation, silhouette = SpearmanRankCorrelation(), SilhouetteScore()
    rank_correlation.update((torch.arange(3.0), torch.arange(3.0)))
    assert_type(rank_correlation.compute(), float)
    silhouette.update((torch.arange(4.0).reshape(4, 1), torch.arange(4) // 2))
    assert_type(silhouette.compute(), float)
    assert_type(accuracy.reset(), None)
    assert_type(accuracy.state_dict(), dict[str, Any])
    assert_type(accuracy.attach(Engine(lambda engine, batch: batch), "accuracy"), None)
    return {
        "accuracy": accuracy,
        "loss": Loss(nn.CrossEntropyLoss()),
        "f1": f1,
        "confusion": ConfusionMatrix(3),
        "fbeta": Fbeta(1.0),
        "largest": largest,
    }


def handlers(
    trainer: Engine, evaluator: Engine, model: nn.Module, optimizer: Optimizer, folder: Path
) -> RunState:
    """Attach what a training usually has."""
    saver = DiskSaver(folder / "saved", require_empty=False)
    best = Checkpoint(
        {"model": model},
        saver,
        n_saved=2,
        score_name="accuracy",
        global_step_transform=global_step_from_engine(trainer),
    )
    assert_type(evaluator.add_event_handler(Events.COMPLETED, best), RemovableEventHandle)
    assert_type(best.last_checkpoint, str | Path | None)
    assert_type(best.state_dict(), dict[str, Any])
    ModelCheckpoint(folder / "models", "best", require_empty=False)
    EarlyStopping(3, lambda engine: engine.state.metrics["accuracy"], trainer).attach(evaluator)
    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    Average().attach(trainer, "mean")
    EMAHandler(model).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=2))
    assert_type(Timer().attach(trainer), Timer)
    assert_type(Timer().value(), float)
    schedule = PiecewiseLinear(optimizer, "lr", [(0, 0.1), (10, 0.0)])
    trainer.add_event_handler(Events.ITERATION_STARTED, schedule)
    cosine = CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, cycle_size=10)
    assert_type(cosine.get_param(), float)
    assert_type(FastaiLRFinder().get_results(), dict[str, list[Any]])
    progress = ProgressBar(disable=True)
    assert_type(progress.attach(trainer, ["loss"]), None)
    assert_type(progress.log_message("text"), None)
    with TableLogger(folder / "curves.tsv") as table:
        assert_type(table, TableLogger)
        table.attach_output_handler(
            evaluator,
            Events.COMPLETED,
            tag="test",
            metric_names=["accuracy", "loss"],
            global_step_transform=global_step_from_engine(trainer),
        )
    run_state = RunState(trainer, model=model, optimizer=optimizer)
    assert_type(run_state.state_dict(), dict[str, Any])
    assert_type(export_weights(model, folder / "weights.safetensors"), None)
    load_weights(model, folder / "weights.safetensors")
    return run_state


def processes() -> None:
    """Ask about processes, and let them talk."""
    assert_type(idist.device(), torch.device)
    assert_type(idist.get_rank(), int)
    assert_type(idist.get_world_size(), int)
    assert_type(idist.backend(), str | None)
    assert_type(idist.all_reduce(torch.ones(2)), Tensor)
    assert_type(idist.all_reduce(1.5, op="MAX"), float)
    assert_type(idist.all_gather(torch.ones(2)), Tensor)
    assert_type(idist.all_gather("text"), list[str])
    assert_type(idist.all_gather({"a": 1}), list[dict[str, int]])
    assert_type(idist.broadcast(torch.ones(1), src=0), Tensor)
    assert_type(idist.barrier(), None)
    assert_type(idist.derive_seed(0, 1, 2), int)

    @idist.one_rank_only()
    def said(text: str) -> str:
        return text

    assert_type(said("text"), str | None)  # None on the other ranks
    with idist.one_rank_first():
        pass


def training(local_rank: int, folder: Path) -> float:
    """Train: what :meth:`Parallel.run` calls."""
    data = [(torch.randn(4), index % 3) for index in range(32)]
    loader = idist.auto_dataloader(data, batch_size=8, shuffle=True)
    assert_type(loader, DataLoader[Any])  # collate_fn may make anything of the items
    model = idist.auto_model(nn.Linear(4, 3))
    optimizer = idist.auto_optim(torch.optim.SGD(model.parameters(), lr=0.1))
    assert_type(model, nn.Module)
    assert_type(optimizer, torch.optim.SGD)  # what it was
    trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    evaluator = create_supervised_evaluator(model, metrics(model))
    assert_type(trainer, Engine)
    assert_type(evaluator, Engine)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(loader))
    handlers(trainer, evaluator, model, optimizer, folder)
    trainer.run(loader, max_epochs=2)
    accuracy: float = evaluator.state.metrics["accuracy"]
    return accuracy


def main(folder: Path) -> None:
    """Do all of it."""
    events(Engine(lambda engine, batch: None))
    steps()
    state(DeterministicEngine(lambda engine, batch: None))
    processes()
    with idist.Parallel() as parallel:
        assert_type(parallel, idist.Parallel)
        assert_type(parallel.run(training, folder), None)
