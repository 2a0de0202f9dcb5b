"""What a metric does in an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from cookfire.engine import Engine
from cookfire.metrics._usage import EPOCH_WISE, MetricUsage, find_usage
from cookfire.metrics._values import is_unrollable, to_plain, unroll

if TYPE_CHECKING:
    from cookfire.metrics.metric import Metric

ResultMode = Literal["flatten", "named", "both"]


class Attachable(ABC):
    """The side of a :class:`~cookfire.metrics.Metric` that an engine sees."""

    required_output_keys: tuple[str, ...] | None
    _output_transform: Callable[[Any], Any]
    _skip_unrolling: bool
    _metrics_result_mode: ResultMode

    @abstractmethod
    def reset(self) -> None:
        """Forget everything."""

    @abstractmethod
    def update(self, output: Any) -> None:
        """Take in a batch."""

    @abstractmethod
    def compute(self) -> Any:
        """Return the value."""

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
            ValueError: another metric is attached under that name with that usage; no such usage.
            TypeError: no usage at all.
        """
        from cookfire.metrics._attached import attached_metrics

        attached_metrics(engine, find_usage(usage)).add(self._metric, name)

    def detach(self, engine: Engine, usage: str | MetricUsage = EPOCH_WISE) -> None:
        """Undo ``attach``, under whatever names. Metrics composed of this one go on.

        A metric that is there only as a part of composed ones takes them with it.
        """
        from cookfire.metrics._attached import find_attached_metrics

        attached = find_attached_metrics(engine, find_usage(usage))
        if attached is not None:
            attached.remove(self._metric)

    def is_attached(self, engine: Engine, usage: str | MetricUsage = EPOCH_WISE) -> bool:
        """Tell whether the engine computes this metric with this usage."""
        from cookfire.metrics._attached import find_attached_metrics

        attached = find_attached_metrics(engine, find_usage(usage))
        return attached is not None and self._metric in attached

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

    @property
    def _metric(self) -> Metric:
        return cast("Metric", self)  # nothing else is made of this

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

    def _is_lazy(self, usage: MetricUsage) -> bool:  # noqa: ARG002 - for subclasses
        """Tell whether its value is wanted so often that it is combined at the epoch's end only."""
        return False

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
