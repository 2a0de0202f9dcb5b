"""What metrics of predicted numbers sum: exactly, once for all of them, and after loading too."""

from __future__ import annotations

import pytest
import sklearn.metrics
import torch

import cookfire.metrics as ours
from cookfire.engine import Engine
from cookfire.metrics import regression
from tests.metrics.test_regression import COLUMN, WHOLE, value_of


def test_sums_stay_exact_beyond_what_float32_counts():
    metric = ours.MeanAbsoluteError()
    metric.update((torch.full((1,), 2.0**30), torch.zeros(1)))
    for _ in range(8):
        metric.update((torch.ones(1), torch.zeros(1)))
    assert metric.compute() == (2**30 + 8) / 9
    metric.accumulate(absolute=0.0, count=2**53 - 8)
    assert metric.compute() == pytest.approx((2**30 + 8) / (2**53 + 1), rel=1e-15)


def test_metrics_of_one_output_work_out_the_errors_once(monkeypatch):
    from cookfire.metrics._pairs import PairMetric

    calls = []
    subtract = PairMetric._subtract

    def counted(self, *args):
        calls.append(type(self).__name__)
        return subtract(self, *args)

    monkeypatch.setattr(PairMetric, "_subtract", counted)
    engine = Engine(lambda engine, batch: batch)
    made = {
        "mse": ours.MeanSquaredError(),
        "rmse": ours.RootMeanSquaredError(),
        "mae": ours.MeanAbsoluteError(),
        "r2": regression.R2Score(),
        "max": regression.MaximumAbsoluteError(),
        "mean": regression.MeanError(),
    }
    for name, metric in made.items():
        metric.attach(engine, name)
    generator = torch.Generator().manual_seed(0)
    data = [tuple(torch.rand(2, 5, generator=generator)) for _ in range(3)]
    engine.run(data)
    assert len({id(made[name]._store) for name in ("mse", "rmse", "mae", "r2")}) == 1
    assert calls == ["MeanSquaredError"] * 3
    for name, metric in made.items():
        assert engine.state.metrics[name] == value_of(type(metric)(), data)


def test_a_metric_alone_sums_what_it_needs():
    metric = ours.MeanSquaredError()
    metric.update((torch.zeros(2), torch.ones(2)))
    assert metric._store.local.values["absolute"] is None
    assert metric._store.local.values["moments"] is None


def test_a_metric_attached_later_does_not_share_sums_that_miss_what_it_needs():
    engine = Engine(lambda engine, batch: batch)
    mse, mae = ours.MeanSquaredError(), ours.MeanAbsoluteError()
    mse.attach(engine, "mse")
    attached = next(engine.handlers()).__self__
    attached.started(engine)
    engine.state.output = torch.zeros(2), torch.full((2,), 3.0)
    attached.iteration_completed(engine)
    mae.attach(engine, "mae")
    engine.state.output = torch.zeros(2), torch.ones(2)
    attached.iteration_completed(engine)
    assert (mse.compute(), mae.compute()) == (5.0, 1.0)


def test_a_subclass_with_its_own_update_shares_no_state():
    class Scaled(ours.MeanSquaredError):
        def update(self, output):
            super().update((2 * output[0], 2 * output[1]))

    engine = Engine(lambda engine, batch: batch)
    ours.MeanSquaredError().attach(engine, "one")
    Scaled().attach(engine, "two")
    engine.run([(torch.zeros(2), torch.ones(2))])
    assert engine.state.metrics == {"one": 1.0, "two": 4.0}


def test_moments_are_exact_where_there_is_no_float64(monkeypatch):
    monkeypatch.setattr("cookfire.metrics._moments.WITHOUT_FLOAT64", ("cpu",))
    generator = torch.Generator().manual_seed(0)
    y = 1e4 + torch.randn(20_000, generator=generator)
    y_pred = y + 0.3 * torch.randn(20_000, generator=generator)
    metrics = regression.R2Score(), ours.MeanAbsoluteError()
    for batch in zip(y_pred.split(8), y.split(8), strict=True):
        for metric in metrics:
            metric.update(batch)
    exact = y_pred.double().numpy(), y.double().numpy()
    assert metrics[0].compute() == pytest.approx(sklearn.metrics.r2_score(*exact[::-1]), rel=1e-7)
    expected = sklearn.metrics.mean_absolute_error(*exact)
    assert metrics[1].compute() == pytest.approx(expected, rel=1e-7)
    saved = metrics[0].state_dict()["ranks"][0][0]["states"]
    assert saved["squared"].dtype == torch.float64


def test_a_loaded_state_goes_on():
    generator = torch.Generator().manual_seed(0)
    data = [tuple(torch.rand(2, 5, generator=generator)) for _ in range(4)]
    for name in (*COLUMN, *WHOLE):
        make = COLUMN.get(name) or WHOLE[name]
        metric, other = make(), make()
        for batch in data[:2]:
            metric.update(batch)
        other.load_state_dict(metric.state_dict())
        for batch in data[2:]:
            other.update(batch)
        assert other.compute() == pytest.approx(value_of(make(), data), rel=1e-6, abs=1e-9), name
