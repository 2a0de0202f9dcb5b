"""Ready-made training: steps and an engine for a model, an optimizer and a loss."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import autocast
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from cookfire.distributed import auto_optim, has_xla_support, no_sync, xla
from cookfire.engine._accumulation import Accumulation
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
from cookfire.engine.deterministic import DeterministicEngine, keep_random_state
from cookfire.engine.events import Events

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _detached_loss(x: Any, y: Any, y_pred: Any, loss: Tensor) -> Tensor:  # noqa: ARG001 - the transform's signature
    return loss.detach()


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
    *,
    context: Callable[[], AbstractContextManager[Any]] | None = None,
    scaler: GradScaler | None = None,
    after_step: Callable[[], Any] | None = None,
) -> Step:
    synchronised = nullcontext()

    def take_step() -> None:
        if scaler is not None:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        if after_step is not None:
            after_step()

    @keep_random_state
    def exchange(batch: Any) -> None:
        """Bring the gradients together by a pass that adds nothing to them, nor to the buffers.

        That is the one way that both DistributedDataParallel and fully_shard have.
        """
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        x, y = prepare_batch(batch, device=device, non_blocking=non_blocking)
        with nullcontext() if context is None else context():
            loss = loss_fn(model_transform(model_fn(model, x)), y)
        torch.autograd.backward(loss, torch.zeros_like(loss))
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    accumulation = Accumulation(gradient_accumulation_steps, optimizer, take_step, exchange)
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
        # Where the data may end at any moment, each iteration may turn out to be the last.
        pause = no_sync(model) if not last and engine._epoch_length_known else synchronised
        apart = not isinstance(pause, nullcontext)
        with pause:
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
        accumulation.apart = apart
        accumulation.batch = batch if apart else None
        if last:
            take_step()
        return output_transform(x, y, y_pred, loss)

    vars(step)["finish"] = accumulation.finish
    vars(step)["finish_window"] = accumulation.finish_window
    return step


def supervised_training_step(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[Any, Any], Tensor],
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = prepare_xy,
    model_transform: Callable[[Any], Any] = same,
    output_transform: Callable[[Any, Any, Any, Tensor], Any] = _detached_loss,
    gradient_accumulation_steps: int = 1,
    model_fn: Callable[[nn.Module, Any], Any] = call_model,
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


def _signed_like(
    function: Callable[Parameters, Result],
) -> Callable[[Callable[..., Result]], Callable[Parameters, Result]]:
    """Give a function the parameters and defaults of ``function``; it gets all by position."""
    signature = inspect.signature(function)

    def sign(other: Callable[..., Result]) -> Callable[Parameters, Result]:
        @functools.wraps(other)
        def signed(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return other(*bound.args)

        vars(signed)["__signature__"] = signature
        return signed

    return sign


@_signed_like(supervised_training_step)
def supervised_training_step_tpu(model: nn.Module, optimizer: Optimizer, *others: Any) -> Step:
    """Return a training step for an XLA device; :func:`supervised_training_step` and a little more.

    Replicas average their gradients, and each optimizer step starts on the device. A loader of
    ``cookfire.distributed.auto_dataloader`` does the latter once a batch, so that there the plain
    step is as good; this one serves any data. Arguments are those of
    :func:`create_supervised_trainer`, which takes this step where ``device`` is an XLA device.

    Raises:
        ModuleNotFoundError: torch_xla is not installed.
        ValueError: the optimizer was made before its model was moved to the device.
    """
    return _training_step(model, optimizer, *others, after_step=_start_on_xla(optimizer))


def supervised_training_step_amp(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[Any, Any], Tensor],
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = prepare_xy,
    model_transform: Callable[[Any], Any] = same,
    output_transform: Callable[[Any, Any, Any, Tensor], Any] = _detached_loss,
    scaler: GradScaler | None = None,
    gradient_accumulation_steps: int = 1,
    model_fn: Callable[[nn.Module, Any], Any] = call_model,
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
            on CUDA, bfloat16 on CPU and XLA).
    """
    device_type = device_type_of(model, device)

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
        after_step=_start_on_xla(optimizer) if device_type == "xla" else None,
    )


def create_supervised_trainer(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Callable[[Any, Any], Tensor],
    device: Device = None,
    non_blocking: bool = False,
    prepare_batch: PrepareBatch = prepare_xy,
    model_transform: Callable[[Any], Any] = same,
    output_transform: Callable[[Any, Any, Any, Tensor], Any] = _detached_loss,
    deterministic: bool = False,
    amp_mode: str | None = None,
    scaler: bool | GradScaler = False,
    gradient_accumulation_steps: int = 1,
    model_fn: Callable[[nn.Module, Any], Any] = call_model,
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
        grad_scaler = GradScaler(device_type_of(model, device)) if scaler is True else scaler
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
        make_step = supervised_training_step
        if device_type_of(model, device) == "xla":
            make_step = supervised_training_step_tpu
        step = make_step(
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
        # terminate_epoch(skip_epoch_completed=True) lets nothing else end the window.
        trainer.add_event_handler(Events.TERMINATE_SINGLE_EPOCH, vars(step)["finish_window"])
    return trainer


def _start_on_xla(optimizer: Optimizer) -> Callable[[], None]:
    """Prepare an optimizer, and return what lets an XLA device begin with what it was asked for."""
    if not has_xla_support:
        raise ModuleNotFoundError("training on an XLA device needs torch_xla; see docs/xla.md")
    auto_optim(optimizer)
    return xla.sync
