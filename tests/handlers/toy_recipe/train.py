"""Train the toy: `python -m toy.train --profile tiny`."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from cookfire import distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from .config import Config, make_model


class Curve:
    """Writes each epoch's mean loss, and the weights with the lowest."""

    def __init__(self, run: recipe.Run, model: torch.nn.Module) -> None:
        self.run, self.model = run, model
        self.rows: list[float] = []
        self.losses: list[float] = []

    def add(self, engine: Engine) -> None:
        """Note one iteration's loss."""
        self.losses.append(float(engine.state.output))

    def close(self) -> None:
        """Write what the epoch gave."""
        self.rows.append(sum(self.losses) / len(self.losses))
        self.losses = []
        text = "".join(f"{at}\t{row!r}\n" for at, row in enumerate(self.rows))
        self.run.write("curves.tsv", lambda file: file.write(text.encode()))
        if self.rows[-1] == min(self.rows):
            self.run.save("best.pt", self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": self.rows, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the rows of an earlier process."""
        self.rows, self.losses = list(state["rows"]), list(state["losses"])


def train(config: Config, run: recipe.Run) -> dict[str, float]:
    """Train, and write model.pt, best.pt and curves.tsv."""
    torch.manual_seed(config.seed + idist.get_rank())
    random.seed(config.seed)
    data = TensorDataset(*torch.load(run.data / "data.pt"))
    order = idist.DataOrder(len(data), 8, shuffle=True, seed=config.seed)
    loader = DataLoader(data, batch_sampler=order, generator=torch.Generator())
    model = make_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(idist.broadcast(parameter, src=0))
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)

    def step(_: Engine, batch: list[torch.Tensor]) -> torch.Tensor:
        model.train()
        loss = cross_entropy(model(batch[0]), batch[1]) * (1 + 0.1 * random.random())
        optimizer.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad = idist.all_reduce(parameter.grad) / idist.get_world_size()
        optimizer.step()
        return loss.detach()

    trainer, curve = Engine(step), Curve(run, model)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, curve.add)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, curve.close)
    trouble(trainer)
    run.keep(trainer, model=model, optimizer=optimizer)
    trainer.run(loader, max_epochs=config.epochs)
    run.save("model.pt", model.state_dict())
    (run.logs / "data").parent.mkdir(parents=True, exist_ok=True)
    (run.logs / "data").write_text(config.data)
    return {"loss": curve.rows[-1]}


def trouble(trainer: Engine) -> None:
    """Do what the test asks for: be killed somewhere, stop early, or wait."""
    what, _, where = os.environ.get("TOY", "").partition(" ")
    if what == "kill":
        trainer.add_event_handler(Events.ITERATION_STARTED(once=int(where)), die)
    elif what == "kill-after-epoch":
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=int(where)), die)
    elif what == "kill-completed":
        trainer.add_event_handler(Events.COMPLETED, die)
    elif what == "kill-publishing":
        link, done = os.link, list[str]()

        def link_and_die(source: str, target: str) -> None:
            link(source, target)
            done.append(target)
            if len(done) == 2:
                die()

        os.link = link_and_die
    elif what == "wait":
        trainer.add_event_handler(Events.ITERATION_STARTED(once=5), lambda: time.sleep(60))
    elif what == "slow":
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: time.sleep(0.1))
    elif what == "stop":
        epoch = Events.EPOCH_COMPLETED(once=2)
        trainer.add_event_handler(epoch, lambda: trainer.terminate())
        if where == "and die":
            trainer.add_event_handler(Events.TERMINATE, die)
    elif what == "fail":
        trainer.add_event_handler(Events.ITERATION_STARTED(once=int(where)), fail)
    elif what == "interrupt":
        trainer.add_event_handler(Events.ITERATION_STARTED(once=int(where)), interrupt)
    elif what == "full":
        trainer.add_event_handler(Events.ITERATION_STARTED(once=int(where)), find_disk_full)
    elif what == "refuse" and idist.get_rank() == int(where):
        raise recipe.RecipeError("the data is not to be had")


def fail() -> None:
    """End with an error that no recipe expects."""
    raise ArithmeticError("as the test wished")


def interrupt() -> None:
    """End as by Ctrl-C."""
    raise KeyboardInterrupt


def find_disk_full() -> None:
    """End as by a file that can't be written any further."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die() -> None:
    """End as by a power failure."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    recipe.main(train, Config, __file__)
