"""What is measured, while it trains and at the end: all of one count of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cookfire import distributed as idist
from cookfire.engine import Engine, create_supervised_evaluator
from cookfire.metrics import ConfusionMatrix, DiceCoefficient, IoU, Loss, cmAccuracy, mIoU

from .data import prepare_batch
from .palette import CLASSES, VOID


def create_evaluator(
    model: nn.Module, views: Sequence[float] = (1.0,), *, flip: bool = False
) -> Engine:
    """Return an engine that measures ``model``, in float32 whatever the training's precision.

    Its metrics, of all pixels that are not void, at the masks' own size: ``miou``, the mean over
    the 21 classes of intersection over union; ``miou_objects``, without the background;
    ``pixel_accuracy``; ``dice``, the mean over the classes; ``loss`` (mean cross-entropy of a
    pixel, in nats); ``iou``, of each class; and ``confusion``, the counts (21, 21) that all but
    the loss come from. ``state.output`` is (logits, masks).

    Args:
        model: images to a dict of logits.
        views: factors of the size, see ``average_views``.
        flip: whether mirror images are views too.
    """
    confusion = ConfusionMatrix(len(CLASSES), ignore_index=VOID)
    metrics: dict[str, Any] = {
        "miou": mIoU(confusion),
        "miou_objects": mIoU(confusion, ignore_index=0),
        "pixel_accuracy": cmAccuracy(confusion),
        "dice": DiceCoefficient(confusion).mean(),
        "loss": Loss(nn.CrossEntropyLoss(ignore_index=VOID), batch_size=_pixels),
        "iou": IoU(confusion),
        "confusion": confusion,
    }
    return create_supervised_evaluator(
        model,
        metrics=metrics,
        device=idist.device(),
        non_blocking=True,
        prepare_batch=prepare_batch,
        model_fn=lambda model, images: average_views(model, images, views, flip=flip),
    )


HEADLINE = ("miou", "miou_objects", "pixel_accuracy", "dice", "loss")
"""The numbers among the metrics."""


def _pixels(masks: Tensor) -> int:
    return int((masks != VOID).sum())


def average_views(
    model: nn.Module, images: Tensor, views: Sequence[float], *, flip: bool = False
) -> Tensor:
    """Return logits (B, classes, H, W): of one view the net's, else of the mean probability.

    Args:
        model: images to a dict of logits.
        images: (B, 3, H, W), normalised.
        views: factors by which images are resized before, and logits back after.
        flip: whether each view counts mirrored, too.
    """
    size = images.shape[2:]
    found: list[Tensor] = []
    for factor in views:
        resized = images
        if factor != 1:
            scaled = [max(1, round(side * factor)) for side in size]
            resized = F.interpolate(images, scaled, mode="bilinear", antialias=factor < 1)
        for mirrored in (False, True)[: 1 + flip]:
            logits: Tensor = model(resized.flip(-1) if mirrored else resized)["out"]
            if factor != 1:
                logits = F.interpolate(logits, size, mode="bilinear")
            found.append(logits.flip(-1) if mirrored else logits)
    if len(found) == 1:
        return found[0]
    return torch.stack([logits.softmax(dim=1) for logits in found]).mean(dim=0).log()
