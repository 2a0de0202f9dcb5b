"""What all schedulers share: a count of calls, a history, simulation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cookfire.engine import CallableEventWithFilter, Engine, EventEnum, Events, EventsList
from cookfire.engine.base import Serializable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AnyEvent", "BaseParamScheduler", "Value"]

AnyEvent = EventEnum | CallableEventWithFilter | EventsList
# A number, or one a group; of a scheduler made of schedulers, what each of them has.
Value = float | Sequence["Value"]


class BaseParamScheduler(Serializable, ABC):
    """A handler that writes a value at each call: the base of all schedulers.

    The value is a function of ``event_index``, the number of calls before. That number, and the
    history, are the whole state: a scheduler that is given another index goes on from there.

    At EPOCH_STARTED it is called once an epoch, also where a run that goes on in the middle of an
    epoch fires the event for it again.

    Args:
        param_name: what it writes.
        save_history: keep the values of each call, in ``engine.state.param_history[param_name]``
            (with a number appended where another scheduler writes to that name).

    Attributes:
        event_index: how often it was called.

    To write one of your own, derive from :class:`ParamScheduler` or :class:`StateParamScheduler`
    and define :meth:`get_param`.
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("event_index", "history")

    def __init__(self, param_name: str, save_history: bool = False) -> None:
        self.param_name = param_name
        self.save_history = save_history
        self.event_index = 0
        self._history: list[Any] = []

    def __call__(self, engine: Engine | None, name: str | None = None) -> None:
        """Set the next value.

        Args:
            engine: gets the history, if it is wanted.
            name: the history's key; ``param_name`` by default.
        """
        if engine is not None and self.event_index and _goes_on(engine):
            return
        self._advance(engine)
        if self.save_history and engine is not None:
            self._remember(engine, name)

    @abstractmethod
    def get_param(self) -> Value:
        """Return the value for ``event_index``: a number, or a list with one a group."""

    def state_dict(self) -> dict[str, Any]:
        """Return the count of calls and the history."""
        return {"event_index": self.event_index, "history": _copied(self._history)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            ValueError: it is not the state of such a scheduler.
        """
        super().load_state_dict(state_dict)
        self.event_index = state_dict["event_index"]
        self._history[:] = _copied(state_dict.get("history", []))

    @classmethod
    @abstractmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """Return what the first ``num_events`` calls write: ``[index, value, ...]`` for each."""

    @classmethod
    def plot_values(cls, num_events: int, **scheduler_kwargs: Any) -> Axes:
        """Draw what :meth:`simulate_values` returns; return matplotlib's axes.

        Args:
            num_events: how many calls.
            scheduler_kwargs: those of :meth:`simulate_values`.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        import matplotlib.pyplot as plt

        index, *groups = zip(*cls.simulate_values(num_events, **scheduler_kwargs), strict=True)
        _, axes = plt.subplots()
        for number, values in enumerate(groups):
            axes.plot(index, values, label=f"group {number}")
        axes.set_xlabel("event")
        axes.set_ylabel(scheduler_kwargs.get("param_name", getattr(cls, "param_name", "value")))
        if len(groups) > 1:
            axes.legend()
        return axes

    @abstractmethod
    def _advance(self, engine: Engine | None) -> None:
        """Write the value for ``event_index``, and count the call."""

    @abstractmethod
    def _values(self) -> Any:
        """Return what was written, as the history keeps it."""

    def _remember(self, engine: Engine, name: str | None) -> None:
        self._history.append(self._values())
        histories = vars(engine.state).setdefault("param_history", {})
        key = name = name or self.param_name
        number = 0
        while histories.get(key, self._history) is not self._history:
            number += 1
            key = f"{name}_{number}"
        histories[key] = self._history


def _goes_on(engine: Engine) -> bool:
    """Tell whether EPOCH_STARTED is fired for an epoch that had begun before."""
    return engine.last_event_name is Events.EPOCH_STARTED and engine.epoch_iteration > 0


def _copied(history: list[Any]) -> list[Any]:
    return [list(values) if isinstance(values, list) else values for values in history]
