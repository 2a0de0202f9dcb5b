"""Metrics computed from other metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cookfire.metrics._in_an_engine import ResultMode
from cookfire.metrics._members import update_each
from cookfire.metrics._usage import MetricUsage
from cookfire.metrics._values import to_plain
from cookfire.metrics.metric import Metric


class MetricsLambda(Metric):
    """A function of other metrics' values.

    It has no state of its own: what it is computed from is updated once for all that use it, and
    combined over the ranks together. Arithmetic on metrics makes such metrics.

    Args:
        f: called with the values of the metrics among ``args`` and ``kwargs``, Python numbers or
            tensors on the CPU, and everything else as it is.
        *args: metrics, also of other libraries (:class:`~cookfire.metrics.ExternalMetric`), or
            anything else.
        skip_unrolling: as for :class:`~cookfire.metrics.Metric`.
        metrics_result_mode: as for :class:`~cookfire.metrics.Metric`.
        **kwargs: metrics, or anything else.

    Raises:
        TypeError: ``f`` can't be called.

    Example:
        >>> accuracy = Accuracy()
        >>> percent = MetricsLambda(lambda value, digits: round(100 * value, digits), accuracy, 1)
        >>> percent.update((torch.tensor([1, 0, 1]), torch.tensor([1, 1, 1])))
        >>> percent.compute()
        66.7
    """

    def __init__(
        self,
        f: Callable[..., Any],
        *args: Any,
        skip_unrolling: bool = False,
        metrics_result_mode: ResultMode = "both",
        **kwargs: Any,
    ) -> None:
        if not callable(f):
            raise TypeError(f"f must be callable, got {f!r}")
        self.function = f
        self.args: list[Any] = []
        self.kwargs: dict[str, Any] = {}
        super().__init__(skip_unrolling=skip_unrolling, metrics_result_mode=metrics_result_mode)
        # Only now, so that composing a metric does not reset it.
        self.args += map(_as_ours, args)
        self.kwargs |= {name: _as_ours(value) for name, value in kwargs.items()}

    def reset(self) -> None:
        """Reset the metrics that it is computed from."""
        for leaf in self._leaves():
            leaf.reset()

    def update(self, output: Any) -> None:
        """Update the metrics that it is computed from, each once, by its ``output_transform``."""
        update_each(self._leaves(), output)

    def compute(self) -> Any:
        """Return the function's value."""
        return self._evaluate({})

    def _evaluate(self, known: dict[Metric, Any]) -> Any:
        def value_of(argument: Any) -> Any:
            if not isinstance(argument, Metric):
                return argument
            if argument not in known:
                if isinstance(argument, MetricsLambda):
                    known[argument] = argument._evaluate(known)
                else:
                    known[argument] = argument.compute()
            return known[argument]

        args = [value_of(argument) for argument in self.args]
        return self.function(*args, **{k: value_of(v) for k, v in self.kwargs.items()})

    def _leaves(self) -> Iterator[Metric]:
        parts = (part for part in (*self.args, *self.kwargs.values()) if isinstance(part, Metric))
        yield from dict.fromkeys(leaf for part in parts for leaf in part._leaves())

    def _is_lazy(self, usage: MetricUsage) -> bool:
        return any(leaf._is_lazy(usage) for leaf in self._leaves())

    def _finish(self, value: Any) -> Any:
        return to_plain(value)


def _as_ours(argument: Any) -> Any:
    """Return a metric of another library as one of ours, and anything else as it is."""
    from cookfire.metrics._external import adapt, is_metric  # it needs our metrics' class

    return adapt(argument) if is_metric(argument) else argument
