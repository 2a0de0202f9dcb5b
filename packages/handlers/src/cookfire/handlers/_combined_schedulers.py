"""Schedulers made of schedulers: one after the other, side by side, and with a warm-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

from cookfire.engine import Engine, Events
from cookfire.handlers._base_scheduler import AnyEvent, BaseParamScheduler, Value
from cookfire.handlers._optimizer_schedulers import ParamScheduler, PiecewiseLinear
from cookfire.handlers._torch_schedulers import (
    LRScheduler,
    copy_with_stand_ins,
    no_word_about_the_optimizer,
)
from cookfire.handlers.schedules import sections

__all__ = ["ConcatScheduler", "ParamGroupScheduler", "create_lr_scheduler_with_warmup"]


class ParamGroupScheduler(BaseParamScheduler):
    """Several schedulers that are moved on together: one a group, or one a parameter.

    Args:
        schedulers: the schedulers.
        names: the keys of their histories; their parameters' names by default.
        save_history: keep the history of each.

    Raises:
        TypeError: what is given are no schedulers of optimizers.
        ValueError: there is no scheduler, or there is not one name for each; two write the same
            parameter of the same group.

    Example:
        >>> scheduler = ParamGroupScheduler([
        ...     CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, 100),
        ...     PiecewiseLinear(optimizer, "momentum", [(0, 0.5), (100, 0.9)]),
        ... ])
        >>> scheduler.attach(trainer)
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("event_index", "schedulers")

    def __init__(
        self,
        schedulers: Sequence[ParamScheduler],
        names: list[str] | None = None,
        save_history: bool = False,
    ) -> None:
        _check_schedulers(schedulers, 1)
        if names is None:
            names = [scheduler.param_name for scheduler in schedulers]
        if len(names) != len(schedulers):
            raise ValueError(
                f"names: expected one for each of {len(schedulers)} schedulers, got {names}"
            )
        written: set[tuple[int, str]] = set()
        for scheduler in schedulers:
            if twice := written & _written_by(scheduler):
                raise ValueError(
                    f"schedulers: two of them write {min(name for _, name in twice)!r} of the same "
                    "parameter group, and only the last would count; ConcatScheduler puts one "
                    "after the other"
                )
            written |= _written_by(scheduler)
        super().__init__(names[0], save_history)
        self.schedulers = schedulers
        self.names = names

    @property
    def optimizer(self) -> list[Optimizer]:
        """The schedulers' optimizers."""
        return [scheduler.optimizer for scheduler in self.schedulers]

    def attach(self, engine: Engine, event: AnyEvent = Events.ITERATION_STARTED) -> None:
        """Set the next values at each ``event`` of ``engine``."""
        engine.add_event_handler(event, self)

    def get_param(self) -> list[Value]:
        """Return each scheduler's value for ``event_index``."""
        return [one._moved_to(self.event_index).get_param() for one in self.schedulers]

    def state_dict(self) -> dict[str, Any]:
        """Return the count of calls and the schedulers' states."""
        states = [scheduler.state_dict() for scheduler in self.schedulers]
        return {"event_index": self.event_index, "schedulers": states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned.

        Raises:
            ValueError: it is the state of another number of schedulers.
        """
        super().load_state_dict(state_dict)
        _load(self.schedulers, state_dict["schedulers"])

    @classmethod
    def simulate_values(  # type: ignore[override]  # it takes schedulers, not their arguments
        cls, num_events: int, schedulers: Sequence[ParamScheduler], **kwargs: Any
    ) -> list[list[Any]]:
        """Return what the first ``num_events`` calls write; nothing is changed by it.

        Args:
            num_events: how many.
            schedulers: the schedulers.
            kwargs: those of the class.

        Returns:
            A row for each call: its index, and each scheduler's values.

        Example:
            >>> lr = PiecewiseLinear(optimizer, "lr", [(0, 1.0), (2, 0.0)])
            >>> momentum = PiecewiseLinear(optimizer, "momentum", [(0, 0.5), (1, 0.9)])
            >>> ParamGroupScheduler.simulate_values(3, [lr, momentum])
            [[0, 1.0, 0.5], [1, 0.5, 0.9], [2, 0.0, 0.9]]
        """
        optimizers = [scheduler.optimizer for scheduler in schedulers]
        scheduler = cls(copy_with_stand_ins(schedulers, optimizers), **kwargs)
        rows = []
        with no_word_about_the_optimizer():
            for index in range(num_events):
                scheduler._advance(None)
                rows.append([index, *scheduler._values()])
        return rows

    def _advance(self, engine: Engine | None) -> None:
        for scheduler in self.schedulers:
            scheduler._moved_to(self.event_index)._advance(engine)
        self.event_index += 1

    def _values(self) -> list[Any]:
        return [value for scheduler in self.schedulers for value in scheduler._values()]

    def _remember(self, engine: Engine, name: str | None) -> None:  # noqa: ARG002 - they have names
        for scheduler, own_name in zip(self.schedulers, self.names, strict=True):
            scheduler._remember(engine, own_name)

    def _take_over(self) -> None:
        for scheduler in self.schedulers:
            scheduler._take_over()

    def _moved_to(self, event_index: int) -> ParamGroupScheduler:
        self.event_index = event_index
        return self


AnyScheduler = ParamScheduler | ParamGroupScheduler


class ConcatScheduler(ParamScheduler):
    """Schedulers one after the other, each from its own first value.

    Args:
        schedulers: at least two; :class:`LRScheduler` and :class:`ParamGroupScheduler` among them.
        durations: calls of each; the last one has no end.
        save_history: keep what was written, whichever scheduler wrote it.

    Raises:
        TypeError: what is given are no schedulers of optimizers.
        ValueError: there are fewer than two, they have different optimizers, or there is not one
            duration less than schedulers.

    Example:
        >>> warmup = PiecewiseLinear(optimizer, "lr", [(0, 0.0), (5, 0.1)])
        >>> cosine = CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, 100)
        >>> ConcatScheduler([warmup, cosine], durations=[5]).attach(trainer)
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("event_index", "history", "schedulers")

    def __init__(
        self,
        schedulers: Sequence[AnyScheduler],
        durations: list[int],
        save_history: bool = False,
    ) -> None:
        _check_schedulers(schedulers, 2)
        optimizers = _optimizers(schedulers)
        if len({id(optimizer) for optimizer in optimizers}) > 1:
            raise ValueError("the schedulers must have the same optimizer, to be one schedule")
        super().__init__(optimizers[0], schedulers[0].param_name, save_history)
        self.schedulers = schedulers
        self.durations = durations
        self._find = sections(len(schedulers), durations)

    def get_param(self) -> Value:
        """Return the value for ``event_index``."""
        return self._current().get_param()

    def state_dict(self) -> dict[str, Any]:
        """Return the count of calls, the history, and the schedulers' states."""
        states = [scheduler.state_dict() for scheduler in self.schedulers]
        return {**super().state_dict(), "schedulers": states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned.

        Raises:
            ValueError: it is the state of another number of schedulers.
        """
        super().load_state_dict(state_dict)
        _load(self.schedulers, state_dict["schedulers"])

    @classmethod
    def simulate_values(  # type: ignore[override]  # it takes schedulers, not their arguments
        cls,
        num_events: int,
        schedulers: Sequence[AnyScheduler],
        durations: list[int],
        param_names: list[str] | tuple[str, ...] | None = None,
    ) -> list[list[Any]]:
        """Return what the first ``num_events`` calls write; nothing is changed by it.

        Args:
            num_events: how many.
            schedulers: the schedulers.
            durations: see the class.
            param_names: parameters whose values in the first group are wanted; by default the
                schedulers' own, in every group.

        Returns:
            A row for each call: its index, and the values.

        Example:
            >>> up = PiecewiseLinear(optimizer, "lr", [(0, 0.0), (2, 1.0)])
            >>> down = PiecewiseLinear(optimizer, "lr", [(0, 1.0), (2, 0.0)])
            >>> ConcatScheduler.simulate_values(4, [up, down], durations=[2])
            [[0, 0.0], [1, 0.5], [2, 1.0], [3, 0.5]]
        """
        scheduler = cls(copy_with_stand_ins(schedulers, _optimizers(schedulers)), durations)
        return _simulate(scheduler, num_events, param_names)

    def _current(self) -> AnyScheduler:
        number, own_index = self._find(self.event_index)
        return self.schedulers[number]._moved_to(own_index)

    def _advance(self, engine: Engine | None) -> None:
        scheduler = self._current()
        if scheduler.event_index == 0:
            scheduler._take_over()
        scheduler._advance(engine)
        self.event_index += 1


def create_lr_scheduler_with_warmup(
    lr_scheduler: ParamScheduler | TorchScheduler,
    warmup_start_value: float,
    warmup_duration: int,
    warmup_end_value: float | None = None,
    save_history: bool = False,
    output_simulated_values: list[Any] | None = None,
) -> ConcatScheduler:
    """Return a scheduler that begins with a warm-up on a straight line.

    The warm-up reaches its end value at step ``warmup_duration - 1``. Where that is the schedule's
    first value, the schedule's second follows; else its first.

    Args:
        lr_scheduler: what comes after it.
        warmup_start_value: the value at step 0, in all groups.
        warmup_duration: steps, at least 2: both ends are among them.
        warmup_end_value: by default the schedule's first value, of each group its own.
        save_history: see :class:`ParamScheduler`.
        output_simulated_values: a list that is filled with the first values, as many as it has
            room for, as rows of :meth:`ConcatScheduler.simulate_values`.

    Raises:
        TypeError: ``lr_scheduler`` is no scheduler, or ``output_simulated_values`` no list.
        ValueError: the warm-up is too short.

    Example:
        >>> torch_scheduler = ExponentialLR(optimizer, gamma=0.5)
        >>> values = [None] * 5
        >>> scheduler = create_lr_scheduler_with_warmup(
        ...     torch_scheduler, 0.0, 3, output_simulated_values=values)
        >>> values
        [[0, 0.0], [1, 0.5], [2, 1.0], [3, 0.5], [4, 0.25]]
        >>> scheduler.attach(trainer)
    """
    if isinstance(lr_scheduler, TorchScheduler):
        lr_scheduler = LRScheduler(lr_scheduler)
    if not isinstance(lr_scheduler, ParamScheduler):
        raise TypeError(
            "lr_scheduler must be a scheduler of torch.optim.lr_scheduler or a ParamScheduler, "
            f"got {type(lr_scheduler).__name__}"
        )
    if not isinstance(warmup_duration, int) or warmup_duration < 2:
        raise ValueError(
            f"warmup_duration must be at least 2 steps, its first and its last; "
            f"got {warmup_duration!r}"
        )
    if output_simulated_values is not None and not isinstance(output_simulated_values, list):
        raise TypeError(
            f"output_simulated_values must be a list to fill, "
            f"got {type(output_simulated_values).__name__}"
        )
    firsts = _first_values(lr_scheduler)
    ends = firsts if warmup_end_value is None else [warmup_end_value] * len(firsts)
    # The scheduler takes over at once where the warm-up meets it.
    duration = warmup_duration - 1 if ends == firsts else warmup_duration
    index = lr_scheduler.param_group_index
    warmups = [
        PiecewiseLinear(
            lr_scheduler.optimizer,
            lr_scheduler.param_name,
            [(0, warmup_start_value), (warmup_duration - 1, end)],
            param_group_index=number if index is None else index,
        )
        for number, end in enumerate(ends)
    ]
    warmup = warmups[0] if len(warmups) == 1 else ParamGroupScheduler(warmups)
    scheduler = ConcatScheduler([warmup, lr_scheduler], [duration], save_history)
    if output_simulated_values is not None:
        copied = copy_with_stand_ins(scheduler, [scheduler.optimizer])
        output_simulated_values[:] = _simulate(copied, len(output_simulated_values), None)
    return scheduler


def _first_values(scheduler: ParamScheduler) -> list[float]:
    if isinstance(scheduler, LRScheduler):
        return [float(value) for value in scheduler.lr_scheduler.get_last_lr()]
    value: Any = scheduler.get_param()
    count = len(scheduler.optimizer_param_groups)
    return list(value) if isinstance(value, list) else [value] * count


def _simulate(
    scheduler: ConcatScheduler, num_events: int, names: Sequence[str] | None
) -> list[list[Any]]:
    rows = []
    with no_word_about_the_optimizer():
        for index in range(num_events):
            scheduler._advance(None)
            group = scheduler.optimizer_param_groups[0]
            values = scheduler._values() if names is None else [group[name] for name in names]
            rows.append([index, *values])
    return rows


def _check_schedulers(schedulers: Sequence[Any], at_least: int) -> None:
    if not isinstance(schedulers, Sequence) or len(schedulers) < at_least:
        raise ValueError(f"schedulers: expected a list of at least {at_least}, got {schedulers!r}")
    for scheduler in schedulers:
        if not isinstance(scheduler, ParamScheduler | ParamGroupScheduler):
            raise TypeError(
                f"schedulers: expected ParamScheduler objects, got {type(scheduler).__name__}; "
                "a scheduler of torch goes into LRScheduler"
            )
    if len({id(scheduler) for scheduler in schedulers}) < len(schedulers):
        raise ValueError(
            "schedulers: expected different objects, got one twice; its count of calls would be "
            "that of both"
        )


def _written_by(scheduler: Any) -> set[tuple[int, str]]:
    """Name the groups, by identity, and the parameters of them that ``scheduler`` writes."""
    if parts := getattr(scheduler, "schedulers", None):
        return set[tuple[int, str]]().union(*map(_written_by, parts))
    return {(id(group), scheduler.param_name) for group in scheduler.optimizer_param_groups}


def _optimizers(schedulers: Sequence[Any]) -> list[Optimizer]:
    found: list[Optimizer] = []
    for scheduler in schedulers:
        optimizer = scheduler.optimizer
        found.extend(optimizer if isinstance(optimizer, list) else [optimizer])
    return found


def _load(schedulers: Sequence[AnyScheduler], states: Sequence[Mapping[str, Any]]) -> None:
    if len(states) != len(schedulers):
        raise ValueError(
            f"the state is of {len(states)} schedulers, here are {len(schedulers)}; a run goes on "
            "with the same"
        )
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)
