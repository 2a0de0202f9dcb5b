"""Ready-made evaluation: steps and an engine for a model and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.amp.autocast_mode import autocast

from cookfire.engine._batches import (
    Device,
    PrepareBatch,
    Step,
    call_model,
    device_type_of,
    prepare_xy,
    same,
)
from cookfire.engine._engine import Engine


class AttachableMetric(Protocol):
    """What an evaluator needs of a metric."""

    def attach(self, engine: Engine, name: str) -> Any:
        """Compute the metric in ``engine`` and keep its value under ``name``."""
        ...


def _prediction_and_target(x: Any, y: Any, y_pred: Any) -> tuple[Any, Any]:  # noqa: ARG001 - the transform's signature
    return y_pred, y


def supervised_evaluation_step(
    model: nn.Module,
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = prepare_xy,
    model_transform: Callable[[Any], Any] = same,
    output_transform: Callable[[Any, Any, Any], Any] = _prediction_and_target,
    model_fn: Callable[[nn.Module, Any], Any] = call_model,
) -> Step:
    """Return an evaluation step (no gradients); see :func:`create_supervised_evaluator`."""

    def step(engine: Engine, batch: Any) -> Any:  # noqa: ARG001 - a step's signature
        if model.training:
            model.eval()
        with torch.no_grad():
            x, y = prepare_batch(batch, device=device, non_blocking=non_blocking)
            y_pred = model_transform(model_fn(model, x))
            return output_transform(x, y, y_pred)

    return step


def supervised_evaluation_step_amp(
    model: nn.Module,
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = prepare_xy,
    model_transform: Callable[[Any], Any] = same,
    output_transform: Callable[[Any, Any, Any], Any] = _prediction_and_target,
    model_fn: Callable[[nn.Module, Any], Any] = call_model,
    amp_dtype: torch.dtype | None = None,
) -> Step:
    """Return an evaluation step in mixed precision; see :func:`create_supervised_evaluator`."""
    step = supervised_evaluation_step(
        model, device, non_blocking, prepare_batch, model_transform, output_transform, model_fn
    )
    device_type = device_type_of(model, device)

    def step_amp(engine: Engine, batch: Any) -> Any:
        with autocast(device_type, dtype=amp_dtype):
            return step(engine, batch)

    return step_amp


def create_supervised_evaluator(
    model: nn.Module,
    metrics: Mapping[str, AttachableMetric] | None = None,
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = prepare_xy,
    model_transform: Callable[[Any], Any] = same,
    output_transform: Callable[[Any, Any, Any], Any] = _prediction_and_target,
    amp_mode: str | None = None,
    model_fn: Callable[[nn.Module, Any], Any] = call_model,
    amp_dtype: torch.dtype | None = None,
) -> Engine:
    """Return an engine that evaluates ``model`` without gradients.

    Args:
        model: what is evaluated; it is put in evaluation mode when found in training mode.
        metrics: by name; they are attached and their values end up in ``state.metrics``.
        device: where batches go; None leaves them where they are.
        non_blocking: copy asynchronously from pinned memory.
        prepare_batch: ``(batch, device=, non_blocking=) -> (x, y)``.
        model_transform: turns what the model returns into ``y_pred``.
        output_transform: ``(x, y, y_pred) -> state.output``; ``(y_pred, y)`` by default, which is
            what metrics expect.
        amp_mode: ``"amp"`` for automatic mixed precision.
        model_fn: ``(model, x) -> output``, where the model needs more than ``model(x)``.
        amp_dtype: see :func:`supervised_training_step_amp`.

    Raises:
        TypeError: a metric can't be attached.
        ValueError: an unknown ``amp_mode``, or ``amp_dtype`` without it.

    Example:
        >>> evaluator = create_supervised_evaluator(nn.Linear(2, 1))
        >>> state = evaluator.run([(torch.ones(4, 2), torch.ones(4, 1))])
        >>> [tensor.shape for tensor in state.output]
        [torch.Size([4, 1]), torch.Size([4, 1])]
    """
    if amp_mode not in (None, "amp"):
        raise ValueError(f"amp_mode must be None or 'amp', got {amp_mode!r}")
    if amp_mode is None and amp_dtype is not None:
        raise ValueError("amp_dtype needs amp_mode='amp'")
    if amp_mode == "amp":
        step = supervised_evaluation_step_amp(
            model,
            device,
            non_blocking,
            prepare_batch,
            model_transform,
            output_transform,
            model_fn,
            amp_dtype,
        )
    else:
        step = supervised_evaluation_step(
            model, device, non_blocking, prepare_batch, model_transform, output_transform, model_fn
        )
    evaluator = Engine(step)
    if not isinstance(metrics, Mapping | None):
        raise TypeError(f"metrics must be a dict of metrics by name, got {metrics!r}")
    for name, metric in (metrics or {}).items():
        if isinstance(metric, type):
            raise TypeError(
                f"metrics[{name!r}]: got the class {metric.__name__}, expected a metric: call it"
            )
        if not hasattr(metric, "attach"):
            raise TypeError(
                f"metrics[{name!r}]: a {type(metric).__name__} has no attach(); one of another "
                "library goes into a cookfire.metrics.ExternalMetric(...)"
            )
        metric.attach(evaluator, name)
    return evaluator
