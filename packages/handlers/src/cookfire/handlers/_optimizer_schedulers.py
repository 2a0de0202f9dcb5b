"""Schedules written to the parameter groups of an optimizer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from cookfire.engine import Engine, Events
from cookfire.handlers._base_scheduler import AnyEvent, BaseParamScheduler
from cookfire.handlers.schedules import (
    Schedule,
    Shape,
    cosine,
    cycles,
    linear,
    piecewise_linear,
    triangle,
)

__all__ = [
    "CosineAnnealingScheduler",
    "CyclicalScheduler",
    "LambdaScheduler",
    "LinearCyclicalScheduler",
    "ParamScheduler",
    "PiecewiseLinear",
]


class ParamScheduler(BaseParamScheduler):
    """The base of what schedules a parameter of an optimizer, such as ``"lr"``.

    **The value in force.** Attached to ITERATION_STARTED, the ``k``-th step (from 0) is done with
    the schedule's value at ``k``. Where the value is a tensor, as ``capturable`` optimizers have
    it, it is filled, so that what was compiled with it sees the new value.

    Args:
        optimizer: a torch optimizer, or anything with ``param_groups``.
        param_name: a key of its groups.
        save_history: see :class:`BaseParamScheduler`; a list with one value a group for each call.
        param_group_index: write to this group alone; to all by default.

    Raises:
        TypeError: ``optimizer`` has no parameter groups; when called: the value is no number.
        ValueError: its groups have no such parameter, or there is no such group; when called: the
            value is not finite.

    Example:
        >>> class Halving(ParamScheduler):
        ...     def get_param(self):
        ...         return 0.5**self.event_index
        >>> scheduler = Halving(optimizer, "lr")
        >>> scheduler.attach(trainer)
        >>> state = trainer.run([0] * 4)
        >>> optimizer.param_groups[0]["lr"]
        0.125
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        super().__init__(param_name, save_history)
        if not isinstance(getattr(optimizer, "param_groups", None), Sequence):
            raise TypeError(
                f"optimizer must be an optimizer of torch, or have param_groups; "
                f"got {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.param_group_index = param_group_index
        count = len(optimizer.param_groups)
        if param_group_index is not None and not -count <= param_group_index < count:
            raise ValueError(
                f"param_group_index {param_group_index}: the optimizer has {count} groups"
            )
        for group in self.optimizer_param_groups:
            if param_name not in group:
                known = ", ".join(repr(name) for name in group if name != "params")
                raise ValueError(
                    f"param_name {param_name!r}: the optimizer's groups have no such parameter; "
                    f"they have {known}"
                )

    @property
    def optimizer_param_groups(self) -> list[dict[str, Any]]:
        """The groups that are written to."""
        if self.param_group_index is None:
            return self.optimizer.param_groups
        return [self.optimizer.param_groups[self.param_group_index]]

    def attach(self, engine: Engine, event: AnyEvent = Events.ITERATION_STARTED) -> None:
        """Set the next value at each ``event`` of ``engine``."""
        engine.add_event_handler(event, self)

    @classmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """Return what the first ``num_events`` calls write; no optimizer is needed.

        Args:
            num_events: how many.
            scheduler_kwargs: the class's arguments by name, without the optimizer.

        Returns:
            A row for each call: its index, and the value.

        Example:
            >>> PiecewiseLinear.simulate_values(
            ...     3, param_name="lr", milestones_values=[(0, 1.0), (2, 0.0)])
            [[0, 1.0], [1, 0.5], [2, 0.0]]
        """
        without = ("optimizer", "param_group_index", "save_history")
        kwargs = {name: value for name, value in scheduler_kwargs.items() if name not in without}
        optimizer = stand_in([{kwargs.get("param_name", "lr"): 0.0}])
        scheduler = cls(optimizer=optimizer, **kwargs)
        return [[index, *scheduler._next_values()] for index in range(num_events)]

    def _advance(self, engine: Engine | None) -> None:  # noqa: ARG002 - the interface's
        self._write(self.get_param())
        self.event_index += 1

    def _write(self, value: Any) -> None:
        groups = self.optimizer_param_groups
        values = value if isinstance(value, list) else [value] * len(groups)
        for group, one in zip(groups, values, strict=True):
            self._check(one, group[self.param_name])
            if isinstance(group[self.param_name], Tensor):
                group[self.param_name].fill_(one)
            else:
                group[self.param_name] = one

    def _check(self, value: Any, before: Any) -> None:
        what = f"{type(self).__name__}: the value of {self.param_name!r} at step {self.event_index}"
        if isinstance(before, tuple) and not isinstance(value, tuple):
            raise TypeError(f"{what} must be a tuple as in {before!r}, got {value!r}")
        if not isinstance(value, Real | Tensor | tuple):
            raise TypeError(f"{what} must be a number, got {value!r}")
        # A tensor is not looked at: that would wait for its device.
        if isinstance(value, Real) and not math.isfinite(value):
            raise ValueError(f"{what} must be finite, got {value!r}")

    def _values(self) -> list[Any]:
        return [_plain(group[self.param_name]) for group in self.optimizer_param_groups]

    def _next_values(self) -> list[Any]:
        self._advance(None)
        return self._values()

    def _take_over(self) -> None:
        """Make ready to be called after another scheduler of the same parameter."""

    def _moved_to(self, event_index: int) -> Self:
        self.event_index = event_index
        return self


class LambdaScheduler(ParamScheduler):
    """Any schedule, written to an optimizer.

    Args:
        optimizer: see :class:`ParamScheduler`.
        param_name: see there.
        schedule: a function from the step, from 0, to the value: one of
            :mod:`cookfire.handlers.schedules`, or your own.
        save_history: see there.
        param_group_index: see there.

    Example:
        >>> LambdaScheduler.simulate_values(
        ...     3, param_name="lr", schedule=lambda step: 1 / (1 + step))
        [[0, 1.0], [1, 0.5], [2, 0.3333333333333333]]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        schedule: Schedule,
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        super().__init__(optimizer, param_name, save_history, param_group_index)
        if not callable(schedule):
            raise TypeError(f"schedule must be a function of the step, got {schedule!r}")
        self.schedule = schedule

    def get_param(self) -> float:
        """Return the schedule's value at ``event_index``."""
        return self.schedule(self.event_index)


class PiecewiseLinear(LambdaScheduler):
    """Straight lines between milestones; constant before the first and after the last.

    Args:
        optimizer: see :class:`ParamScheduler`.
        param_name: see there.
        milestones_values: ``(step, value)``, in the order of the steps. Of two at the same step
            the later one counts: a jump.
        save_history: see there.
        param_group_index: see there.

    Raises:
        ValueError: there are no milestones, or their steps go back.

    Example:
        >>> scheduler = PiecewiseLinear(optimizer, "lr", [(0, 0.0), (100, 0.1), (500, 0.0)])
        >>> scheduler.attach(trainer)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        milestones_values: list[tuple[int, float]],
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        schedule = piecewise_linear(milestones_values)
        super().__init__(optimizer, param_name, schedule, save_history, param_group_index)


class CyclicalScheduler(LambdaScheduler):
    """The base of what repeats a cycle; ``shape`` says how it looks.

    Args:
        optimizer: see :class:`ParamScheduler`.
        param_name: see there.
        start_value: the value at the beginning of the first cycle.
        end_value: the value at its middle, or, of a monotonic shape, towards its end.
        cycle_size: steps of the first cycle, at least 2.
        cycle_mult: each cycle is so many times as long as the one before.
        start_value_mult: factor from each cycle's start value to the next one's.
        end_value_mult: the same for end values.
        warmup_duration: steps from the end of a cycle to the start of the next, on a straight line;
            they grow with the cycles.
        save_history: see there.
        param_group_index: see there.

    Raises:
        ValueError: ``cycle_size`` is below 2, ``cycle_mult`` not positive, or the warm-up negative.
    """

    shape: Shape

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        start_value: float,
        end_value: float,
        cycle_size: int,
        cycle_mult: float = 1.0,
        start_value_mult: float = 1.0,
        end_value_mult: float = 1.0,
        warmup_duration: int = 0,
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        schedule = cycles(
            start_value,
            end_value,
            cycle_size,
            self.shape,
            size_mult=cycle_mult,
            start_mult=start_value_mult,
            end_mult=end_value_mult,
            warmup=warmup_duration,
        )
        super().__init__(optimizer, param_name, schedule, save_history, param_group_index)


class LinearCyclicalScheduler(CyclicalScheduler):
    """Straight to ``end_value`` and back; with ``monotonic``, straight to it and then a jump.

    Args:
        args: see :class:`CyclicalScheduler`.
        monotonic: one way only; needed for a ``warmup_duration``, which is the way back.
        kwagrs: see :class:`CyclicalScheduler`.

    Raises:
        ValueError: see there; or there is a warm-up without ``monotonic``.

    Example:
        >>> LinearCyclicalScheduler.simulate_values(
        ...     6, param_name="lr", start_value=1.0, end_value=0.0, cycle_size=4)
        [[0, 1.0], [1, 0.5], [2, 0.0], [3, 0.5], [4, 1.0], [5, 0.5]]
    """

    def __init__(self, *args: Any, monotonic: bool = False, **kwagrs: Any) -> None:
        self.monotonic = monotonic
        self.shape = linear if monotonic else triangle
        super().__init__(*args, **kwagrs)
        # By position or by name: warmup_duration is the ninth argument.
        warmup = args[8] if len(args) > 8 else kwagrs.get("warmup_duration", 0)
        if warmup and not monotonic:
            raise ValueError(
                f"warmup_duration {warmup}: a cycle that comes back by itself has no warm-up; "
                "give monotonic=True"
            )


class CosineAnnealingScheduler(CyclicalScheduler):
    """Half a cosine from ``start_value`` to ``end_value``, and then a jump or a warm-up.

    The arguments are those of :class:`CyclicalScheduler`; the formula is from I. Loshchilov and
    F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts (2017).

    Example:
        >>> scheduler = CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, cycle_size=1000)
        >>> scheduler.attach(trainer)
    """

    shape = staticmethod(cosine)


def stand_in(groups: Sequence[dict[str, Any]]) -> Optimizer:
    """Return an optimizer that has the same groups, and none of the parameters."""
    optimizer = torch.optim.SGD([{"params": [torch.zeros(())]} for _ in groups])
    for new, old in zip(optimizer.param_groups, groups, strict=True):
        new.update(copy.deepcopy({name: old[name] for name in old if name != "params"}))
    return optimizer


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value
