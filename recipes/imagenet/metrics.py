"""What is measured, while it trains and at the end."""

from __future__ import annotations

from typing import Any

from torch import nn

from cookfire import distributed as idist
from cookfire.engine import Engine, create_supervised_evaluator
from cookfire.metrics import Accuracy, Loss, TopKCategoricalAccuracy

from .data import prepare_batch


def create_evaluator(model: nn.Module, classes: int) -> Engine:
    """Return an engine that measures ``model``, in float32 whatever the training's precision.

    Its metrics: ``accuracy``, ``top5`` (the label is among the five best, or among as many as there
    are classes) and ``loss`` (mean cross-entropy, in nats). ``state.output`` is (logits, labels).
    """
    metrics: dict[str, Any] = {
        "accuracy": Accuracy(),
        "top5": TopKCategoricalAccuracy(min(5, classes)),
        "loss": Loss(nn.CrossEntropyLoss()),
    }
    return create_supervised_evaluator(
        model,
        metrics=metrics,
        device=idist.device(),
        non_blocking=True,
        prepare_batch=prepare_batch,
    )
