"""An evaluation on two processes, by each library and by hand."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import ignite.engine
import ignite.metrics
import torch
import torch.distributed as dist
import torcheval.metrics
import torcheval.metrics.toolkit
import torchmetrics
import torchmetrics.classification
from _table import typical
from torch import Tensor
from torch.nn.functional import cross_entropy

import cookfire.distributed as idist
import cookfire.engine
import cookfire.metrics


def evaluation(rank: int) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(rank)
    return [(torch.randn(128, 10), torch.randint(10, (128,))) for _ in range(4)]


def fused(data: list[tuple[Tensor, Tensor]]) -> Callable[[], Any]:
    """Six metrics by hand: one vector of sums, one all_reduce."""

    def run() -> list[float]:
        sums = torch.zeros(103, dtype=torch.float64)
        for scores, y in data:
            pairs = torch.add(scores.argmax(1), y, alpha=10)
            sums[:100] += torch.bincount(pairs, minlength=100)
            sums[100] += cross_entropy(scores, y) * len(y)
            rank = (scores > scores.gather(1, y.unsqueeze(1))).sum(1)
            sums[101] += (rank < 5).sum()
            sums[102] += len(y)
        dist.all_reduce(sums)
        matrix = sums[:100].view(10, 10)
        hits, predicted, actual = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
        precision, recall = hits / predicted.clamp(min=1), hits / actual.clamp(min=1)
        f1 = 2 * hits / (predicted + actual).clamp(min=1)
        shares = (hits.sum() / sums[102], sums[101] / sums[102], sums[100] / sums[102])
        return torch.stack(
            [shares[0], precision.mean(), recall.mean(), f1.mean(), *shares[1:]]
        ).tolist()

    return run


def in_an_engine(engines: Any, metrics: Any, data: list[Any]) -> Callable[[], Any]:
    """Six metrics attached to an evaluator, Cookfire's or ignite's."""
    engine = engines.Engine(lambda engine, batch: batch)
    six = {
        "accuracy": metrics.Accuracy(),
        "precision": metrics.Precision(average=True),
        "recall": metrics.Recall(average=True),
        "f1": metrics.Fbeta(1.0),
        "top5": metrics.TopKCategoricalAccuracy(5),
        "loss": metrics.Loss(cross_entropy),
    }
    for name, metric in six.items():
        metric.attach(engine, name)

    def run() -> list[float]:
        engine.run(data)
        return [engine.state.metrics[name] for name in six]

    return run


def with_torchmetrics(data: list[Any]) -> Callable[[], Any]:
    """Six metrics of torchmetrics; a mean stands for the loss."""
    tm = torchmetrics.classification
    collection = torchmetrics.MetricCollection(
        {
            "1": tm.MulticlassAccuracy(10, average="micro"),
            "2": tm.MulticlassPrecision(10, average="macro"),
            "3": tm.MulticlassRecall(10, average="macro"),
            "4": tm.MulticlassF1Score(10, average="macro"),
            "5": tm.MulticlassAccuracy(10, average="micro", top_k=5),
        }
    )
    loss = torchmetrics.MeanMetric()

    def run() -> list[float]:
        collection.reset()
        loss.reset()
        for scores, y in data:
            collection.update(scores, y)
            loss.update(cross_entropy(scores, y), len(y))
        return [float(value) for value in (*collection.compute().values(), loss.compute())]

    return run


def with_torcheval(data: list[Any]) -> Callable[[], Any]:
    """Six metrics of torcheval; a mean stands for the loss."""
    te = torcheval.metrics
    six: dict[str, Any] = {
        "accuracy": te.MulticlassAccuracy(),
        "precision": te.MulticlassPrecision(num_classes=10, average="macro"),
        "recall": te.MulticlassRecall(num_classes=10, average="macro"),
        "f1": te.MulticlassF1Score(num_classes=10, average="macro"),
        "top5": te.MulticlassAccuracy(k=5),
    }
    loss = te.Mean()

    def run() -> list[float]:
        for metric in (*six.values(), loss):
            metric.reset()
        for scores, y in data:
            for metric in six.values():
                metric.update(scores, y)
            loss.update(cross_entropy(scores, y), weight=len(y))
        values = te.toolkit.sync_and_compute_collection({**six, "loss": loss})
        return [float(value) for value in (values or {}).values()]  # for the first rank only

    return run


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """Count the collectives called within."""
    names = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "broadcast")
    originals = {name: getattr(dist, name) for name in (*names, "gather_object", "barrier")}
    called: list[str] = []

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return originals[name](*args, **kwargs)

        return call

    for name in originals:
        setattr(dist, name, counting(name))
    try:
        yield called
    finally:
        for name, function in originals.items():
            setattr(dist, name, function)


def on_a_rank(rank: int, repeats: int, results: dict[str, Any]) -> None:
    """Time all contenders; both ranks take the same turns."""
    torch.set_num_threads(1)
    with quiet():
        data = evaluation(rank)
        runs = {
            "limit": fused(data),
            "Cookfire": in_an_engine(cookfire.engine, cookfire.metrics, data),
            "ignite": in_an_engine(ignite.engine, ignite.metrics, data),
            "torchmetrics": with_torchmetrics(data),
            "torcheval": with_torcheval(data),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        collectives, expected = {}, None
        for name, run in runs.items():
            with counted() as called:
                value = torch.tensor(run())
            collectives[name] = len(called)
            expected = value if expected is None else expected
            if len(value) and not torch.allclose(value, expected, rtol=1e-4):
                raise SystemExit(f"{name} gives {value}, the limit {expected}")
        for _ in range(repeats):
            for name, run in runs.items():
                dist.barrier()
                begin = perf_counter()
                run()
                seconds[name].append(perf_counter() - begin)
    if rank == 0:
        milliseconds = {name: 1e3 * value for name, value in typical(seconds).items()}
        results.update(milliseconds=milliseconds, collectives=collectives)


def two_processes(repeats: int) -> list[list[str]]:
    """Measure an evaluation on two processes; return the table's rows."""
    import torch.multiprocessing as mp

    with mp.Manager() as manager:
        results = manager.dict()
        idist.spawn("gloo", on_a_rank, (repeats, results), nproc_per_node=2)
        milliseconds, collectives = results["milliseconds"], results["collectives"]
    bare = milliseconds["limit"]
    return [
        [name, str(collectives[name]), f"{value:.2f}", f"{value / bare:.2f}x"]
        for name, value in milliseconds.items()
    ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the peers log and warn about."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
