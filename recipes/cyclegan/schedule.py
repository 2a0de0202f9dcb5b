"""The step size at each step: constant, then down to 0 in a straight line."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .config import Config


def create_schedule(config: Config, optimizer: Optimizer, epoch_length: int) -> LambdaLR:
    """Return the schedule of ``optimizer``, of which the last step would be the first of size 0.

    Args:
        config: has the epochs of either part.
        optimizer: its step size is the highest one.
        epoch_length: steps an epoch.
    """
    constant, falling = config.epochs * epoch_length, config.decay_epochs * epoch_length

    def factor(step: int) -> float:
        return min(1.0, 1 - (step - constant) / falling) if falling else 1.0

    return LambdaLR(optimizer, factor)
