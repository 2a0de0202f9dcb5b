"""What is measured, after each epoch and at the end."""

from __future__ import annotations

from typing import Any

from torch import nn

from cookfire import distributed as idist
from cookfire.engine import Engine, create_supervised_evaluator
from cookfire.metrics import Accuracy, Fbeta, Loss

from .data import prepare_batch


def create_evaluator(model: nn.Module) -> Engine:
    """Return an engine that measures ``model``, in float32 whatever the training's precision.

    Its metrics: ``accuracy``, ``loss`` (negative log likelihood, in nats) and ``f1``, the mean of
    the classes' F1 scores.
    """
    metrics: dict[str, Any] = {
        "accuracy": Accuracy(),
        "loss": Loss(nn.NLLLoss()),
        "f1": Fbeta(beta=1.0),
    }
    return create_supervised_evaluator(
        model,
        metrics=metrics,
        device=idist.device(),
        non_blocking=True,
        prepare_batch=prepare_batch,
    )
