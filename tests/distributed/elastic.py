"""A short training that torchrun starts, and starts again: it goes on from its last checkpoint.

    torchrun --nproc-per-node 2 --max-restarts 10 tests/distributed/elastic.py FOLDER NOISE PAUSE

Each step is noted in ``FOLDER/steps``, so that somebody can kill a process at any of them. While
there is a file ``FOLDER/alone``, a process that is alone waits for others.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers import Checkpoint, DiskSaver, RunState
from cookfire.handlers._files import save_file

EPOCHS, BATCHES, BATCH = 10, 7, 8


def data() -> TensorDataset:
    """Return 56 items of a function to learn."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(BATCHES * BATCH, 4, generator=generator)
    return TensorDataset(inputs, inputs.prod(1, keepdim=True))


def training(_: int, folder: Path, noise: float = 0.0, pause: float = 0.0) -> None:
    """Train to the end, from wherever the last checkpoint was made.

    Args:
        _: the local rank, of which nothing depends.
        folder: for checkpoints, steps and the result.
        noise: on the inputs, drawn by each process for itself.
        pause: seconds after each step, so that there is time to kill it.
    """
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    model = idist.auto_model(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    torch.manual_seed(idist.get_rank())  # noise of its own in each process

    def step(_: Engine, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        optimizer.zero_grad()
        loss = mse_loss(model(inputs + noise * torch.randn_like(inputs)), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    trainer = Engine(step)

    @trainer.on(Events.ITERATION_COMPLETED)
    def note(engine: Engine) -> None:
        with (folder / "steps").open("a") as file:
            file.write(f"{os.getpid()} {idist.get_rank()} {engine.state.iteration}\n")
        time.sleep(pause)
        while idist.get_world_size() == 1 and (folder / "alone").exists():
            time.sleep(0.05)

    state = RunState(trainer, model=model, optimizer=optimizer)
    saver = DiskSaver(folder / "states", require_empty=False)
    if any(saver.dirname.glob("*.pt")):
        Checkpoint.load_newest(saver.dirname, {"run": state})
    checkpoint = Checkpoint({"run": state}, saver, n_saved=2)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=3), lambda: checkpoint(trainer))
    loader = idist.auto_dataloader(data(), batch_size=BATCH, shuffle=True, seed=2)
    trainer.run(loader, max_epochs=EPOCHS)
    if idist.get_rank() == 0:
        save_file(net.state_dict(), folder / "model.pt")


def main(folder: Path, noise: float, pause: float) -> None:
    """Train as one of the processes that torchrun's agent started."""
    with idist.Parallel(backend="gloo") as parallel:
        parallel.run(training, folder, noise, pause)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
