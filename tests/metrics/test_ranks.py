"""Metrics over several processes: exact for any split of the data, in few collectives."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import (
    Accuracy,
    Average,
    ConfusionMatrix,
    EpochMetric,
    Fbeta,
    Loss,
    Metric,
    MetricGroup,
    MetricState,
    Precision,
    Recall,
    mIoU,
)
from cookfire.metrics.metric import reinit__is_reduced, sync_all_reduce

CLASSES = 3
COLLECTIVES = (
    "all_reduce",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "broadcast",
    "broadcast_object_list",
    "reduce",
    "barrier",
)


@contextmanager
def collectives():
    """Count the collectives that are called within."""
    called: Counter[str] = Counter()
    originals = {name: getattr(dist, name) for name in COLLECTIVES}

    def counted(name):
        def call(*args, **kwargs):
            called[name] += 1
            return originals[name](*args, **kwargs)

        return call

    for name in COLLECTIVES:
        setattr(dist, name, counted(name))
    try:
        yield called
    finally:
        for name, function in originals.items():
            setattr(dist, name, function)


class Statistics(Metric):
    """Every reduction, large states too."""

    total = MetricState(torch.float64)
    count = MetricState(torch.int64)
    smallest = MetricState(torch.float64, reduction="min")
    largest = MetricState(torch.int64, reduction="max")
    mean = MetricState(torch.float64, reduction="mean")
    column_min = MetricState(torch.float32, reduction="min", shape=None)
    table = MetricState(torch.float64, shape=("side", "side"))
    per_column = MetricState(torch.float64, shape=None)
    wide = MetricState(torch.float64, shape=None)
    wide_min = MetricState(torch.float32, reduction="min", shape=None)
    rows = MetricState(reduction="cat")
    numbers = MetricState(torch.int16, reduction="cat")
    side = 30

    def update(self, output):
        scores, y = output
        self.accumulate(
            total=scores.sum(dtype=torch.float64),
            count=len(y),
            smallest=scores.min(),
            largest=y.max(),
            column_min=scores.amin(0),
            table=torch.full((30, 30), len(y), dtype=torch.float64),
            per_column=scores.sum(0, dtype=torch.float64),
            wide=scores.sum(0, dtype=torch.float64).repeat(300),
            wide_min=scores.amin(0).repeat(300),
            rows=scores.bfloat16(),
            numbers=y.to(torch.int16),
        )
        self.mean = float(len(y))

    def compute(self):
        return {
            "total": self.total,
            "count": self.count,
            "smallest": self.smallest,
            "largest": self.largest,
            "column_min": self.column_min,
            "table": self.table.sum(),
            "per_column": self.per_column,
            "wide": self.wide,
            "wide_min": self.wide_min,
            "rows": self.rows.double().sort(0).values,
            "numbers": self.numbers.sort().values,
        }


class Table(Metric):
    """What is small goes along with what is large, if its operation and dtype are the same."""

    table = MetricState(torch.int64, shape=(30, 30))
    count = MetricState(torch.int64)

    def update(self, output):
        self.accumulate(table=torch.full((30, 30), len(output[1])), count=len(output[1]))

    def compute(self):
        return self.table.sum() / self.count


class Plain(Metric):
    """State in plain attributes, as for ignite."""

    @reinit__is_reduced
    def reset(self):
        self._sum, self._count = torch.tensor(0.0, dtype=torch.float64), 0
        self._largest, self._product = -1.0, 1
        self.computed = 0

    @reinit__is_reduced
    def update(self, output):
        self._sum += output[0].sum(dtype=torch.float64)
        self._count += len(output[1])
        self._largest = max(self._largest, output[0].max().item())
        self._product *= 2

    @sync_all_reduce("_sum", "_count", "_largest:MAX", "_product:PRODUCT")
    def compute(self):
        self.computed += 1
        if self._count == 0:
            raise NotComputableError("Plain")
        return self._sum.item(), self._count, self._largest, self._product, type(self._count)


def data():
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.rand(size, CLASSES, generator=generator),
            torch.randint(0, CLASSES, (size,), generator=generator),
        )
        for size in (7, 4, 1, 12, 5, 3)
    ]


def shard(split, rank):
    return [batch for batch, owner in zip(data(), split, strict=True) if owner == rank]


def auc_like(y_pred, y):
    order = y_pred[:, 0].argsort()
    return (y[order].double() * torch.linspace(0, 1, len(y), dtype=torch.float64)).sum()


def make_metrics():
    precision, recall = Precision(average=False), Recall(average=False)
    return {
        "accuracy": Accuracy(),
        "loss": Loss(cross_entropy),
        "precision": Precision(average=True),
        "recall": Recall(average="weighted"),
        "per class": Recall(average=None),
        "f1": (precision * recall * 2 / (precision + recall)).mean(),
        "fbeta": Fbeta(2.0),
        "matrix": ConfusionMatrix(CLASSES),
        "miou": mIoU(ConfusionMatrix(CLASSES)),
        "average": Average(output_transform=lambda output: output[0]),
        "history": EpochMetric(auc_like, check_compute_fn=False),
        "statistics": Statistics(metrics_result_mode="named"),
        "group": MetricGroup({"grouped": Accuracy()}),
        "table": Table(),
    }


def feed(name, metric, batch):
    metric.update(batch[0] if name == "average" else batch)


def alone(split):
    """Values, each metric by itself, and how many collectives each took."""
    values, counts = {}, {}
    for name, metric in make_metrics().items():
        for batch in shard(split, idist.get_rank()):
            feed(name, metric, batch)
        with collectives() as called:
            values[name] = metric.compute()
        counts[name] = sum(called.values())
        assert metric.compute() is not None  # the state was not replaced: twice is once
    return values, counts


def in_an_engine(split, names):
    """Values of an engine that runs over this rank's data, and its collectives."""
    engine = Engine(lambda engine, batch: batch)
    metrics = make_metrics()
    for name in names:
        metrics[name].attach(engine, name)
    mine = shard(split, idist.get_rank())
    with collectives() as called:
        if mine:
            engine.run(mine)
        else:  # this rank's engine has nothing to run over, but takes part at the end
            engine.fire_event(Events.EPOCH_STARTED)
            engine.fire_event(Events.EPOCH_COMPLETED)
    return {name: engine.state.metrics[name] for name in names}, dict(called)


def on_a_rank(splits):
    rank = idist.get_rank()
    result = {"alone": [alone(split) for split in splits]}
    names = list(make_metrics())
    result["engine"] = [in_an_engine(split, names) for split in splits]
    usual = ["accuracy", "loss", "precision", "recall", "f1", "matrix", "miou"]
    result["usual"] = in_an_engine(splits[0], usual)
    result["counts and sums"] = in_an_engine(splits[0], ["accuracy", "loss"])
    result["matrix"] = in_an_engine(splits[0], ["miou"])

    # Nobody has data: everybody says so.
    for metric in make_metrics().values():
        with pytest.raises(NotComputableError):
            metric.compute()

    # A formula that fails leaves everything as it was.
    class Failing(Accuracy):
        def compute(self):
            raise ZeroDivisionError

    failing = Failing()
    failing.update((torch.eye(2), torch.arange(2)))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failing.compute()
        assert int(failing.count) == 2
        assert failing._store.reduced is None

    # Ranks that were fed differently are told so, all of them, and nobody hangs.
    for metric, wrong in (
        (Precision(), torch.rand(4, 3 + rank)),
        (EpochMetric(auc_like, check_compute_fn=False), torch.rand(4, 3 + rank)),
        (
            EpochMetric(auc_like, check_compute_fn=False),
            torch.rand(4, 3).to([torch.float32, torch.float64, torch.float16][rank]),
        ),
    ):
        metric.update((wrong, torch.zeros(4, dtype=torch.long)))
        with pytest.raises(ValueError, match=r" of .* on rank 0, but .* on rank 1: feed"):
            metric.compute()

    # Attributes.
    plain = Plain()
    for batch in shard(splits[0], rank):
        plain.update(batch)
    local = plain._sum.item(), plain._count
    with collectives() as called:
        value = plain.compute()
    assert (plain._sum.item(), plain._count) == local
    assert plain.computed == 1
    result["plain"] = value, sum(called.values())

    class Mixed(Plain):
        def reset(self):
            super().reset()
            self._sum = torch.zeros(()) if rank else 0

    with pytest.raises(ValueError, match="Mixed._sum differs between ranks"):
        Mixed().compute()

    # A large history and exact counts.
    metric = Accuracy()
    metric.update((torch.eye(2), torch.arange(2)))
    metric.accumulate(correct=2**53 + rank, count=2**53)
    with_counts = metric._store
    metric.compute()
    assert int(metric.correct) == 2**53 + rank + 2
    assert with_counts is metric._store
    return result


def expected_values():
    values = {}
    for name, metric in make_metrics().items():
        for batch in data():
            feed(name, metric, batch)
        values[name] = metric.compute()
    return values


SPLITS = {
    2: [(0, 1, 0, 1, 0, 1), (0, 1, 1, 1, 1, 1), (0,) * 6, (1,) * 6],
    3: [(0, 1, 2, 0, 1, 2), (2, 2, 2, 0, 0, 0), (1,) * 6],
}


def close(value, expected, name):
    if isinstance(expected, dict):
        assert value.keys() == expected.keys()
        for key in expected:
            close(value[key], expected[key], f"{name}/{key}")
        return
    assert type(value) is type(expected), name
    torch.testing.assert_close(
        torch.as_tensor(value, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=1e-9,
        atol=1e-12,
        equal_nan=True,
        msg=name,
    )


@pytest.mark.parametrize("world_size", [2, 3])
def test_values_over_ranks_are_those_of_one_process(processes, world_size):
    splits = SPLITS[world_size]
    results = processes(world_size, on_a_rank, splits)
    expected = expected_values()
    for rank, result in enumerate(results):
        for index, (values, counts) in enumerate(result["alone"]):
            for name, value in values.items():
                close(value, expected[name], f"{name} alone, {splits[index]}, rank {rank}")
            # One for what is small, one for histories, and one for each kind of what is large.
            assert counts == dict.fromkeys(expected, 1) | {"history": 2, "statistics": 4}
        for index, (values, called) in enumerate(result["engine"]):
            for name, value in values.items():
                close(value, expected[name], f"{name} in an engine, {splits[index]}, rank {rank}")
            # All that is small, the shared counts too, and sizes; sums of float64 and of int64,
            # minima of float32; histories.
            assert called == {"all_gather_into_tensor": 2, "all_reduce": 3}
        usual, called = result["usual"]
        for name, value in usual.items():
            close(value, expected[name], f"{name} as usual, rank {rank}")
        assert called == {"all_gather_into_tensor": 1}
        assert result["counts and sums"][1] == {"all_gather_into_tensor": 1}
        assert sum(result["matrix"][1].values()) == 1
        value, called = result["plain"]
        total, count, largest, product, kind = value
        assert total == pytest.approx(sum(s.double().sum().item() for s, _ in data()))
        assert (count, product, kind) == (32, 2 ** len(data()), int)
        assert largest == max(scores.max().item() for scores, _ in data())
        assert called == 2
        # The same bits on all ranks.
        assert result["usual"][0]["loss"] == results[0]["usual"][0]["loss"]
