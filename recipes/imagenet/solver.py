"""The optimizer as the profile has it: what decays, what learns slower, and each step's size."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .config import Config
from .model import head_parameters


def create_optimizer(config: Config, net: nn.Module) -> Optimizer:
    """Return the optimizer, over up to four groups of what ``net`` learns.

    They are the classifier's and the other weights, each with and without decay; biases and
    normalisations have none. What is frozen is in none.
    """
    classifier = head_parameters(net)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        factor = 1.0 if name in classifier else config.backbone_lr
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    described: list[dict[str, Any]] = [
        {"params": parameters, "lr": factor * config.lr, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    if config.optimizer == "adamw":
        return AdamW(described, lr=config.lr, betas=(config.momentum, 0.999))
    nesterov = config.momentum > 0
    return SGD(described, lr=config.lr, momentum=config.momentum, nesterov=nesterov)


def create_schedule(config: Config, optimizer: Optimizer, iterations: int) -> LambdaLR:
    """Return the step sizes' schedule: a straight line up, then a half cosine down to 0.

    It is called at each iteration; those that make one step together have one size.
    """
    rising = round(config.warmup / config.epochs * iterations)

    def factor(iteration: int) -> float:
        iteration -= iteration % config.accumulate
        if iteration < rising:
            return (iteration + 1) / (rising + 1)
        progress = (iteration - rising) / max(1, iterations - rising)
        return (1 + math.cos(math.pi * min(1.0, progress))) / 2

    return LambdaLR(optimizer, factor)
