"""What a step minimises, the optimizer as the profile has it, and the step size at each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .config import Config
from .palette import CLASSES, VOID


def summed_loss(
    outputs: Mapping[str, Tensor], masks: Tensor, auxiliary: float, background: float = 1.0
) -> Tensor:
    """Return the cross-entropy, summed over pixels that are not void, in nats.

    Args:
        outputs: of a net: logits ``out``, and ``aux`` with an auxiliary head.
        masks: (B, H, W) of int64.
        auxiliary: weight of the auxiliary head's loss.
        background: weight of a pixel of the background; all others have 1.
    """
    weights = None
    if background != 1:
        weights = torch.ones(len(CLASSES), device=masks.device)
        weights[0] = background
    losses = {
        name: F.cross_entropy(logits, masks, weights, ignore_index=VOID, reduction="sum")
        for name, logits in outputs.items()
    }
    return losses["out"] + auxiliary * losses["aux"] if auxiliary else losses["out"]


def create_optimizer(config: Config, net: nn.Module) -> Optimizer:
    """Return the optimizer over two groups, the backbone and the head."""
    backbone = {id(value) for value in net.get_submodule("backbone").parameters()}
    groups: list[dict[str, Any]] = [
        {
            "params": [value for value in net.parameters() if id(value) in backbone],
            "lr": config.lr * config.backbone_lr,
        },
        {"params": [value for value in net.parameters() if id(value) not in backbone]},
    ]
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return AdamW(groups, betas=(config.momentum, 0.999), **shared)
    return SGD(groups, momentum=config.momentum, **shared)


def create_schedule(config: Config, optimizer: Optimizer, steps: int) -> LambdaLR:
    """Return the poly schedule of both groups' step sizes, after a rise if there is one."""

    def factor(step: int) -> float:
        rise = config.warmup * steps
        rising = (step + 1) / (rise + 1) if step < rise else 1.0
        return float(rising * max(0.0, 1 - step / steps) ** config.power)

    return LambdaLR(optimizer, factor)
