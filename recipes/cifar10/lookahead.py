"""Weights that meet their running mean every few steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cookfire.engine import Engine


class Lookahead:
    """A running mean of a net's weights, to which the weights return every few steps: a handler.

    Of "Lookahead Optimizer: k steps forward, 1 step back" (arXiv 1907.08610), in the form of
    airbench94: the mean follows fast at first, ever slower later, and also holds the statistics of
    the normalisations.

    Args:
        net: whose weights.
        period: steps between two meetings.
        steps: of the whole training: at step ``s`` the mean keeps ``0.95**5 * (s / steps)**3``.
    """

    def __init__(self, net: nn.Module, period: int, steps: int) -> None:
        self._period = period
        self._steps = steps
        self._weights = [value for value in net.state_dict().values() if value.is_floating_point()]
        self._mean: list[Tensor] = [value.clone() for value in self._weights]

    @torch.no_grad()
    def __call__(self, trainer: Engine) -> None:
        """Meet, if this iteration is one to meet at; at the last one weights become the mean."""
        step = trainer.state.iteration
        last = step == self._steps
        if last or step % self._period == 0:
            kept = 1.0 if last else 0.95**5 * (step / self._steps) ** 3
            torch._foreach_lerp_(self._mean, self._weights, 1 - kept)
            torch._foreach_copy_(self._weights, self._mean)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean."""
        return {"mean": list(self._mean)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned."""
        torch._foreach_copy_(self._mean, state_dict["mean"])
