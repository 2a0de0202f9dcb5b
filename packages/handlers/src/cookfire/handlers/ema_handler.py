"""A moving average of a model's weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from cookfire.engine import Engine, Events
from cookfire.engine.base import Serializable
from cookfire.handlers._base_scheduler import AnyEvent
from cookfire.handlers._checks import check_above_zero, check_whole
from cookfire.handlers._objects import load_into, state_of, unwrap
from cookfire.handlers.schedules import piecewise_linear
from cookfire.handlers.state_param_scheduler import LambdaStateScheduler

__all__ = ["EMAHandler"]


class EMAHandler(Serializable):
    r"""Keeps an exponential moving average of a model, in a model of its own.

    .. math:: \theta_{ema} \leftarrow (1 - m) \, \theta_{ema} + m \, \theta

    An average of weights often generalises better than the last ones: B. Polyak and A. Juditsky,
    Acceleration of Stochastic Approximation by Averaging (1992). ``m`` is small, and
    ``1 / m`` about the number of iterations that are averaged over: 5,000 by default.

    The average has the dtype of the weights. In bfloat16, changes below a 256th of a weight are
    rounded away; keep the weights in float32 and compute by ``torch.autocast``.

    Args:
        model: the model that is trained, on its device already; what DistributedDataParallel or
            torch.compile add to it is passed over.
        momentum: ``m``, between 0 and 1.
        momentum_warmup: ``m`` at the first update; it goes to ``momentum`` on a straight line.
        warmup_iters: updates of the warm-up.
        handle_buffers: ``"copy"``: the average has the model's buffers; ``"update"``: they are
            averaged too (integers are copied); ``"ema_train"``: they are left alone, and the
            average is in training mode, to fill them by itself.

    Attributes:
        model: the model, unwrapped.
        ema_model: the average; in evaluation mode unless ``handle_buffers="ema_train"``.
        momentum_scheduler: the handler that does the warm-up, once attached.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: a number is out of range, ``handle_buffers`` unknown, or one setting of the
            warm-up is given without the other.

    Example:
        >>> ema = EMAHandler(model, momentum=0.001)
        >>> ema.attach(trainer)
        >>> state = trainer.run(data)
        >>> with ema.swapped():  # evaluate or save the average under the model's name
        ...     state = evaluator.run(data)
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("ema_model", "momentum")

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        momentum_warmup: float | None = None,
        warmup_iters: int | None = None,
        handle_buffers: Literal["copy", "update", "ema_train"] = "copy",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a module, got {type(model).__name__}")
        check_above_zero("momentum", momentum)
        if not momentum < 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum!r}")
        if (momentum_warmup is None) != (warmup_iters is None):
            raise ValueError(
                "a warm-up needs both momentum_warmup and warmup_iters, "
                f"got {momentum_warmup!r} and {warmup_iters!r}"
            )
        if momentum_warmup is not None and not (
            isinstance(momentum_warmup, int | float) and 0 <= momentum_warmup <= 1
        ):
            raise ValueError(f"momentum_warmup must be from 0 to 1, got {momentum_warmup!r}")
        if warmup_iters is not None:
            check_whole("warmup_iters", warmup_iters, "update")
        if handle_buffers not in ("copy", "update", "ema_train"):
            raise ValueError(
                f"handle_buffers must be 'copy', 'update' or 'ema_train', got {handle_buffers!r}"
            )
        self.momentum = momentum
        self.handle_buffers = handle_buffers
        self.model: nn.Module = unwrap(model)
        self.ema_model = copy.deepcopy(self.model).requires_grad_(False)
        self.ema_model.train(handle_buffers == "ema_train")
        self.momentum_scheduler: LambdaStateScheduler | None = None
        self._warmup = None
        if momentum_warmup is not None and warmup_iters is not None:
            # Calls are counted from 1.
            end = max(warmup_iters, 2)
            self._warmup = piecewise_linear([(1, momentum_warmup), (end, momentum)])
        self._attached: dict[str, Engine] = {}
        self._is_swapped = False

    def attach(
        self,
        engine: Engine,
        name: str = "ema_momentum",
        warn_if_exists: bool = True,
        event: AnyEvent = Events.ITERATION_COMPLETED,
    ) -> None:
        """Update the average at ``event`` of ``engine``.

        Args:
            engine: trains the model.
            name: the attribute of ``engine.state`` in which the momentum is, for anybody to read
                and to schedule. Two handlers of one engine need two names.
            warn_if_exists: warn if there is such an attribute; it is used as it is.
            event: when to update.
        """
        if not hasattr(engine.state, name):
            setattr(engine.state, name, self.momentum)
        elif warn_if_exists:
            warnings.warn(
                f"engine.state has an attribute {name!r} already, which is now the momentum; give "
                "another name, or warn_if_exists=False",
                stacklevel=2,
            )
        if self._warmup is not None:
            self.momentum_scheduler = LambdaStateScheduler(self._warmup, name)
            self.momentum_scheduler.attach(engine, event)
        self._attached[name] = engine
        engine.add_event_handler(event, self._update, name)

    @contextmanager
    def swapped(self) -> Iterator[nn.Module]:
        """Give the model the average's weights and buffers, and take them back afterwards.

        Contents are exchanged in place, one tensor at a time, so that optimizers, wrappers and
        compiled code see them; both models have the same bits afterwards as before. Training in
        between changes the average.

        Yields:
            The model.

        Raises:
            RuntimeError: they are swapped already.
        """
        if self._is_swapped:
            raise RuntimeError("swapped already: a second swap would undo the first")
        self._is_swapped = True
        self._swap()
        try:
            yield self.model
        finally:
            self._swap()
            self._is_swapped = False

    def state_dict(self) -> dict[str, Any]:
        """Return the average, and the momentum of each engine that it is attached to."""
        momentum = {name: getattr(engine.state, name) for name, engine in self._attached.items()}
        return {"ema_model": state_of(self.ema_model), "momentum": momentum}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        super().load_state_dict(state_dict)
        load_into(self.ema_model, state_dict["ema_model"])
        for name, value in state_dict["momentum"].items():
            if name in self._attached:
                setattr(self._attached[name].state, name, value)

    @torch.no_grad()
    def _update(self, engine: Engine, name: str) -> None:
        momentum = getattr(engine.state, name)
        parameters = list(zip(self.ema_model.parameters(), self.model.parameters(), strict=True))
        _average(parameters, momentum)
        if self.handle_buffers == "ema_train":
            return
        buffers = list(zip(self.ema_model.buffers(), self.model.buffers(), strict=True))
        if self.handle_buffers == "update":
            _average(buffers, momentum)
        else:
            _copy(buffers)

    @torch.no_grad()
    def _swap(self) -> None:
        for ours, theirs in zip(_tensors(self.ema_model), _tensors(self.model), strict=True):
            kept = theirs.clone()
            theirs.copy_(ours)
            ours.copy_(kept)


def _average(pairs: Sequence[tuple[Tensor, Tensor]], weight: float) -> None:
    """Move the first of each pair towards the second; whole numbers have no average: copy them."""
    fractional = [pair for pair in pairs if _is_fractional(pair[0])]
    if fractional:
        # One kernel for many tensors; the weight is a plain number: nothing waits for the device.
        averages, values = zip(*fractional, strict=True)
        torch._foreach_lerp_(averages, values, weight)
    _copy([pair for pair in pairs if not _is_fractional(pair[0])])


def _copy(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    if pairs:
        ours, theirs = zip(*pairs, strict=True)
        torch._foreach_copy_(ours, theirs)


def _is_fractional(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
