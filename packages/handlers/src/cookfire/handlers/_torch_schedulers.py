"""The schedulers of torch as handlers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cookfire.engine import Engine, Events
from cookfire.handlers._optimizer_schedulers import ParamScheduler, stand_in

__all__ = ["LRScheduler", "ReduceLROnPlateauScheduler"]

T = TypeVar("T")


class LRScheduler(ParamScheduler):
    """A handler that moves a scheduler of ``torch.optim.lr_scheduler`` on.

    **The value in force.** Attached to ITERATION_STARTED, the ``k``-th step (from 0) is done with
    the scheduler's ``k``-th value: its first value at the first step. So it is, too, with
    ``use_legacy`` attached to ITERATION_COMPLETED, which is the usual place of ``scheduler.step()``
    in a plain loop: there the scheduler is moved on after each step. Attach it to EPOCH_STARTED
    for a scheduler that counts epochs.

    Args:
        lr_scheduler: the scheduler; what it is made of (warm-up and so on) is torch's affair.
        save_history: append the values at each call to ``engine.state.param_history["lr"]``, as a
            list with one value a parameter group.
        use_legacy: move on at the first call already.

    Attributes:
        lr_scheduler: the scheduler.
        optimizer: the scheduler's optimizer.
        event_index: how often it was called.

    Raises:
        TypeError: it is no scheduler, or one that needs a metric (ReduceLROnPlateau).

    Example:
        >>> scheduler = LRScheduler(StepLR(optimizer, step_size=30, gamma=0.1))
        >>> scheduler.attach(trainer)
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("event_index", "lr_scheduler")

    param_name = "lr"

    def __init__(
        self, lr_scheduler: TorchScheduler, save_history: bool = False, use_legacy: bool = False
    ) -> None:
        _check(lr_scheduler)
        super().__init__(lr_scheduler.optimizer, "lr", save_history)
        self.lr_scheduler = lr_scheduler
        self.use_legacy = use_legacy
        self._stepped = False  # by this object, in this process

    def __call__(self, engine: Engine | None, name: str | None = None) -> None:
        """Set the next value.

        Args:
            engine: gets the history, if it is wanted.
            name: the history's key; ``"lr"`` by default.
        """
        if not self.event_index and self.use_legacy and engine is not None:
            _warn_if_too_early(engine)
        super().__call__(engine, name)

    def get_param(self) -> float | list[float]:
        """Return the value in force: a number, or a list with one a parameter group."""
        values = self._values()
        return values[0] if len(values) == 1 else values

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state, the count of calls, and the history."""
        return {**super().state_dict(), "lr_scheduler": self.lr_scheduler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned.

        The value itself is in the optimizer's state: load that too.
        """
        super().load_state_dict(state_dict)
        self.lr_scheduler.load_state_dict(state_dict["lr_scheduler"])

    @classmethod
    def simulate_values(  # type: ignore[override]  # it takes a scheduler, not its arguments
        cls, num_events: int, lr_scheduler: TorchScheduler, **kwargs: Any
    ) -> list[list[Any]]:
        """Return the values of the first ``num_events`` calls; nothing is changed by it.

        Args:
            num_events: how many.
            lr_scheduler: the scheduler to try.
            kwargs: ``save_history`` and ``use_legacy``, as for the class.

        Returns:
            A row for each call: its index, and the value for each parameter group.

        Raises:
            TypeError: it is no scheduler, or one that needs a metric.

        Example:
            >>> LRScheduler.simulate_values(3, ExponentialLR(optimizer, gamma=0.5))
            [[0, 1.0], [1, 0.5], [2, 0.25]]
        """
        _check(lr_scheduler)
        scheduler = cls(copy_with_stand_ins(lr_scheduler, [lr_scheduler.optimizer]), **kwargs)
        with no_word_about_the_optimizer():
            return [[index, *scheduler._next_values()] for index in range(num_events)]

    def _advance(self, engine: Engine | None) -> None:  # noqa: ARG002 - the interface's
        if self.event_index or self.use_legacy:
            self._step()
        self.event_index += 1

    def _step(self) -> None:
        if self._stepped:
            self.lr_scheduler.step()
            return
        self._stepped = True
        with no_word_about_the_optimizer():
            self.lr_scheduler.step()

    def _values(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer_param_groups]

    def _take_over(self) -> None:
        # Most of torch's schedulers go on from the value that they find.
        self._write([_number(value) for value in self.lr_scheduler.get_last_lr()])


class ReduceLROnPlateauScheduler(ParamScheduler):
    """Lowers the learning rate when a metric no longer gets better; by torch's ReduceLROnPlateau.

    Attach it to the evaluator, at COMPLETED. Unlike the other schedules it is a function of what
    was measured, so its state is more than a step.

    Args:
        optimizer: its learning rates are lowered.
        metric_name: in the metrics of the engine that it is attached to.
        trainer: gets the history.
        save_history: see :class:`ParamScheduler`; needs ``trainer``.
        param_group_index: lower that of this group alone.
        scheduler_kwargs: those of ``torch.optim.lr_scheduler.ReduceLROnPlateau``: ``mode``,
            ``factor``, ``patience``, ``threshold``, ``cooldown``, ``min_lr``, ...

    Attributes:
        scheduler: torch's scheduler.

    Raises:
        ValueError: when called: the engine has no such metric.

    Example:
        >>> scheduler = ReduceLROnPlateauScheduler(optimizer, "loss", factor=0.1, patience=3)
        >>> handle = evaluator.add_event_handler(Events.COMPLETED, scheduler)
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("event_index", "history", "scheduler")

    def __init__(
        self,
        optimizer: Optimizer,
        metric_name: str,
        trainer: Engine | None = None,
        save_history: bool = False,
        param_group_index: int | None = None,
        **scheduler_kwargs: Any,
    ) -> None:
        super().__init__(optimizer, "lr", save_history, param_group_index)
        self.metric_name = metric_name
        self.trainer = trainer
        self.scheduler = ReduceLROnPlateau(optimizer, **scheduler_kwargs)

    def __call__(self, engine: Engine | None, name: str | None = None) -> None:
        """Look at the metric of ``engine``, and lower the learning rate if it is time."""
        self._advance(engine)
        if self.save_history and self.trainer is not None:
            self._remember(self.trainer, name)

    def get_param(self) -> float | list[float]:
        """Return the value in force: a number, or a list with one a parameter group."""
        values = self._values()
        return values[0] if len(values) == 1 else values

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state, the count of calls, and the history."""
        return {**super().state_dict(), "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned; the optimizer has the value itself."""
        super().load_state_dict(state_dict)
        self.scheduler.load_state_dict(state_dict["scheduler"])

    @classmethod
    def simulate_values(  # type: ignore[override]  # it needs what would be measured
        cls, num_events: int, metric_values: list[float], init_lr: float, **scheduler_kwargs: Any
    ) -> list[list[Any]]:
        """Return the learning rates after each of ``metric_values``.

        Args:
            num_events: how many there are.
            metric_values: what is measured.
            init_lr: the learning rate to begin with.
            scheduler_kwargs: those of the class.

        Raises:
            ValueError: there are not ``num_events`` values.

        Example:
            >>> ReduceLROnPlateauScheduler.simulate_values(
            ...     4, [1.0, 1.0, 1.0, 0.5], 0.1, factor=0.5, patience=1)
            [[0, 0.1], [1, 0.1], [2, 0.05], [3, 0.05]]
        """
        if len(metric_values) != num_events:
            raise ValueError(
                f"metric_values: expected one for each of the {num_events} events, "
                f"got {len(metric_values)}"
            )
        without = ("optimizer", "metric_name", "trainer", "save_history", "param_group_index")
        kwargs = {name: value for name, value in scheduler_kwargs.items() if name not in without}
        scheduler = cls(stand_in([{"lr": init_lr}]), "metric", **kwargs)
        engine = Engine(lambda *_: None)
        rows = []
        for index, value in enumerate(metric_values):
            engine.state.metrics["metric"] = value
            scheduler(engine)
            rows.append([index, *scheduler._values()])
        return rows

    def _advance(self, engine: Engine | None) -> None:
        metrics = {} if engine is None else engine.state.metrics
        if self.metric_name not in metrics:
            known = ", ".join(repr(name) for name in metrics) or "none"
            raise ValueError(
                f"the engine has no metric {self.metric_name!r}; its metrics are: {known}. Attach "
                "the scheduler to the engine that computes the metric, at COMPLETED"
            )
        # torch lowers all groups.
        others = [
            (group, _number(group["lr"]))
            for group in self.optimizer.param_groups
            if all(group is not mine for mine in self.optimizer_param_groups)
        ]
        self.scheduler.step(metrics[self.metric_name])
        for group, value in others:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value
        self.event_index += 1


def copy_with_stand_ins(things: T, optimizers: Sequence[Optimizer]) -> T:
    """Copy schedulers, with optimizers that have the same groups but none of the parameters."""
    memo = {id(optimizer): stand_in(optimizer.param_groups) for optimizer in optimizers}
    return copy.deepcopy(things, memo)


@contextmanager
def no_word_about_the_optimizer() -> Iterator[None]:
    """Silence torch, which wants to have seen a step of the optimizer before one of the scheduler.

    In a run that continues from a checkpoint, it was in another process; in a simulation, nowhere.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        warnings.filterwarnings("ignore", message="Seems like `optimizer.step")
        yield


def _check(lr_scheduler: object) -> None:
    if isinstance(lr_scheduler, ReduceLROnPlateau):
        raise TypeError(
            "ReduceLROnPlateau needs a metric at each step; use ReduceLROnPlateauScheduler, "
            "attached to the evaluator"
        )
    if not isinstance(lr_scheduler, TorchScheduler):
        raise TypeError(
            f"lr_scheduler must be one of torch.optim.lr_scheduler, "
            f"got {type(lr_scheduler).__name__}"
        )


def _warn_if_too_early(engine: Engine) -> None:
    if engine.last_event_name is Events.ITERATION_STARTED:
        warnings.warn(
            "LRScheduler(use_legacy=True) at ITERATION_STARTED skips the scheduler's first value; "
            "attach it to ITERATION_COMPLETED, or leave use_legacy out",
            stacklevel=3,
        )


def _number(value: float | Tensor) -> float:
    return value.item() if isinstance(value, torch.Tensor) else value
