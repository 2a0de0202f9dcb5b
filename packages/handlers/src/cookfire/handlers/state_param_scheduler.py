"""Schedules of anything: values written to attributes of an engine's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from cookfire.engine import Engine, Events
from cookfire.handlers._base_scheduler import AnyEvent, BaseParamScheduler
from cookfire.handlers._checks import check_free_in_state
from cookfire.handlers.schedules import exponential, multi_step, piecewise_linear, step_decay

__all__ = [
    "ExpStateScheduler",
    "LambdaStateScheduler",
    "MultiStepStateScheduler",
    "PiecewiseLinearStateScheduler",
    "StateParamScheduler",
    "StepStateScheduler",
]

Value = float | list[float]


class StateParamScheduler(BaseParamScheduler):
    """The base of what schedules ``engine.state.<param_name>``, for a step or a handler to read.

    **The value in force.** With ``create_new``, the value at 0 is there as soon as it is attached,
    and each event sets the next: attached to ITERATION_COMPLETED, as by default, the ``k``-th step
    (from 0) finds the schedule's value at ``k``.

    Args:
        param_name: the attribute.
        save_history: see :class:`BaseParamScheduler`; a value for each call.
        create_new: make the attribute; by default it must be there.

    Raises:
        ValueError: it is the name of one of the state's own attributes; when attached: it is
            missing, or is there and is to be made.

    Example:
        >>> class Counting(StateParamScheduler):
        ...     def get_param(self):
        ...         return self.event_index
        >>> Counting("difficulty", create_new=True).attach(trainer)
        >>> trainer.state.difficulty
        0
        >>> trainer.run([0] * 3).difficulty
        3
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("event_index", "history", "value")

    def __init__(
        self, param_name: str, save_history: bool = False, create_new: bool = False
    ) -> None:
        super().__init__(param_name, save_history)
        check_free_in_state("param_name", param_name)
        self.create_new = create_new
        self._engine: Engine | None = None
        self._value: Any = None

    def attach(self, engine: Engine, event: AnyEvent = Events.ITERATION_COMPLETED) -> None:
        """Set the next value at each ``event`` of ``engine``."""
        if hasattr(engine.state, self.param_name) == self.create_new:
            raise ValueError(
                f"engine.state has an attribute {self.param_name!r} already; choose another name, "
                "or leave create_new out"
                if self.create_new
                else f"engine.state has no attribute {self.param_name!r}; give create_new=True to "
                "make it"
            )
        if self.create_new:
            self._value = self.get_param()
            setattr(engine.state, self.param_name, self._value)
        self._engine = engine
        engine.add_event_handler(event, self)

    def state_dict(self) -> dict[str, Any]:
        """Return the count of calls, the history, and the value in force."""
        return {**super().state_dict(), "value": self._value}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned; the value is put into the engine's state."""
        super().load_state_dict(state_dict)
        self._value = state_dict["value"]
        if self._engine is not None and (self.event_index or self.create_new):
            setattr(self._engine.state, self.param_name, self._value)

    @classmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """Return what the first ``num_events`` calls write.

        Args:
            num_events: how many.
            scheduler_kwargs: the class's arguments by name.

        Returns:
            A row for each call: its index, and the value.

        Example:
            >>> ExpStateScheduler.simulate_values(
            ...     3, param_name="noise", initial_value=1.0, gamma=0.5)
            [[0, 0.5], [1, 0.25], [2, 0.125]]
        """
        kwargs = scheduler_kwargs | {"save_history": False, "create_new": True}
        scheduler, engine = cls(**kwargs), Engine(lambda *_: None)
        rows = []
        for index in range(num_events):
            scheduler._advance(engine)
            rows.append([index, scheduler._value])
        return rows

    def _advance(self, engine: Engine | None) -> None:
        self.event_index += 1
        self._value = self.get_param()
        if engine is not None:
            setattr(engine.state, self.param_name, self._value)

    def _values(self) -> Any:
        return self._value


class LambdaStateScheduler(StateParamScheduler):
    """Any schedule, written to an engine's state.

    Args:
        lambda_obj: a function from the step to the value: one of
            :mod:`cookfire.handlers.schedules`, or your own.
        param_name: see :class:`StateParamScheduler`.
        save_history: see there.
        create_new: see there.

    Raises:
        TypeError: ``lambda_obj`` is no function.

    Example:
        >>> LambdaStateScheduler(lambda step: 1 / (1 + step), "noise", create_new=True).attach(
        ...     trainer)
        >>> trainer.run([0] * 3).noise
        0.25
    """

    def __init__(
        self,
        lambda_obj: Callable[[int], Value],
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        super().__init__(param_name, save_history, create_new)
        if not callable(lambda_obj):
            raise TypeError(f"lambda_obj must be a function of the step, got {lambda_obj!r}")
        self.lambda_obj = lambda_obj

    def get_param(self) -> Value:
        """Return the value at ``event_index``."""
        return self.lambda_obj(self.event_index)


class PiecewiseLinearStateScheduler(LambdaStateScheduler):
    """Straight lines between ``(step, value)``; constant before the first and after the last.

    Args:
        milestones_values: in the order of the steps.
        param_name: see :class:`StateParamScheduler`.
        save_history: see there.
        create_new: see there.

    Example:
        >>> PiecewiseLinearStateScheduler.simulate_values(
        ...     3, param_name="noise", milestones_values=[(1, 1.0), (3, 0.0)])
        [[0, 1.0], [1, 0.5], [2, 0.0]]
    """

    def __init__(
        self,
        milestones_values: list[tuple[int, float]],
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        super().__init__(piecewise_linear(milestones_values), param_name, save_history, create_new)


class ExpStateScheduler(LambdaStateScheduler):
    """``initial_value * gamma**step``.

    Args:
        initial_value: the value at 0.
        gamma: the factor a step.
        param_name: see :class:`StateParamScheduler`.
        save_history: see there.
        create_new: see there.
    """

    def __init__(
        self,
        initial_value: float,
        gamma: float,
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        super().__init__(exponential(initial_value, gamma), param_name, save_history, create_new)


class StepStateScheduler(LambdaStateScheduler):
    """Multiplied by ``gamma`` after each ``step_size`` steps.

    Args:
        initial_value: the value at 0.
        gamma: the factor.
        step_size: steps between.
        param_name: see :class:`StateParamScheduler`.
        save_history: see there.
        create_new: see there.
    """

    def __init__(
        self,
        initial_value: float,
        gamma: float,
        step_size: int,
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        schedule = step_decay(initial_value, gamma, step_size)
        super().__init__(schedule, param_name, save_history, create_new)


class MultiStepStateScheduler(LambdaStateScheduler):
    """Multiplied by ``gamma`` at each of the milestones.

    Args:
        initial_value: the value at 0.
        gamma: the factor.
        milestones: steps, ascending.
        param_name: see :class:`StateParamScheduler`.
        save_history: see there.
        create_new: see there.
    """

    def __init__(
        self,
        initial_value: float,
        gamma: float,
        milestones: list[int],
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        schedule = multi_step(initial_value, gamma, milestones)
        super().__init__(schedule, param_name, save_history, create_new)
