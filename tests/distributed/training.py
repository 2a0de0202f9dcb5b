"""What the ranks of a group train in tests; apart from these, so that a process starts quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

import cookfire.distributed as idist
from cookfire.engine import (
    Engine,
    Events,
    create_supervised_evaluator,
    create_supervised_trainer,
)
from cookfire.handlers import Checkpoint, DiskSaver, RunState
from cookfire.handlers._objects import state_of
from cookfire.metrics import Accuracy, Loss

WORLDS = (1, 2, 4)
WRAPS = ("ddp", "fsdp")
STEPS, BATCH = 20, 8


class Images(Dataset[Any]):
    """Small pictures of three kinds, and their index; 92 are no multiple of a batch."""

    def __init__(self, size: int = 92) -> None:
        generator = torch.Generator().manual_seed(1)
        self.labels = torch.randint(3, (size,), generator=generator)
        noise = torch.randn(size, 1, 6, 6, generator=generator)
        self.images = noise + self.labels.view(-1, 1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        return self.images[index], self.labels[index], index


class Block(nn.Module):
    """A residual layer, as a unit to be sharded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the layer says."""
        return x + torch.tanh(self.linear(x))


class Net(nn.Module):
    """Without batch normalization and dropout: any number of processes computes the same."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3)
        self.blocks = nn.Sequential(Block(48), Block(48))
        self.head = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return three logits a picture."""
        return self.head(self.blocks(torch.tanh(self.stem(x)).flatten(1)))


def prepare(batch: Any, **_: Any) -> tuple[Tensor, Tensor]:
    """Leave the index out."""
    return batch[0], batch[1]


class Training:
    """A net in training, from the same weights everywhere."""

    def __init__(
        self, wrap: Any = "ddp", accumulate: int = 1, batch_size: int = BATCH, **options: Any
    ) -> None:
        torch.manual_seed(3)
        if wrap == "fsdp":
            options["shard"] = [Block]
        self.model = idist.auto_model(Net(), wrap=wrap, **options)
        adam = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.optimizer = idist.auto_optim(adam)
        self.trainer = create_supervised_trainer(
            self.model, self.optimizer, cross_entropy,
            prepare_batch=prepare, gradient_accumulation_steps=accumulate,
        )  # fmt: skip
        # Whole batches only: with a smaller last one, means of means are other means.
        self.data = idist.auto_dataloader(
            Images(), batch_size=batch_size, shuffle=True, drop_last=True, seed=5
        )
        self.batches: list[list[int]] = []
        self.losses: list[float] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self.note)

    @property
    def objects(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"model": self.model, "optimizer": self.optimizer}

    def note(self, engine: Engine) -> None:
        """Keep which items were in the global batch, and its loss."""
        self.batches.append(idist.all_gather(engine.state.batch[2]).tolist())
        self.losses.append(idist.all_reduce(float(engine.state.output), "AVERAGE"))

    def run(self, steps: int) -> None:
        """Train to that step."""
        self.trainer.run(self.data, max_iters=steps)

    def result(self) -> dict[str, Any]:
        """Return what was seen and learnt; the weights on the first rank."""
        weights = {name: tensor.clone() for name, tensor in state_of(self.model).items()}
        return {"batches": self.batches, "losses": self.losses, "weights": weights}


def evaluate(model: nn.Module, size: int) -> dict[str, float]:
    """Return the metrics of a model over so many pictures."""
    metrics = {"accuracy": Accuracy(), "loss": Loss(cross_entropy)}
    evaluator = create_supervised_evaluator(model, metrics=metrics, prepare_batch=prepare)
    return dict(evaluator.run(idist.auto_dataloader(Images(size), batch_size=BATCH)).metrics)


def train_and_save(folder: str) -> dict[str, Any]:
    """Train in each way, saving in the middle; and evaluate weights that are the same anywhere."""
    torch.set_deterministic_debug_mode("error")  # which also sums gradients in rank order
    result: dict[str, Any] = {}
    for wrap in WRAPS:
        training = Training(wrap)
        saver = DiskSaver(Path(folder) / "saved", require_empty=False)
        name = f"{wrap}_{idist.get_world_size()}.pt"
        checkpoint = Checkpoint(training.objects, saver, filename_pattern=name)
        at_seven = Events.ITERATION_COMPLETED(once=7)
        state = RunState(training.trainer, **training.objects)
        run = Checkpoint({"run": state}, saver, filename_pattern=f"run_{name}")
        # As functions: they are no part of the run that goes on.
        for save in (checkpoint, run):
            training.trainer.add_event_handler(at_seven, lambda engine, save=save: save(engine))
        training.run(STEPS)
        result[wrap] = training.result()
    torch.manual_seed(3)
    model = idist.auto_model(Net())
    result["metrics"] = {size: evaluate(model, size) for size in (92, 9, 5)}
    return result


def load_all(folder: str) -> dict[str, Any]:
    """Go on from everything that was saved, in each way; save it again beside it."""
    torch.set_deterministic_debug_mode("error")  # which also sums gradients in rank order
    result: dict[str, Any] = {}
    for saved in sorted(Path(folder).glob("saved/*dp_?.pt")):
        if saved.name.startswith("run_"):
            continue
        for wrap in WRAPS:
            training = Training(wrap)
            Checkpoint.load_objects(training.objects, saved)
            here = f"{wrap}_{idist.get_world_size()}"
            again = Path(folder) / f"again_{here}"
            Checkpoint(training.objects, again, filename_pattern=saved.name)(training.trainer)
            state = RunState(training.trainer, **training.objects)
            Checkpoint.load_objects({"run": state}, saved.with_name(f"run_{saved.name}"))
            training.run(STEPS if saved.stem == here else STEPS // 2)
            result[f"{saved.stem} to {wrap}"] = training.result()
    return result
