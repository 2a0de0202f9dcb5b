"""Ready-made steps and engines for a model, an optimizer and a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import autocast
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from cookfire.engine._engine import Engine
from cookfire.engine.deterministic import DeterministicEngine
from cookfire.engine.events import Events
from cookfire.engine.utils import convert_tensor

Device = str | torch.device | None
PrepareBatch = Callable[..., tuple[Any, Any]]
Step = Callable[[Engine, Any], Any]


class AttachableMetric(Protocol):
    """What an evaluator needs of a metric."""

    def attach(self, engine: Engine, name: str) -> Any:
        """Compute the metric in ``engine`` and keep its value under ``name``."""
        ...


def _prepare_batch(
    batch: Sequence[Any], device: Device = None, non_blocking: bool = False
) -> tuple[Any, Any]:
    x, y = batch
    return (
        convert_tensor(x, device=device, non_blocking=non_blocking),
        convert_tensor(y, device=device, non_blocking=non_blocking),
    )


def _same(output: Any) -> Any:
    return output


def _call_model(model: nn.Module, x: Any) -> Any:
    return model(x)


def _detached_loss(x: Any, y: Any, y_pred: Any, loss: Tensor) -> Tensor:  # noqa: ARG001 - the transform's signature
    return loss.detach()


def _prediction_and_target(x: Any, y: Any, y_pred: Any) -> tuple[Any, Any]:  # noqa: ARG001 - the transform's signature
    return y_pred, y


class Accumulation:
    """Which windows of iterations share an optimizer step, and how much each loss weighs.

    A window never crosses the end of an epoch. Where the epoch's length is known, the last window
    is as long as what is left; where it is not, the engine's EPOCH_COMPLETED finishes it.

    Its state is that of an open window, gradients included, so that a run can be saved in the
    middle of one.
    """

    def __init__(self, steps: int, optimizer: Optimizer, take_step: Callable[[], Any]) -> None:
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"gradient_accumulation_steps must be an integer of at least 1, got {steps!r}"
            )
        self.steps = steps
        self._optimizer = optimizer
        self._take_step = take_step
        self.length = steps  # of the current window
        self.open = 0  # iterations of the current window whose gradients wait for a step

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
        if self.open and (not engine._position.in_epoch or engine._is_done()):
            ratio = self.length / self.open
            for parameter in self._parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(ratio)
            self._take_step()
            self._optimizer.zero_grad()
            self.open = 0

    def state_dict(self) -> dict[str, Any]:
        """Return how far the window is, and its gradients: each process's own."""
        gradients = [parameter.grad for parameter in self._parameters()] if self.open else []
        return {"length": self.length, "open": self.open, "gradients": gradients}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on in the window that :meth:`state_dict` returned."""
        self.length, self.open = state_dict["length"], state_dict["open"]
        if self.open:
            pairs = zip(self._parameters(), state_dict["gradients"], strict=True)
            for parameter, gradient in pairs:
                parameter.grad = (
                    None if gradient is None else gradient.to(parameter.device, copy=True)
                )

    def _parameters(self) -> Iterator[Tensor]:
        for group in self._optimizer.param_groups:
            yield from group["params"]


def _training_step(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[Any, Any], Tensor],
    device: Device,
    non_blocking: bool,
    prepare_batch: PrepareBatch,
    model_transform: Callable[[Any], Any],
    output_transform: Callable[[Any, Any, Any, Tensor], Any],
    gradient_accumulation_steps: int,
    model_fn: Callable[[nn.Module, Any], Any],
    context: Callable[[], AbstractContextManager[Any]] | None = None,
    scaler: GradScaler | None = None,
    optimizer_step: Callable[[], Any] | None = None,
) -> Step:
    synchronised = nullcontext()
    no_sync = getattr(model, "no_sync", nullcontext)

    def take_step() -> None:
        if optimizer_step is not None:
            optimizer_step()
        elif scaler is not None:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()

    accumulation = Accumulation(gradient_accumulation_steps, optimizer, take_step)
    accumulating = accumulation.steps > 1

    def step(engine: Engine, batch: Any) -> Any:
        if not model.training:  # an evaluator of the same model may have changed it
            model.train()
        window, position = accumulation.window(engine) if accumulating else (1, 0)
        if position == 0:
            optimizer.zero_grad()
            accumulation.open = 0
        last = position == window - 1
        x, y = prepare_batch(batch, device=device, non_blocking=non_blocking)
        with synchronised if last else no_sync():
            if context is None:
                y_pred = model_transform(model_fn(model, x))
                loss = loss_fn(y_pred, y)
            else:
                with context():
                    y_pred = model_transform(model_fn(model, x))
                    loss = loss_fn(y_pred, y)
            share = loss / window if window > 1 else loss
            torch.autograd.backward(share if scaler is None else scaler.scale(share))
        accumulation.length = window
        accumulation.open = 0 if last else accumulation.open + 1
        if last:
            take_step()
        return output_transform(x, y, y_pred, loss)

    vars(step)["finish"] = accumulation.finish
    return step


def supervised_training_step(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[Any, Any], Tensor],
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = _prepare_batch,
    model_transform: Callable[[Any], Any] = _same,
    output_transform: Callable[[Any, Any, Any, Tensor], Any] = _detached_loss,
    gradient_accumulation_steps: int = 1,
    model_fn: Callable[[nn.Module, Any], Any] = _call_model,
) -> Step:
    """Return a training step; the arguments are those of :func:`create_supervised_trainer`.

    With gradient accumulation over data without a length, attach ``step.finish`` to
    EPOCH_COMPLETED, as :func:`create_supervised_trainer` does.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = Engine(supervised_training_step(model, optimizer, nn.MSELoss()))
    """
    return _training_step(
        model,
        optimizer,
        loss_fn,
        device,
        non_blocking,
        prepare_batch,
        model_transform,
        output_transform,
        gradient_accumulation_steps,
        model_fn,
    )


def supervised_training_step_amp(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[Any, Any], Tensor],
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = _prepare_batch,
    model_transform: Callable[[Any], Any] = _same,
    output_transform: Callable[[Any, Any, Any, Tensor], Any] = _detached_loss,
    scaler: GradScaler | None = None,
    gradient_accumulation_steps: int = 1,
    model_fn: Callable[[nn.Module, Any], Any] = _call_model,
    amp_dtype: torch.dtype | None = None,
) -> Step:
    """Return a training step in automatic mixed precision, on any device that torch can autocast.

    Args:
        model: see :func:`create_supervised_trainer`, as all others.
        optimizer: see there.
        loss_fn: see there.
        device: see there; the model's own device by default.
        non_blocking: see there.
        prepare_batch: see there.
        model_transform: see there.
        output_transform: see there.
        scaler: scales the loss so that float16 gradients do not vanish; not needed for bfloat16.
        gradient_accumulation_steps: see there.
        model_fn: see there.
        amp_dtype: torch.float16 or torch.bfloat16; the device's own default by default (float16
            on CUDA, bfloat16 on CPU).
    """
    device_type = _device_type(model, device)

    def context() -> AbstractContextManager[Any]:
        return autocast(device_type, dtype=amp_dtype)

    return _training_step(
        model,
        optimizer,
        loss_fn,
        device,
        non_blocking,
        prepare_batch,
        model_transform,
        output_transform,
        gradient_accumulation_steps,
        model_fn,
        context=context,
        scaler=scaler,
    )


def create_supervised_trainer(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[Any, Any], Tensor],
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = _prepare_batch,
    model_transform: Callable[[Any], Any] = _same,
    output_transform: Callable[[Any, Any, Any, Tensor], Any] = _detached_loss,
    deterministic: bool = False,
    amp_mode: str | None = None,
    scaler: bool | GradScaler = False,
    gradient_accumulation_steps: int = 1,
    model_fn: Callable[[nn.Module, Any], Any] = _call_model,
    amp_dtype: torch.dtype | None = None,
) -> Engine:
    """Return an engine that trains ``model``.

    The model is put in training mode when it is found in evaluation mode, so layers that you keep
    in evaluation mode stay there as long as no evaluator runs the same model in between.

    Args:
        model: what is trained; move it to its device before its optimizer is made.
        optimizer: updates it.
        loss_fn: ``(y_pred, y) -> loss``, a 0-d tensor.
        device: where batches go; None leaves them where they are.
        non_blocking: copy asynchronously from pinned memory.
        prepare_batch: ``(batch, device=, non_blocking=) -> (x, y)``.
        model_transform: turns what the model returns into ``y_pred``.
        output_transform: ``(x, y, y_pred, loss) -> state.output``. By default the detached 0-d
            loss: no synchronisation with the device, and it formats like a number.
        deterministic: use a :class:`~cookfire.engine.DeterministicEngine`.
        amp_mode: ``"amp"`` for automatic mixed precision.
        scaler: True or a GradScaler, with ``amp_mode="amp"`` in float16; it is in
            ``engine.state.scaler``, to be saved with the rest.
        gradient_accumulation_steps: iterations that share one optimizer step. Their losses are
            averaged; the last window of an epoch is averaged over what it has.
        model_fn: ``(model, x) -> output``, where the model needs more than ``model(x)``.
        amp_dtype: see :func:`supervised_training_step_amp`.

    Raises:
        ValueError: an unknown ``amp_mode``, a scaler without it, or a bad number of steps.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
        >>> state = trainer.run([(torch.ones(4, 2), torch.ones(4, 1))], max_epochs=10)
        >>> state.output.shape
        torch.Size([])
    """
    if amp_mode not in (None, "amp"):
        hint = " (apex's amp has been retired in favour of torch.amp)" if amp_mode == "apex" else ""
        raise ValueError(f"amp_mode must be None or 'amp', got {amp_mode!r}{hint}")
    if amp_mode is None and (scaler or amp_dtype is not None):
        raise ValueError("scaler and amp_dtype need amp_mode='amp'")
    grad_scaler: GradScaler | None = None
    if scaler:
        grad_scaler = GradScaler(_device_type(model, device)) if scaler is True else scaler
    if amp_mode == "amp":
        step = supervised_training_step_amp(
            model,
            optimizer,
            loss_fn,
            device,
            non_blocking,
            prepare_batch,
            model_transform,
            output_transform,
            grad_scaler,
            gradient_accumulation_steps,
            model_fn,
            amp_dtype,
        )
    else:
        step = supervised_training_step(
            model,
            optimizer,
            loss_fn,
            device,
            non_blocking,
            prepare_batch,
            model_transform,
            output_transform,
            gradient_accumulation_steps,
            model_fn,
        )
    trainer = DeterministicEngine(step) if deterministic else Engine(step)
    if grad_scaler is not None:
        vars(trainer.state)["scaler"] = grad_scaler
    if gradient_accumulation_steps > 1:
        ends = Events.EPOCH_COMPLETED | Events.COMPLETED
        trainer.add_event_handler(ends, vars(step)["finish"])
    return trainer


def supervised_evaluation_step(
    model: nn.Module,
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = _prepare_batch,
    model_transform: Callable[[Any], Any] = _same,
    output_transform: Callable[[Any, Any, Any], Any] = _prediction_and_target,
    model_fn: Callable[[nn.Module, Any], Any] = _call_model,
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
    prepare_batch: PrepareBatch = _prepare_batch,
    model_transform: Callable[[Any], Any] = _same,
    output_transform: Callable[[Any, Any, Any], Any] = _prediction_and_target,
    model_fn: Callable[[nn.Module, Any], Any] = _call_model,
    amp_dtype: torch.dtype | None = None,
) -> Step:
    """Return an evaluation step in mixed precision; see :func:`create_supervised_evaluator`."""
    step = supervised_evaluation_step(
        model, device, non_blocking, prepare_batch, model_transform, output_transform, model_fn
    )
    device_type = _device_type(model, device)

    def step_amp(engine: Engine, batch: Any) -> Any:
        with autocast(device_type, dtype=amp_dtype):
            return step(engine, batch)

    return step_amp


def create_supervised_evaluator(
    model: nn.Module,
    metrics: Mapping[str, AttachableMetric] | None = None,
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = _prepare_batch,
    model_transform: Callable[[Any], Any] = _same,
    output_transform: Callable[[Any, Any, Any], Any] = _prediction_and_target,
    amp_mode: str | None = None,
    model_fn: Callable[[nn.Module, Any], Any] = _call_model,
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
    for name, metric in (metrics or {}).items():
        metric.attach(evaluator, name)
    return evaluator


def _device_type(model: nn.Module, device: Device) -> str:
    if device is not None:
        return torch.device(device).type
    parameter = next(iter(model.parameters()), None)
    return "cpu" if parameter is None else parameter.device.type
