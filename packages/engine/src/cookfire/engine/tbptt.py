"""Truncated back-propagation through time: long sequences, trained piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cookfire.engine._batches import Device, PrepareBatch, prepare_xy
from cookfire.engine._engine import Engine
from cookfire.engine.events import EventEnum
from cookfire.engine.utils import apply_to_tensor

__all__ = ["Tbptt_Events", "create_supervised_tbptt_trainer"]


class Tbptt_Events(EventEnum):  # noqa: N801 - the name that scripts import
    """Fired around each piece of a sequence."""

    TIME_ITERATION_STARTED = "time_iteration_started"
    """A piece is about to be processed; ``state.time_iteration`` counts them."""
    TIME_ITERATION_COMPLETED = "time_iteration_completed"
    """The optimizer has stepped on it."""


def create_supervised_tbptt_trainer(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[Any, Any], Tensor],
    tbtt_step: int,
    dim: int = 0,
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = prepare_xy,
) -> Engine:
    """Return a trainer that splits each batch in time and steps the optimizer after each piece.

    The recurrent state flows from piece to piece, gradients do not: ``model(x, hidden) ->
    (y_pred, hidden)``, with ``model(x)`` for the first piece of a batch.

    Args:
        model: what is trained.
        optimizer: updates it.
        loss_fn: ``(y_pred, y) -> loss``, a 0-d tensor.
        tbtt_step: time steps a piece.
        dim: the time dimension of x and y; 0 as in torch's recurrent layers.
        device: where batches go; None leaves them where they are.
        non_blocking: copy asynchronously from pinned memory.
        prepare_batch: ``(batch, device=, non_blocking=) -> (x, y)``.

    Returns:
        An engine whose output is the mean loss of the pieces, a detached 0-d tensor.

    Raises:
        ValueError: ``tbtt_step`` is no positive integer.
    """
    if not isinstance(tbtt_step, int) or tbtt_step < 1:
        raise ValueError(f"tbtt_step must be an integer of at least 1, got {tbtt_step!r}")

    def step(engine: Engine, batch: Any) -> Tensor:
        if not model.training:
            model.train()
        losses = []
        hidden: Any = None
        x, y = prepare_batch(batch, device=device, non_blocking=non_blocking)
        for x_piece, y_piece in zip(
            x.split(tbtt_step, dim=dim), y.split(tbtt_step, dim=dim), strict=True
        ):
            engine.fire_event(Tbptt_Events.TIME_ITERATION_STARTED)
            optimizer.zero_grad()
            if hidden is None:
                y_pred, hidden = model(x_piece)
            else:
                y_pred, hidden = model(x_piece, apply_to_tensor(hidden, torch.Tensor.detach))
            loss = loss_fn(y_pred, y_piece)
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.detach())
            engine.fire_event(Tbptt_Events.TIME_ITERATION_COMPLETED)
        return torch.stack(losses).mean()

    trainer = Engine(step)
    trainer.register_events(
        *Tbptt_Events, event_to_attr=dict.fromkeys(Tbptt_Events, "time_iteration")
    )
    return trainer
