"""A training that is told to end, or killed: run as a process of its own and in the test's."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from cookfire.distributed import auto_dataloader
from cookfire.engine import Events, create_supervised_evaluator, create_supervised_trainer
from cookfire.handlers import CosineAnnealingScheduler, EarlyStopping, EMAHandler, RunState
from cookfire.metrics import Loss


def train(
    folder: Path, *, seed: int = 0, slowly: bool = False, kill_at: int | None = None
) -> list[Any]:
    """Train for 20 iterations, slowly enough to be told to end if wanted; return the weights."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    evaluator = create_supervised_evaluator(model, {"loss": Loss(nn.MSELoss())})
    CosineAnnealingScheduler(optimizer, "lr", 0.02, 0.0, 20).attach(trainer)
    average = EMAHandler(model, 0.1)
    average.attach(trainer)
    EarlyStopping(9, lambda engine: -engine.state.metrics["loss"], trainer).attach(evaluator)
    if slowly:
        trainer.add_event_handler(
            Events.ITERATION_STARTED(once=1), lambda: (folder / "begun").touch()
        )
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: time.sleep(0.1))
    run = RunState(trainer, model=model, optimizer=optimizer, evaluator=evaluator)
    run.keep(folder / "run", every=3)
    if kill_at is not None:
        trainer.add_event_handler(Events.ITERATION_STARTED(once=kill_at), die)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: evaluator.run(auto_dataloader(data, batch_size=20))
    )
    trainer.run(auto_dataloader(data, batch_size=4, shuffle=True), max_epochs=2)
    (folder / "after").touch()
    states = [*model.state_dict().values(), *average.ema_model.state_dict().values()]
    return [*(value.tolist() for value in states), evaluator.state.metrics["loss"]]


def train_slowly(folder: Path) -> None:
    """Be told to end."""
    torch.set_num_threads(1)
    train(folder, slowly=True)


def train_until(folder: Path, iteration: int) -> None:
    """Be killed."""
    torch.set_num_threads(1)
    train(folder, kill_at=iteration)


def die() -> None:
    """End as by a power failure."""
    os.kill(os.getpid(), signal.SIGKILL)
