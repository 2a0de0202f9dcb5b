"""Small things that several tests of handlers use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cookfire.engine import Engine
from cookfire.handlers import BaseSaveHandler


def model(value: float = 0.0) -> nn.Linear:
    """Return a small model whose weights are ``value``."""
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.weight, value)
    return layer


def engine_at(iteration: int = 0, epoch: int = 0, **metrics: float) -> Engine:
    """Return an engine that is where it is said to be."""
    engine = Engine(lambda *_: None)
    engine.state.iteration, engine.state.epoch = iteration, epoch
    engine.state.metrics.update(metrics)
    return engine


def checkpoints(folder: Path) -> list[str]:
    """Return the names of a folder's checkpoints."""
    return sorted(path.name for path in folder.glob("*.pt"))


class Memory(BaseSaveHandler):
    """Keeps checkpoints in a dict, and a list of what was asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}
        self.calls: list[tuple[str, str]] = []
        self.metadata: list[Mapping[str, Any] | None] = []

    def __call__(
        self,
        checkpoint: Mapping[str, Any],
        filename: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a checkpoint."""
        self.calls.append(("save", filename))
        self.metadata.append(metadata)
        self.files[filename] = checkpoint

    def remove(self, filename: str) -> None:
        """Drop it."""
        self.calls.append(("remove", filename))
        del self.files[filename]


def classification() -> tuple[list[Any], list[Any], nn.Module]:
    """Return data to train on and to validate with, and a model: those of the introduction."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        [torch.rand(2, 4, generator=generator), torch.randint(0, 5, (2,), generator=generator)]
        for _ in range(20)
    ]
    net = nn.Linear(4, 5)
    with torch.no_grad():
        net.weight.copy_(torch.rand(5, 4, generator=generator))
    return batches[:10], batches[10:], net
