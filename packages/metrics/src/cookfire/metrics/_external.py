"""Metrics of other libraries."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from torch import Tensor

import cookfire.distributed as idist
from cookfire.metrics._external_lists import lists_filled
from cookfire.metrics._in_an_engine import ResultMode
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import same, to_plain
from cookfire.metrics.metric import Metric


class MetricLike(Protocol):
    """What a metric of another library, such as torchmetrics or torcheval, has."""

    def update(self, *args: Any) -> Any:
        """Take in a batch."""
        ...

    def compute(self) -> Any:
        """Return the value."""
        ...

    def reset(self) -> Any:
        """Forget everything."""
        ...


class ExternalMetric(Metric):
    """A metric of another library, such as torchmetrics, as one of ours.

    It keeps its own state and synchronises by itself, in the way of its library. It is moved to
    the device of its first batch, if it has a method ``to``. A checkpoint holds its ``state_dict``
    if it has one, which as many ranks can load as saved it.

    :class:`~cookfire.metrics.MetricGroup`, :class:`~cookfire.metrics.MetricsLambda` and arithmetic
    with our metrics take such an object as it is, and use a copy of it. To be attached by itself it
    goes into an ExternalMetric, since it has no ``attach``.

    Args:
        metric: has ``update(y_pred, y)``, ``compute()`` and ``reset()``; torchmetrics'
            MetricCollection is one too, whose value is a dict.
        output_transform: turns the engine's output into the arguments of ``update``, a tuple.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.
        metrics_result_mode: likewise, for a value that is a mapping.

    Raises:
        TypeError: a method is missing.

    Example:
        >>> import torchmetrics
        >>> metric = ExternalMetric(torchmetrics.MeanSquaredError())
        >>> metric.attach(evaluator, "mse")
    """

    updates = MetricState(torch.int64)
    """By which all ranks know whether any of them had data."""
    ranks = MetricState(torch.int64)
    """How many of them had."""

    def __init__(
        self,
        metric: MetricLike,
        output_transform: Callable[[Any], Any] = same,
        skip_unrolling: bool = False,
        metrics_result_mode: ResultMode = "both",
    ) -> None:
        if isinstance(metric, type):
            raise TypeError(f"expected a metric, got the class {metric.__name__}: call it first")
        missing = _missing_methods(metric)
        if missing:
            raise TypeError(f"{type(metric).__name__} lacks the methods {', '.join(missing)}")
        self.metric = metric
        self._placed = False
        super().__init__(
            output_transform,
            skip_unrolling=skip_unrolling,
            metrics_result_mode=metrics_result_mode,
        )

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.metric.reset()
        self._placed = False

    def update(self, output: Any) -> None:
        """Take in a batch."""
        arguments = output if isinstance(output, tuple | list) else (output,)
        if not self._placed:
            self._placed = True
            device = next((item.device for item in arguments if isinstance(item, Tensor)), None)
            if device is not None and hasattr(self.metric, "to"):
                self.metric.to(device)
        self.metric.update(*arguments)
        self.accumulate(updates=1, ranks=0 if self._store.local.updates else 1)

    def compute(self) -> Any:
        """Return the value: Python numbers for scalars, tensors on the CPU for others.

        Raises:
            NotComputableError: there was no update.
            ValueError: a rank without data, and lists that can't be combined then.
        """
        with warnings.catch_warnings():
            # torchmetrics does not count the updates of other ranks and of loaded states; we do.
            warnings.filterwarnings("ignore", "The ``compute`` method of metric", UserWarning)
            if self._store.alone or int(self.ranks) == idist.get_world_size():
                return self.metric.compute()
            with lists_filled(self.metric):
                return self.metric.compute()

    def _attributes(self) -> dict[str, Any]:
        if not hasattr(self.metric, "state_dict"):
            return {}
        if hasattr(self.metric, "persistent"):
            self.metric.persistent(True)  # torchmetrics leaves the state out otherwise
        return {"metric": self.metric.state_dict()}

    def _set_attributes(self, attributes: dict[str, Any]) -> None:
        if "metric" in attributes and hasattr(self.metric, "load_state_dict"):
            self.metric.load_state_dict(attributes["metric"])

    def _clone(self, replace: Callable[[Metric], Metric]) -> Self:
        clone = super()._clone(replace)
        clone.metric = copy.deepcopy(self.metric)
        return clone

    def _finish(self, value: Any) -> Any:
        return to_plain(value)


def adapt(metric: Metric | MetricLike) -> Metric:
    """Return a metric as it is; of another library's, a copy as one of ours.

    Raises:
        TypeError: it is neither.
    """
    return metric if isinstance(metric, Metric) else ExternalMetric(copy.deepcopy(metric))


def is_metric(value: object) -> bool:
    """Whether a value is a metric, ours or of another library."""
    return not isinstance(value, type) and not _missing_methods(value)


def _missing_methods(metric: object) -> list[str]:
    names = ("update", "compute", "reset")
    return [name for name in names if not callable(getattr(metric, name, None))]
