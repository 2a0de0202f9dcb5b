"""Schedules of an optimizer's parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cookfire.engine import CallableEventWithFilter, Engine, EventEnum, Events, EventsList
from cookfire.engine.base import Serializable

__all__ = ["LRScheduler"]


class LRScheduler(Serializable):
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
        self.lr_scheduler = lr_scheduler
        self.save_history = save_history
        self.use_legacy = use_legacy
        self.event_index = 0
        self._history: list[list[float]] = []
        self._stepped = False  # by this object, in this process

    @property
    def optimizer(self) -> Optimizer:
        """The scheduler's optimizer."""
        return self.lr_scheduler.optimizer

    @property
    def optimizer_param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""
        return self.optimizer.param_groups

    def attach(
        self,
        engine: Engine,
        event: EventEnum | CallableEventWithFilter | EventsList = Events.ITERATION_STARTED,
    ) -> None:
        """Move the scheduler on at ``event`` of ``engine``."""
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine | None, name: str | None = None) -> None:
        """Set the next value.

        Args:
            engine: gets the history, if it is wanted.
            name: the history's key; ``"lr"`` by default.
        """
        if self.event_index or self.use_legacy:
            self._step()
        if not self.event_index and self.use_legacy and engine is not None:
            _warn_if_too_early(engine)
        self.event_index += 1
        if self.save_history and engine is not None:
            self._history.append([float(group["lr"]) for group in self.optimizer_param_groups])
            history = vars(engine.state).setdefault("param_history", {})
            history[name or self.param_name] = self._history

    def _step(self) -> None:
        if self._stepped:
            self.lr_scheduler.step()
            return
        self._stepped = True
        with _no_word_about_the_optimizer():
            self.lr_scheduler.step()

    def get_param(self) -> float | list[float]:
        """Return the value in force: a number, or a list with one a parameter group."""
        values = [float(group["lr"]) for group in self.optimizer_param_groups]
        return values[0] if len(values) == 1 else values

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state, the count of calls, and the history."""
        return {
            "event_index": self.event_index,
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "history": [list(values) for values in self._history],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned.

        The value itself is in the optimizer's state: load that too.
        """
        super().load_state_dict(state_dict)
        self.event_index = state_dict["event_index"]
        self.lr_scheduler.load_state_dict(state_dict["lr_scheduler"])
        self._history[:] = [list(values) for values in state_dict.get("history", [])]

    @classmethod
    def simulate_values(
        cls, num_events: int, lr_scheduler: TorchScheduler, **kwargs: Any
    ) -> list[list[float]]:
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
        scheduler = cls(_copy(lr_scheduler), **kwargs)
        rows = []
        with _no_word_about_the_optimizer():
            for index in range(num_events):
                scheduler(None)
                rows.append([index, *(float(g["lr"]) for g in scheduler.optimizer_param_groups)])
        return rows

    @classmethod
    def plot_values(cls, num_events: int, **scheduler_kwargs: Any) -> Any:
        """Draw what :meth:`simulate_values` returns; return matplotlib's axes.

        Args:
            num_events: how many calls.
            scheduler_kwargs: ``lr_scheduler``, and the class's other arguments.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        import matplotlib.pyplot as plt

        index, *groups = zip(*cls.simulate_values(num_events, **scheduler_kwargs), strict=True)
        _, axes = plt.subplots()
        for number, values in enumerate(groups):
            axes.plot(index, values, label=f"group {number}")
        axes.set_xlabel("event")
        axes.set_ylabel(cls.param_name)
        axes.legend()
        return axes


def _check(lr_scheduler: object) -> None:
    if isinstance(lr_scheduler, ReduceLROnPlateau):
        raise TypeError(
            "ReduceLROnPlateau needs a metric at each step; attach its step to the evaluator: "
            "lambda engine: scheduler.step(engine.state.metrics['loss'])"
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


@contextmanager
def _no_word_about_the_optimizer() -> Iterator[None]:
    """Silence torch, which wants to have seen a step of the optimizer before one of the scheduler.

    In a run that continues from a checkpoint, it was in another process; in a simulation, nowhere.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        warnings.filterwarnings("ignore", message="Seems like `optimizer.step")
        yield


def _copy(lr_scheduler: TorchScheduler) -> TorchScheduler:
    """Copy a scheduler, with an optimizer that has the same groups but none of the parameters."""
    optimizer = lr_scheduler.optimizer
    stand_in = torch.optim.SGD([{"params": [torch.zeros(())]} for _ in optimizer.param_groups])
    for new, old in zip(stand_in.param_groups, optimizer.param_groups, strict=True):
        new.update(copy.deepcopy({name: old[name] for name in old if name != "params"}))
    return copy.deepcopy(lr_scheduler, {id(optimizer): stand_in})
