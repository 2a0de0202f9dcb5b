"""SGD as the profile has it: which weights decay how much, and the step size at each step."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from .config import Config
from .model import FastNet


def create_optimizer(config: Config, net: nn.Module) -> SGD:
    """Return SGD with Nesterov's momentum over three groups of what ``net`` learns.

    They are the normalisations' shifts, whose step is larger and whose decay is that much smaller;
    the bias of a whitening layer, which stops early; and all others.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    shifts = [norm.bias for norm in norms]
    whitening = [net.whitening.bias] if isinstance(net, FastNet) else []
    apart = {id(parameter) for parameter in [*shifts, *whitening]}
    others = [
        parameter
        for parameter in net.parameters()
        if parameter.requires_grad and id(parameter) not in apart
    ]
    groups: list[dict[str, Any]] = [
        {"params": others},
        {
            "params": shifts,
            "lr": config.lr * config.shift_lr,
            "weight_decay": config.weight_decay / config.shift_lr,
        },
        {"params": whitening},
    ]
    return SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )


def create_schedule(config: Config, optimizer: SGD, steps: int) -> LambdaLR:
    """Return the step sizes' schedule: up to the peak and down to the end, in straight lines."""

    def factor(step: int) -> float:
        progress = step / steps
        if progress < config.lr_peak:
            return config.lr_start + (1 - config.lr_start) * progress / config.lr_peak
        return 1 + (config.lr_end - 1) * (progress - config.lr_peak) / (1 - config.lr_peak)

    def factor_of_whitening(step: int) -> float:
        return factor(step) if step < config.whitening_epochs / config.epochs * steps else 0.0

    return LambdaLR(optimizer, [factor, factor, factor_of_whitening])
