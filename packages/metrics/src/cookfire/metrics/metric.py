"""The base of all metrics, and what is needed to write one."""

from __future__ import annotations

import copy
import functools
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from cookfire.engine import Engine
from cookfire.engine.base import Serializable
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics._composition import Composable
from cookfire.metrics._ignite_style import reinit__is_reduced, sync_all_reduce
from cookfire.metrics._reduction import Combined
from cookfire.metrics._saving import load_metrics, save_metrics
from cookfire.metrics._state import MetricState, Store, Value
from cookfire.metrics._usage import (
    EPOCH_WISE,
    BatchFiltered,
    BatchWise,
    EpochWise,
    MetricUsage,
    RunningBatchWise,
    RunningEpochWise,
    SingleEpochRunningBatchWise,
    find_usage,
)
from cookfire.metrics._values import is_unrollable, same, to_plain, unroll

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

ResultMode = Literal["flatten", "named", "both"]
_RESULT_MODES = ("flatten", "named", "both")


class Metric(Composable, Serializable, ABC):
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
            cls.compute = _combining(compute)  # type: ignore[method-assign] # the same signature

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
        self._computing = False
        self._attachment: weakref.ref[AttachedMetrics] | None = None
        self._scratch: dict[Hashable, Any] | None = None
        self.reset()

    # What a metric defines

    def reset(self) -> None:
        """Forget everything; called when an epoch starts."""
        self._store.clear()
        if self._attachment is None:
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
        held, states = self._store.local, self._states
        merged: dict[str, Value] = {}
        try:
            for name, value in values.items():
                merged[name] = states[name].merge(held.values[name], value, self)
        except BaseException as error:
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

    # In an engine

    def attach(self, engine: Engine, name: str, usage: str | MetricUsage = EPOCH_WISE) -> None:
        """Have the engine update the metric, and put its value into ``engine.state.metrics[name]``.

        All metrics of one engine and usage are combined over the ranks together. A metric that is
        attached to an engine already serves a second one by a copy with a state of its own: the
        object itself stays with the first.

        Args:
            engine: whose output it takes.
            name: under which its value is found.
            usage: when it is reset, updated and computed; or the name of such a usage.

        Raises:
            ValueError, TypeError: no such usage.
        """
        from cookfire.metrics._attached import attached_metrics

        attached_metrics(engine, find_usage(usage)).add(self, name)

    def detach(self, engine: Engine, usage: str | MetricUsage = EPOCH_WISE) -> None:
        """Undo ``attach``, under whatever names. Metrics composed of this one go on.

        A metric that is there only as a part of composed ones takes them with it.
        """
        from cookfire.metrics._attached import find_attached_metrics

        attached = find_attached_metrics(engine, find_usage(usage))
        if attached is not None:
            attached.remove(self)

    def is_attached(self, engine: Engine, usage: str | MetricUsage = EPOCH_WISE) -> bool:
        """Tell whether the engine computes this metric with this usage."""
        from cookfire.metrics._attached import find_attached_metrics

        attached = find_attached_metrics(engine, find_usage(usage))
        return attached is not None and self in attached

    def started(self, engine: Engine) -> None:  # noqa: ARG002 - a handler's signature
        """Begin afresh."""
        self.reset()

    def iteration_completed(self, engine: Engine) -> None:
        """Update with the engine's output."""
        with torch.no_grad():
            self._take(engine.state.output)

    def completed(self, engine: Engine, name: str) -> None:
        """Compute, and put the value into ``engine.state.metrics``.

        Raises:
            ValueError: the value is a mapping with a key that is the metric's name.
        """
        self._publish(engine, name, to_plain(self.compute()))

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
        load_metrics(list(dict.fromkeys(self._family())), state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_attachment": None, "_scratch": None}

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
            if _may_hold_metrics(kind):
                for metric in _find_metrics(value):
                    yield from metric._family()

    def _clone(self, replace: Callable[[Metric], Metric]) -> Self:
        """Return a copy with a store of its own, still to be reset, and its parts replaced."""
        clone = copy.copy(self)
        for name, value in vars(clone).items():
            vars(clone)[name] = _replace_metrics(value, replace)
        clone._store = Store.of(self._states, self._wanted)
        return clone

    def _attributes(self) -> dict[str, Any]:
        """Return the plain attributes that are saved, those named by a metric that declares none.

        Metrics among them are saved by themselves.
        """
        named = {name: getattr(self, name) for name in self._state_dict_all_req_keys}
        return {name: value for name, value in named.items() if not any(_find_metrics(value))}

    def _set_attributes(self, attributes: dict[str, Any]) -> None:
        vars(self).update(attributes)

    def _publish(self, engine: Engine, name: str, value: Any) -> None:
        """Put a value into ``engine.state.metrics``."""
        metrics, mode = engine.state.metrics, self._metrics_result_mode
        if not isinstance(value, Mapping):
            metrics[name] = value
            return
        if mode != "flatten" and name in value:
            raise ValueError(
                f"the value of {type(self).__name__} has a key {name!r}, which is also the name "
                "under which it is attached: attach it under another one"
            )
        if mode != "named":
            metrics.update(value)
        if mode != "flatten":
            metrics[name] = value

    def _sharing_key(self) -> Hashable:
        """Return what ``update`` depends on: metrics with equal keys share one state.

        None: it is not shared.
        """
        return None

    def _share_updates_of(self, owner: type[Any], *settings: Hashable) -> Hashable:
        """Return the key under which metrics with ``owner``'s update and settings share a state."""
        if type(self).update is not owner.update:
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

    def _is_lazy(self, usage: MetricUsage) -> bool:  # noqa: ARG002 - for subclasses
        """Tell whether its value is wanted so often that it is combined at the epoch's end only."""
        return False

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

    def _transform(self, output: Any) -> Any:
        output = self._output_transform(output)
        if type(output) is not tuple and isinstance(output, Mapping):
            return self._select(output)
        return output

    def _take(self, output: Any) -> None:
        """Update with an engine's output."""
        output = self._transform(output)
        if type(output) is tuple and output and isinstance(output[0], Tensor):
            self.update(output)  # nearly always
            return
        if self._skip_unrolling or not is_unrollable(output):
            self.update(output)
            return
        for item in unroll(type(self).__name__, output):
            self.update(item)

    def _select(self, output: Mapping[str, Any]) -> tuple[Any, ...]:
        keys, name = self.required_output_keys, type(self).__name__
        if keys is None:
            raise TypeError(
                f"{name} takes no mapping, but the output has the keys {list(output)}: choose one "
                "of its items by output_transform"
            )
        missing = [key for key in keys if key not in output]
        if missing:
            raise ValueError(
                f"{name} needs {', '.join(map(repr, keys))} of an output that is a mapping, which "
                f"has {', '.join(map(repr, output))}: rename them by output_transform"
            )
        return tuple(output[key] for key in keys)

    def _finish(self, value: Any) -> Any:
        """Return a formula's value as ``compute`` gives it."""
        return to_plain(value) if self._states else value

    def _check_computable(self) -> None:
        reduced = self._store.reduced
        if self._states and (reduced is None or reduced.updates == 0):
            raise NotComputableError(
                f"{type(self).__name__} can't be computed before it saw at least one example"
            )

    def _require(self, name: str) -> None:
        """Raise NotComputableError if this count over all ranks is zero, or this history empty.

        A count of Python numbers, as sizes are, is known without waiting for the device.
        """
        count = (self._store.reduced or self._store.local).values[name]
        if isinstance(count, list):
            count = sum(map(len, count))
        if count is None or count == 0:
            raise NotComputableError(
                f"{type(self).__name__} can't be computed before it saw at least one example"
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


def _combining(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Let a ``compute`` see the state of all ranks."""

    @functools.wraps(formula)
    def compute(self: Metric, *args: Any, **kwargs: Any) -> Any:
        if self._computing:  # called by a subclass's formula
            return formula(self, *args, **kwargs)
        if self._store.reduced is None:
            with Combined(self._family()):
                return compute(self, *args, **kwargs)
        self._computing = True
        try:
            self._check_computable()
            self._check_input()
            return self._finish(formula(self, *args, **kwargs))
        finally:
            self._computing = False

    return compute


@functools.lru_cache
def _may_hold_metrics(kind: type) -> bool:
    """Tell whether values of a type, as most attributes are not, may be or hold metrics."""
    return kind in (list, tuple, dict) or issubclass(kind, Metric)


def _find_metrics(value: Any) -> Iterator[Metric]:
    kind: type = type(value)
    if not _may_hold_metrics(kind):
        return
    if isinstance(value, Metric):
        yield value
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _find_metrics(item)


def _replace_metrics(value: Any, replace: Callable[[Metric], Metric]) -> Any:
    if isinstance(value, Metric):
        return replace(value)
    if type(value) in (list, tuple):
        return type(value)(_replace_metrics(item, replace) for item in value)
    if type(value) is dict:
        return {key: _replace_metrics(item, replace) for key, item in value.items()}
    return value
