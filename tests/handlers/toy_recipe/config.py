"""The toy's parameters and model."""

from __future__ import annotations

import dataclasses

import torch

from cookfire.handlers import recipe


@dataclasses.dataclass(frozen=True)
class Config(recipe.Config):
    """What params.yaml holds."""

    lr: float
    epochs: int


def make_model() -> torch.nn.Module:
    """Return a classifier of four numbers, with dropout, so that random states matter."""
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 2)
    )
