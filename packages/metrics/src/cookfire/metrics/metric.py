"""The base of all metrics, and what is needed to write one."""

from __future__ import annotations

import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from cookfire.engine.base import Serializable
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics._composition import Composable
from cookfire.metrics._ignite_style import reinit__is_reduced, sync_all_reduce
from cookfire.metrics._in_an_engine import Attachable, ResultMode
from cookfire.metrics._members import find_metrics, may_hold_metrics, replace_metrics
from cookfire.metrics._reduction import Combined, combining
from cookfire.metrics._saving import load_metrics, save_metrics
from cookfire.metrics._state import MetricState, Value
from cookfire.metrics._store import Store
from cookfire.metrics._usage import (
    BatchFiltered,
    BatchWise,
    EpochWise,
    MetricUsage,
    RunningBatchWise,
    RunningEpochWise,
    SingleEpochRunningBatchWise,
)
from cookfire.metrics._values import same, to_plain

if TYPE_CHECKING:
    from cookfire.metrics._attached import AttachedMetrics

__all__ = [
    "BatchFiltered",
    "BatchWise",
    "EpochWise",
    "Metric",
    "MetricState",
    "MetricUsage",
    "RunningBatchWise",
    "RunningEpochWise",
    "SingleEpochRunningBatchWise",
    "reinit__is_reduced",
    "sync_all_reduce",
]

_RESULT_MODES = ("flatten", "named", "both")
_TAKING_IN = ("update", "accumulate", "iteration_completed")
"""What a subclass may override, so that its updates are no others'."""


class Metric(Composable, Attachable, Serializable, ABC):
    """A value that is accumulated over batches.

    A metric declares its state in the class, adds to it in ``update``, and turns it into a value
    in ``compute``. What follows from that is done here: state lives where the data are, an update
    never waits for the device, ``compute`` sees the state of all ranks (whatever each of them had,
    nothing included), and state can be saved by so many ranks and loaded by so many others.

    ``compute`` returns Python numbers for scalars and tensors on the CPU for others. Without any
    update before it raises :class:`~cookfire.engine.exceptions.NotComputableError`.

    Metrics compose by arithmetic, indexing and tensor methods: ``100 * (1 - accuracy)``,
    ``recall[0]``, ``(precision * recall).mean()``.

    A metric may also keep its state in plain attributes that it sets in ``reset``, and have them
    synchronised by :func:`sync_all_reduce`.

    Args:
        output_transform: turns the engine's output into what ``update`` takes, mostly
            ``(y_pred, y)``.
        device: where state is kept. None: where the data are, which costs no copy (the CPU for a
            metric with plain attributes).
        skip_unrolling: pairs of lists ``([y_pred, ...], [y, ...])`` are unrolled into one update a
            pair of their items; True hands them over as they are, for a model with several
            outputs.
        metrics_result_mode: where a value that is a mapping goes: its items into
            ``engine.state.metrics`` (``"flatten"``), the mapping under the metric's name
            (``"named"``), or ``"both"``.

    Raises:
        TypeError: ``output_transform`` can't be called.
        ValueError: an unknown ``metrics_result_mode``.

    Attributes:
        required_output_keys: what is taken, in this order, from an output that is a mapping; None
            if the metric takes no mapping.

    Example:
        >>> class MeanSquaredError(Metric):
        ...     squared_error = MetricState(torch.float64)
        ...     count = MetricState(torch.int64)
        ...     def update(self, output):
        ...         y_pred, y = output
        ...         self.accumulate(squared_error=(y_pred - y).square().sum(), count=y.numel())
        ...     def compute(self):
        ...         return self.squared_error / self.count
        >>> metric = MeanSquaredError()
        >>> metric.update((torch.zeros(4), torch.full((4,), 2.0)))
        >>> metric.compute()
        4.0
    """

    required_output_keys: tuple[str, ...] | None = ("y_pred", "y")
    _states: ClassVar[dict[str, MetricState]] = {}
    _settings: ClassVar[tuple[str, ...]] = ()
    """Attributes that say what is accumulated: a saved state goes where they are the same."""
    _wanted: frozenset[Hashable] = frozenset()
    """What it needs of a statistic that it shares."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._states = {
            name: value
            for base in reversed(cls.__mro__)  # there may be several with states
            for name, value in vars(base).items()
            if isinstance(value, MetricState)
        }
        compute = vars(cls).get("compute")
        if compute is not None and not getattr(compute, "__isabstractmethod__", False):
            cls.compute = combining(compute)  # type: ignore[method-assign] # the same signature

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
        metrics_result_mode: ResultMode = "both",
    ) -> None:
        if not callable(output_transform):
            raise TypeError(f"output_transform must be callable, got {output_transform!r}")
        if metrics_result_mode not in _RESULT_MODES:
            raise ValueError(
                f"metrics_result_mode must be one of {', '.join(_RESULT_MODES)}, "
                f"got {metrics_result_mode!r}"
            )
        if device is None and not self._states:
            device = "cpu"
        self._output_transform = output_transform
        self._device = None if device is None else torch.device(device)
        self._skip_unrolling = skip_unrolling
        self._metrics_result_mode = metrics_result_mode
        self._store = Store.of(self._states, self._wanted)
        self._shared: Store | None = None
        """The store of it and others of an engine; its own is another one if it left them."""
        self._computing = False
        self._attachment: weakref.ref[AttachedMetrics] | None = None
        self._scratch: dict[Hashable, Any] | None = None
        self.reset()

    # What a metric defines

    def reset(self) -> None:
        """Forget everything; called when an epoch starts."""
        self._leave_others()
        self._store.clear()
        if self._shared is None:
            self._store.wanted = self._wanted  # not what it was shared for before

    @abstractmethod
    def update(self, output: Any) -> None:
        """Take in a batch; called at each iteration with the transformed output."""

    @abstractmethod
    def compute(self) -> Any:
        """Return the value; called at the end of an epoch. A collective in a process group.

        Raises:
            NotComputableError: there was no update, or none with data.
        """

    def accumulate(self, **values: Tensor | float) -> None:
        """Merge values into states of these names, each by its reduction.

        Tensors are detached, and the update does not wait for them.

        Raises:
            KeyError: a name is not declared.
            TypeError: a dtype that does not fit the state's.
            ValueError: a shape that does not fit it.
        """
        self._merge(values)

    def _merge(self, values: dict[str, Tensor | float]) -> None:
        if self._store is self._shared:
            self._leave_others()
        held, states = self._store.local, self._states
        merged: dict[str, Value] = {}
        try:
            for name, value in values.items():
                merged[name] = states[name].merge(held.values[name], value, self)
        except BaseException as error:  # to undo, and raise again
            for history in merged.values():
                if isinstance(history, list) and any(history is v for v in held.values.values()):
                    history.pop()  # all of an update is taken in, or nothing
            if name in states:
                raise
            raise KeyError(
                f"{type(self).__name__} declares no state {error}; it has {', '.join(states)}"
            ) from None
        held.values.update(merged)
        held.updates += 1

    # Its state as a whole

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every rank: a collective in a process group.

        All ranks get all of it, so that one of them can save it, and any number of ranks can load
        it. It can be loaded with ``weights_only=True``.
        """
        return save_metrics(list(dict.fromkeys(self._family())))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        As many ranks as saved it get back their own. Any other number shares it: sums, minima and
        maxima go to the first rank, histories are split, means are given to all, so that values
        over all ranks are what they were.

        In an engine that resumes in the middle, the first event that would reset the metric does
        not.

        Raises:
            ValueError: it was saved by another kind of metric; or by another number of ranks, of
                a metric with plain attributes.
        """
        family = list(dict.fromkeys(self._family()))
        for metric in family:
            metric._leave_others()
        load_metrics(family, state_dict)

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self) | {"_attachment": None, "_scratch": None, "_shared": None}
        if self._shared is not None:
            state["_store"] = self._store.copy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    # For composed metrics and engines

    def _leaves(self) -> Iterator[Metric]:
        """Iterate over the metrics that are updated when this one is: itself."""
        yield self

    def _family(self) -> Iterator[Metric]:
        """Iterate over this metric and those that it holds."""
        yield self
        for value in vars(self).values():
            kind: type = type(value)
            if may_hold_metrics(kind):
                for metric in find_metrics(value):
                    yield from metric._family()

    def _clone(self, replace: Callable[[Metric], Metric]) -> Self:
        """Return a copy with a store of its own, still to be reset, and its parts replaced."""
        clone = copy.copy(self)
        for name, value in vars(clone).items():
            vars(clone)[name] = replace_metrics(value, replace)
        clone._store = Store.of(self._states, self._wanted)
        return clone

    def _attributes(self) -> dict[str, Any]:
        """Return the plain attributes that are saved, those named by a metric that declares none.

        Metrics among them are saved by themselves.
        """
        named = {name: getattr(self, name) for name in self._state_dict_all_req_keys}
        return {name: value for name, value in named.items() if not any(find_metrics(value))}

    def _set_attributes(self, attributes: dict[str, Any]) -> None:
        vars(self).update(attributes)

    def _leave_others(self) -> None:
        """Go on with a store of its own, if others of an engine have the same one.

        Whatever is done to one of them by itself is not to be seen in the others.
        """
        if self._store is not self._shared:
            return
        self._store = self._store.copy()
        attached = None if self._attachment is None else self._attachment()
        if attached is not None:
            attached.arrange_updates()

    def _sharing_key(self) -> Hashable:
        """Return what ``update`` depends on: metrics with equal keys share one state.

        None: it is not shared.
        """
        return None

    def _share_updates_of(self, owner: type[Any], *settings: Hashable) -> Hashable:
        """Return the key under which metrics with ``owner``'s update and settings share a state."""
        own = type(self)
        if any(getattr(own, name) is not getattr(owner, name) for name in _TAKING_IN):
            return None
        return (
            owner,
            id(self._output_transform),
            self.required_output_keys,
            self._device,
            self._skip_unrolling,
            *settings,
        )

    @property
    def _states_in_use(self) -> Iterable[str]:
        """The states that travel between ranks; the same on all of them."""
        return self._states

    def _once(self, what: str, tensor: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``function(tensor)``, worked out once for all metrics of an engine's iteration."""
        if self._scratch is None:
            return function(tensor)
        # A tensor that was written into in between is another one.
        key = (what, id(tensor), -1 if tensor.is_inference() else tensor._version)
        found = self._scratch.get(key)
        if found is None:
            # The id is valid while the tensor is kept.
            found = self._scratch[key] = tensor, function(tensor)
        result: Tensor = found[1]
        return result

    def _finish(self, value: Any) -> Any:
        """Return a formula's value as ``compute`` gives it."""
        return to_plain(value) if self._states else value

    def _check_computable(self) -> None:
        reduced = self._store.reduced
        if self._states and (reduced is None or reduced.updates == 0):
            raise NotComputableError(
                f"{type(self).__name__} can't be computed before it saw at least one example"
            )

    def _require(self, name: str, what: str = "at least one example") -> None:
        """Raise NotComputableError if this count over all ranks is zero, or this history empty.

        A count of Python numbers, as sizes are, is known without waiting for the device.
        """
        count = (self._store.reduced or self._store.local).values[name]
        if isinstance(count, list):
            count = sum(map(len, count))
        if count is None or count == 0:
            raise NotComputableError(
                f"{type(self).__name__} can't be computed before it saw {what}"
            )

    def _as_number(self, name: str) -> Any:
        """Return a state without dimensions, exactly: a Python number, or a tensor not to wait."""
        store = self._store
        if store.alone:
            return getattr(self, name).double()
        value = (store.reduced or store.local).values[name]
        if type(value) in (int, float):
            return value
        return (value if isinstance(value, Tensor) else getattr(self, name)).item()

    def _exact(self, tensor: Tensor) -> Any:
        """Return the same of a tensor without dimensions."""
        return tensor.double() if self._store.alone else tensor.item()

    def _mean(self, total: str, count: str) -> float | Tensor:
        """Return the quotient of two states without dimensions.

        Raises:
            NotComputableError: the count is zero.
        """
        self._require(count)
        mean: float | Tensor = self._as_number(total) / self._as_number(count)
        return mean

    def _check_input(self) -> None:
        """Raise for wrong values that updates came across; they could not without waiting."""

    def _value_here(self) -> Any:
        """Return the formula's value over this rank's data: no collective, no wait."""
        with Combined(self._family(), alone=True):
            self._computing = True  # the formula's own value, not yet a number
            try:
                self._check_computable()
                return self.compute()
            finally:
                self._computing = False
