"""A training that is told to end: run as a process of its own, and again in that of the test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from cookfire.distributed import auto_dataloader
from cookfire.engine import Events, create_supervised_trainer
from cookfire.handlers import (
    Checkpoint,
    CosineAnnealingScheduler,
    DiskSaver,
    EMAHandler,
    Preemption,
    RunState,
)


def train(folder: Path, *, slowly: bool = False, resume: bool = False) -> list[Any]:
    """Train for 20 iterations, slowly enough to be told to end if wanted; return the weights."""
    torch.manual_seed(3 if resume else 0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    CosineAnnealingScheduler(optimizer, "lr", 0.02, 0.0, 20).attach(trainer)
    EMAHandler(model, 0.1).attach(trainer)
    state = RunState(trainer, model=model, optimizer=optimizer)
    saver = DiskSaver(folder, require_empty=False)
    save = Checkpoint({"run": state}, saver, filename_pattern="run.pt")
    Preemption(save).attach(trainer)
    if slowly:
        trainer.add_event_handler(Events.STARTED, lambda: (folder / "begun").touch())
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: time.sleep(0.1))
    if resume:
        state.load_state_dict(torch.load(folder / "run.pt", weights_only=True))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator)
    loader = auto_dataloader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True)
    trainer.run(loader, max_epochs=2)
    (folder / "after").touch()
    return [value.tolist() for value in model.state_dict().values()]


def train_slowly(folder: Path) -> None:
    """Be told to end."""
    torch.set_num_threads(1)
    train(folder, slowly=True)
