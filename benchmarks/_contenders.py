"""One shape for the metrics of all libraries, and for the expressions written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torchmetrics

import cookfire.engine
import cookfire.metrics


class Contender(NamedTuple):
    """Something that is updated, and computed."""

    update: Callable[[], Any]
    compute: Callable[[], Any]
    """Returns a number, or several."""
    reset: Callable[[], Any]


Contenders = dict[str, Contender]


def attached(metrics: dict[str, cookfire.metrics.Metric], batch: Any) -> Contender:
    """Return metrics as an engine has them: what its iteration and its epoch's end call."""
    engine = cookfire.engine.Engine(lambda engine, batch: batch)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    owner = next(iter(engine.handlers())).__self__
    engine.state.output = batch

    def compute() -> list[Any]:
        owner.completed(engine)
        return [engine.state.metrics[name] for name in metrics]

    return Contender(
        lambda: owner.iteration_completed(engine), compute, lambda: owner.started(engine)
    )


def one(metric: Any, *batch: Any) -> Contender:
    """Return one metric of ignite's or Cookfire's form."""
    return Contender(lambda: metric.update(batch), metric.compute, metric.reset)


def several(metrics: list[Any], *batch: Any) -> Contender:
    """Return metrics of ignite's form that are updated one after the other."""

    def update() -> None:
        for metric in metrics:
            metric.update(batch)

    def reset() -> None:
        for metric in metrics:
            metric.reset()

    return Contender(update, lambda: [metric.compute() for metric in metrics], reset)


def of_torchmetrics(metric: Any, *batch: Any) -> Contender:
    """Return one of torchmetrics, or a collection; its cache of the value is off."""
    return Contender(lambda: metric.update(*batch), lambda: values_of(metric), metric.reset)


def values_of(metric: Any) -> Any:
    if isinstance(metric, torchmetrics.MetricCollection):
        return [float(value) for value in metric.compute().values()]
    value = metric.compute()
    return value.item() if value.ndim == 0 else value


def of_torcheval(metrics: list[Any], *batch: Any) -> Contender:
    """Return metrics of torcheval."""

    def update() -> None:
        for metric in metrics:
            metric.update(*batch)

    def compute() -> Any:
        values = [metric.compute() for metric in metrics]
        return [value.item() for value in values] if values[0].ndim == 0 else values[0]

    def reset() -> None:
        for metric in metrics:
            metric.reset()

    return Contender(update, compute, reset)


class Limit:
    """A hand-written expression: a function of the batch that is summed, and one of the sums."""

    def __init__(
        self, sums: Callable[..., tuple[Any, ...]], value: Callable[..., Any], *batch: Any
    ) -> None:
        self.total: tuple[Any, ...] | None = None

        def update() -> None:
            new = sums(*batch)
            total = self.total
            self.total = (
                new if total is None else tuple(a + b for a, b in zip(total, new, strict=True))
            )

        def compute() -> Any:
            return value(*(self.total or ()))

        def reset() -> None:
            self.total = None

        self.contender = Contender(update, compute, reset)


def limit(
    sums: Callable[..., tuple[Any, ...]], value: Callable[..., Any], *batch: Any
) -> Contender:
    return Limit(sums, value, *batch).contender


def uncached(metric: Any, *batch: Any) -> Contender:
    """Return an EpochMetric of ignite's that computes each time."""

    def compute() -> Any:
        metric._result = None
        return metric.compute()

    return Contender(lambda: metric.update(batch), compute, metric.reset)
