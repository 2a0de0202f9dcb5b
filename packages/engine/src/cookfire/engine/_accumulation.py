"""Optimizer steps that several iterations share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

import cookfire.distributed as idist
from cookfire.engine._engine import Engine


class Accumulation:
    """Which windows of iterations share an optimizer step, and how much each loss weighs.

    A window never crosses the end of an epoch. Where the epoch's length is known, the last window
    is as long as what is left; where it is not, the engine's EPOCH_COMPLETED finishes it.

    Its state is that of an open window, gradients included, so that a run can be saved in the
    middle of one.
    """

    def __init__(
        self,
        steps: int,
        optimizer: Optimizer,
        take_step: Callable[[], Any],
        exchange: Callable[[Any], Any],
    ) -> None:
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"gradient_accumulation_steps must be an integer of at least 1, got {steps!r}"
            )
        self.steps = steps
        self._optimizer = optimizer
        self._take_step = take_step
        self._exchange = exchange
        self.length = steps  # of the current window
        self.open = 0  # iterations of the current window whose gradients wait for a step
        self.apart = False  # whether they also wait for being exchanged between processes
        self.batch: Any = None  # the last one, while they do

    def window(self, engine: Engine) -> tuple[int, int]:
        """Return the length of the current iteration's window, and its position in it from 0."""
        begin, position = divmod(engine.epoch_iteration - 1, self.steps)
        # Of data without a length the state has that of the epoch before.
        length = engine.state.epoch_length if engine._epoch_length_known else None
        if length is None:
            return self.steps, position
        return min(self.steps, max(length - begin * self.steps, 1)), position

    def finish(self, engine: Engine) -> None:
        """Step on a window that the end of the data, or of the run, cut short."""
        if not engine._position.in_epoch or engine._is_done():
            self.finish_window(engine)

    def finish_window(self, engine: Engine) -> None:
        """Step on an open window, as if it had been planned to end here."""
        if not self.open:
            return
        if self.apart:
            # Right after a resume there is none of its own.
            self._exchange(engine.state.batch if self.batch is None else self.batch)
        ratio = self.length / self.open
        for parameter in self._parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(ratio)
        self._take_step()
        self._optimizer.zero_grad()
        self.open, self.apart, self.batch = 0, False, None

    def state_dict(self) -> dict[str, Any]:
        """Return how far the window is, and its gradients: each process's own."""
        gradients = [parameter.grad for parameter in self._parameters()] if self.open else []
        return {
            "length": self.length,
            "open": self.open,
            "apart": self.apart,
            "gradients": [_local(gradient) for gradient in gradients],
            "world_size": idist.get_world_size(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on in the window that :meth:`state_dict` returned.

        Gradients that wait for being exchanged, or are a part each, are of so many processes.
        Another number of them goes on without those of the open window.
        """
        self.length, self.apart = state_dict["length"], state_dict["apart"]
        self.open, self.batch = state_dict["open"], None
        split = self.apart or any(
            hasattr(parameter, "to_local") for parameter in self._parameters()
        )
        if split and state_dict["world_size"] != idist.get_world_size():
            logging.getLogger(__name__).warning(
                "saved in the middle of an accumulation window by %d processes: its first %d "
                "iterations are left out of the next step",
                state_dict["world_size"],
                self.open,
            )
            self.open = 0
        if not self.open:
            return
        for parameter, gradient in zip(self._parameters(), state_dict["gradients"], strict=True):
            parameter.grad = None if gradient is None else _like(parameter, gradient)

    def _parameters(self) -> Iterator[Tensor]:
        for group in self._optimizer.param_groups:
            yield from group["params"]


def _local(gradient: Any) -> Tensor | None:
    """Return this process's part of a gradient, which is all of it unless it is sharded."""
    # By what is asked of it: importing DTensor takes a second, which most runs do not need.
    local: Tensor | None = gradient.to_local() if hasattr(gradient, "to_local") else gradient
    return local


def _like(parameter: Any, local: Tensor) -> Tensor:
    """Copy a gradient that :func:`_local` returned to where ``parameter`` is."""
    gradient = local.to(parameter.device, copy=True)
    if hasattr(parameter, "to_local"):
        gradient = type(parameter).from_local(gradient, parameter.device_mesh, parameter.placements)
    return gradient
