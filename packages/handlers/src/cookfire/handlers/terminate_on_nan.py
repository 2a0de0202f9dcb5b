"""Ending a training whose numbers are no longer finite."""

from __future__ import annotations

import cmath
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy
import torch
from torch import Tensor

import cookfire.distributed as idist
from cookfire.distributed._uneven import uneven_order
from cookfire.engine import Engine
from cookfire.handlers._checks import check_whole

__all__ = ["TerminateOnNan"]

_CPU = torch.device("cpu")


class TerminateOnNan:
    """Terminates the engine when its output holds nan or an infinity.

    Numbers and tensors in nested dicts, lists and tuples are looked at, everything else is passed
    over. Numbers are judged as they are: 1e100 is finite.

    Numbers and tensors on the CPU are judged at each call. To read a tensor on another device the
    program would wait until the device has caught up, so there each output is only folded into a
    flag on the device, which is read every ``every`` iterations and at the end of an epoch. Several
    processes always do so: they look together, to stop together; attach it on every rank.

    The warning names the iteration at which it was noticed.

    Args:
        output_transform: takes the engine's output, returns what to look at.
        every: iterations between looks at the flag. 10 by default: one wait is shared by ten
            steps, and of a run that is lost at most ten are wasted.

    Raises:
        ValueError: ``every`` is below 1; (when called) some processes have a batch less than
            others, so that they can't look together.

    Example:
        >>> handle = trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan())
    """

    def __init__(
        self, output_transform: Callable[[Any], Any] | None = None, every: int = 10
    ) -> None:
        if output_transform is not None and not callable(output_transform):
            raise TypeError(f"output_transform must be a function, got {output_transform!r}")
        check_whole("every", every, "iteration")
        self.output_transform = output_transform
        self.every = every
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")
        # By device: 0 if all was finite since the last look, else nan; and where that look was.
        self._flags: dict[torch.device, Tensor] = {}
        self._looked_at = 0

    def __call__(self, engine: Engine) -> None:
        """Look at the output, and terminate the engine if something in it is not finite."""
        output = engine.state.output
        if self.output_transform is not None:
            output = self.output_transform(output)
        if isinstance(output, Tensor) and output.is_cpu and output.dim() == 0:
            leaves: Iterable[Any] = (output.item(),)
        else:
            leaves = _leaves(output)
        for value in leaves:
            if isinstance(value, Tensor) and not value.is_cpu:
                self._fold(value)
            elif not _is_finite(value):
                if idist.get_world_size() == 1:
                    self._terminate(engine, _describe(value))
                    return
                self._flags[_CPU] = torch.tensor(math.nan)
        if self._is_due(engine) and (self._flags or idist.get_world_size() > 1):
            self._look(engine)

    def _fold(self, value: Tensor) -> None:
        if not (value.is_floating_point() or value.is_complex()):
            return
        # 0 times a finite number is 0, else nan. Two or three kernels on the device in place of
        # the seven of isfinite().all().
        zero = value.detach() * 0
        if zero.dim():
            zero = zero.sum()
        flag = self._flags.get(value.device)
        self._flags[value.device] = zero if flag is None else flag + zero

    def _is_due(self, engine: Engine) -> bool:
        # Compared by periods, so that it also works where the handler is called seldom.
        due = engine.state.iteration // self.every != self._looked_at // self.every
        return due or engine.epoch_iteration == engine.state.epoch_length

    def _look(self, engine: Engine) -> None:
        since, self._looked_at = self._looked_at, engine.state.iteration
        if (order := uneven_order(engine.state.dataloader)) is not None:
            raise ValueError(
                "TerminateOnNan: expected equally many batches in all processes, which look "
                f"together, given {order.size} items in batches of {order.batch_size} for "
                f"{order.world_size} processes; give auto_dataloader shuffle=True, drop_last=True "
                "or another batch_size"
            )
        # All ranks stop at the same iteration, or those that go on would wait for the others.
        finite = idist.all_reduce(int(self._all_finite()), "MIN")
        self._flags.clear()
        if not finite:
            self._terminate(engine, f"a value after iteration {since}")

    def _all_finite(self) -> bool:
        return all(bool(flag.isfinite()) for flag in self._flags.values())

    def _terminate(self, engine: Engine, what: str) -> None:
        self.logger.warning(
            "stopped: the output is not finite: %s, noticed at iteration %d (epoch %d)",
            what,
            engine.state.iteration,
            engine.state.epoch,
        )
        engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """Return what the flag says, for which it waits for the device."""
        return {"looked_at": self._looked_at, "finite": self._all_finite()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned."""
        self._looked_at = state_dict["looked_at"]
        self._flags = {} if state_dict["finite"] else {_CPU: torch.tensor(math.nan)}


def _leaves(value: Any) -> Iterator[Any]:
    """Walk through nested dicts, lists and tuples."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for item in value:
        yield from _leaves(item)


def _is_finite(value: Any) -> bool:
    """Judge a number, array or tensor on the CPU; anything else is no number, and passes."""
    if isinstance(value, Tensor):
        if not (value.is_floating_point() or value.is_complex()):
            return True
        return cmath.isfinite(value.item()) if value.numel() == 1 else bool(value.isfinite().all())
    if isinstance(value, float | complex):
        return cmath.isfinite(value)
    if isinstance(value, numpy.ndarray | numpy.generic) and value.dtype.kind in "fc":
        return bool(numpy.isfinite(value).all())
    return True


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", ())
    return f"an element of shape {tuple(shape)}" if shape else f"{value}"
