"""The metrics that a metric holds in its attributes, also in lists, tuples and dicts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from cookfire.metrics._composition import Composable

if TYPE_CHECKING:
    from cookfire.metrics._store import Store
    from cookfire.metrics.metric import Metric


@functools.lru_cache
def may_hold_metrics(kind: type) -> bool:
    """Tell whether values of a type, as most attributes are not, may be or hold metrics."""
    return kind in (list, tuple, dict) or issubclass(kind, Composable)


def find_metrics(value: Any) -> Iterator[Metric]:
    """Iterate over the metrics that an attribute is, or that it holds."""
    kind: type = type(value)
    if not may_hold_metrics(kind):
        return
    if isinstance(value, Composable):
        yield cast("Metric", value)
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from find_metrics(item)


def replace_metrics(value: Any, replace: Callable[[Metric], Metric]) -> Any:
    """Return an attribute with the metrics in it replaced."""
    if isinstance(value, Composable):
        return replace(cast("Metric", value))
    if type(value) in (list, tuple):
        return type(value)(replace_metrics(item, replace) for item in value)
    if type(value) is dict:
        return {key: replace_metrics(item, replace) for key, item in value.items()}
    return value


def update_each(metrics: Iterable[Metric], output: Any) -> None:
    """Update each by its own ``output_transform``; of several that share a store, one."""
    first: dict[Store, Metric] = {}
    for metric in metrics:
        metric._leave_others()  # those of an engine
        first.setdefault(metric._store, metric)
    for metric in first.values():
        metric.update(metric._transform(output))
