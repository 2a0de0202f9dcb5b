"""What is measured, while it trains and at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cookfire import distributed as idist
from cookfire.engine import Engine, create_supervised_evaluator
from cookfire.metrics import Accuracy, Loss, TopKCategoricalAccuracy

from .data import SIZE, prepare_batch


def create_evaluator(model: nn.Module, views: str = "one") -> Engine:
    """Return an engine that measures ``model``, in float32 whatever the training's precision.

    Its metrics: ``accuracy``, ``top5`` (the label is among the five best) and ``loss`` (mean
    cross-entropy, in nats). ``state.output`` is (logits, labels).

    Args:
        model: images to logits.
        views: what logits are averaged over; see ``Config.views``.
    """
    metrics: dict[str, Any] = {
        "accuracy": Accuracy(),
        "top5": TopKCategoricalAccuracy(5),
        "loss": Loss(nn.CrossEntropyLoss()),
    }
    return create_supervised_evaluator(
        model,
        metrics=metrics,
        device=idist.device(),
        non_blocking=True,
        prepare_batch=prepare_batch,
        model_fn=lambda model, images: average_views(model, images, views),
    )


def average_views(model: nn.Module, images: Tensor, views: str) -> Tensor:
    """Return the logits (B, classes), averaged over views of the images (B, 3, 32, 32)."""
    return torch.stack([weight * model(view) for view, weight in _views(images, views)]).sum(dim=0)


def _views(images: Tensor, views: str) -> Iterator[tuple[Tensor, float]]:
    """Iterate over views and their weights, which add up to 1."""
    if views == "one":
        yield images, 1.0
        return
    shifted = [images]
    if views == "flip and shift":
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        shifted += [padded[:, :, :SIZE, :SIZE], padded[:, :, 2:, 2:]]
    weights = [0.5, 0.25, 0.25] if len(shifted) == 3 else [1.0]
    for view, weight in zip(shifted, weights, strict=True):
        view = view.contiguous(memory_format=torch.channels_last)
        yield view, weight / 2
        yield view.flip(-1), weight / 2
