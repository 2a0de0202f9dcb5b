"""What a strict type checker must refuse.

``warn_unused_ignores`` makes this a test: a line that the checker lets pass has an unused ignore.
"""

from __future__ import annotations

from typing import assert_type

import torch
from torch import Tensor, nn

from cookfire import distributed as idist
from cookfire.engine import Engine, EventEnum, Events, create_supervised_trainer
from cookfire.handlers import (
    Checkpoint,
    DiskSaver,
    EarlyStopping,
    FastaiLRFinder,
    PiecewiseLinear,
    ProgressBar,
    Timer,
)
from cookfire.metrics import Accuracy, ConfusionMatrix, Metric, Precision, RunningAverage

engine = Engine(lambda engine, batch: batch)
model = nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

# What is Any is no int: so assert_type finds what leaks.
assert_type(engine.state.output, int)  # type: ignore[assert-type]

# A step takes the engine and a batch; a run, data and counts.
Engine(lambda batch: batch)  # type: ignore[arg-type, misc]
Engine(3)  # type: ignore[arg-type]
Engine(lambda engine, batch: engine.stat)  # type: ignore[attr-defined]
engine.run([1], max_epochs="2")  # type: ignore[arg-type]
engine.run(3)  # type: ignore[arg-type]
engine.run([1], epochs=2)  # type: ignore[call-arg]

# Events are members of an EventEnum, with filters that exist.
engine.add_event_handler(3, print)  # type: ignore[arg-type]
engine.on(Events.EPOCH_COMPLETE)  # type: ignore[attr-defined]
Events.EPOCH_COMPLETED(evry=2)  # type: ignore[call-arg]
Events.EPOCH_COMPLETED(every="2")  # type: ignore[arg-type]
engine.add_event_handler(Events.STARTED, "handler")  # type: ignore[arg-type]
engine.fire_event(Events.STARTED | Events.COMPLETED)  # type: ignore[arg-type]
_: str = engine.state.epoch  # type: ignore[assignment]
engine.state.epochs  # type: ignore[attr-defined]


class Own(EventEnum):
    """Events of one's own."""

    DONE = "done"


engine.register_events(*Own)
engine.fire_event(Own.OVER)  # type: ignore[attr-defined]

# Trainers want models, optimizers and losses, in this order.
create_supervised_trainer(optimizer, model, nn.CrossEntropyLoss())  # type: ignore[arg-type]
create_supervised_trainer(model, optimizer)  # type: ignore[call-arg]
create_supervised_trainer(model, optimizer, "cross entropy")  # type: ignore[arg-type]

# Metrics.
Accuracy(is_multilable=True)  # type: ignore[call-arg]
ConfusionMatrix()  # type: ignore[call-arg]
ConfusionMatrix("10")  # type: ignore[arg-type]
Accuracy().compute().item()  # type: ignore[union-attr]
Accuracy().attach("accuracy", engine)  # type: ignore[arg-type]
Precision().meen()  # type: ignore[attr-defined]
RunningAverage(alpha="0.9")  # type: ignore[arg-type]
(Precision() + 1).upper()  # type: ignore[attr-defined]
Metric()  # type: ignore[abstract]


class Unlike(Metric):
    """A metric whose update takes what no engine gives."""

    def reset(self, everything: bool) -> None:  # type: ignore[override]
        """Forget."""

    def update(self, y_pred: Tensor, y: Tensor) -> None:  # type: ignore[override]
        """See a batch."""

    def compute(self) -> float:
        """Return it."""
        return 0.0


# Handlers.
Checkpoint({"model": model})  # type: ignore[call-arg]
Checkpoint({"model": model}, DiskSaver("folder"), n_saved="2")  # type: ignore[arg-type]
EarlyStopping("3", lambda engine: 0.0, engine)  # type: ignore[arg-type]
EarlyStopping(3, lambda engine: 0.0, model)  # type: ignore[arg-type]
PiecewiseLinear(optimizer, "lr", [0.1, 0.0])  # type: ignore[list-item]
ProgressBar().attach(engine, metric_names=3)  # type: ignore[arg-type]
Timer().value() + "s"  # type: ignore[operator]
FastaiLRFinder().lr_suggestion() / 10  # type: ignore[operator]

# Processes.
idist.all_reduce("text")  # type: ignore[call-overload]
idist.all_gather(1) + 1  # type: ignore[operator]
idist.get_rank() + "1"  # type: ignore[operator]
idist.Parallel(nproc_per_node="2")  # type: ignore[arg-type]
idist.auto_model(optimizer)  # type: ignore[arg-type]
idist.auto_dataloader(3, batch_size=2)  # type: ignore[arg-type]


def training(local_rank: int, epochs: int) -> None:
    """Train."""


with idist.Parallel() as parallel:
    parallel.run(training)  # type: ignore[call-arg]
    parallel.run(training, "2")  # type: ignore[arg-type]
    parallel.run(training, epoch=2)  # type: ignore[call-arg]
