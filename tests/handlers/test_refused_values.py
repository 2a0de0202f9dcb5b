"""Values that would spoil a training without a word are refused, where they are given or due."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from cookfire.distributed import auto_dataloader
from cookfire.engine import Engine, create_supervised_evaluator
from cookfire.handlers import (
    BatchSizeScheduler,
    EarlyStopping,
    EMAHandler,
    EpochOutputStore,
    GradientClipping,
    GradientNorm,
    Preemption,
    ProgressBar,
    RunState,
    TerminateOnNan,
    TimeLimit,
)
from cookfire.handlers._score import get_default_score_fn
from cookfire.handlers.param_scheduler import (
    ConcatScheduler,
    CosineAnnealingScheduler,
    LambdaScheduler,
    ParamGroupScheduler,
)
from cookfire.metrics import Accuracy


def optimizer() -> SGD:
    return SGD([torch.zeros(1)], lr=0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), "0.1", None])
def test_a_scheduled_value_that_is_no_finite_number_stops_the_run_and_is_not_written(
    value: Any,
) -> None:
    of = optimizer()
    trainer = Engine(lambda *_: None)
    LambdaScheduler(of, "lr", lambda step: value if step == 2 else 0.5).attach(trainer)
    with pytest.raises((TypeError, ValueError), match=r"LambdaScheduler: .*'lr' at step 2 must be"):
        trainer.run(range(4))
    assert trainer.state.iteration == 3
    assert of.param_groups[0]["lr"] == 0.5


def test_a_number_is_not_written_where_the_optimizer_has_a_tuple() -> None:
    adam = AdamW([torch.zeros(1)])
    with pytest.raises(TypeError, match=r"'betas' at step 0 must be a tuple as in \(0.9, 0.999\)"):
        LambdaScheduler(adam, "betas", lambda _: 0.9)(None)
    LambdaScheduler(adam, "betas", lambda _: (0.8, 0.99))(None)
    assert adam.param_groups[0]["betas"] == (0.8, 0.99)


def test_numbers_of_numpy_and_tensors_are_written() -> None:
    of = optimizer()
    for value in (np.float32(0.25), torch.tensor(0.25), 1):
        LambdaScheduler(of, "lr", lambda _, value=value: value)(None)
        assert of.param_groups[0]["lr"] == value


def test_one_scheduler_is_not_used_twice_in_a_combination() -> None:
    cosine = CosineAnnealingScheduler(optimizer(), "lr", 0.1, 0.0, 10)
    with pytest.raises(ValueError, match="expected different objects, got one twice"):
        ConcatScheduler([cosine, cosine], [5])
    with pytest.raises(ValueError, match="expected different objects, got one twice"):
        ParamGroupScheduler([cosine, cosine])


def test_two_schedulers_of_a_combination_do_not_write_the_same_parameter() -> None:
    of = SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)]}], lr=0.1)
    every, first, second, third = (
        CosineAnnealingScheduler(of, "lr", 0.1, 0.0, 10, param_group_index=index)
        for index in (None, 0, 1, 1)
    )
    momentum = LambdaScheduler(of, "momentum", lambda _: 0.9)
    ParamGroupScheduler([first, second, momentum])
    with pytest.raises(ValueError, match="two of them write 'lr' of the same parameter group"):
        ParamGroupScheduler([momentum, every, second])
    with pytest.raises(ValueError, match="two of them write 'lr' of the same parameter group"):
        ParamGroupScheduler([first, ConcatScheduler([second, third], [5]), every])
    ParamGroupScheduler([first, ConcatScheduler([second, third], [5])])


def test_settings_of_another_kind_are_named(tmp_path: Path) -> None:
    trainer, net = Engine(lambda *_: None), nn.Linear(1, 1)
    for make, words in (
        (
            lambda: RunState(trainer).keep(tmp_path, every="a"),
            "every must be a whole number",
        ),
        (
            lambda: RunState(trainer).keep(tmp_path, n_saved="2"),
            "n_saved must be a whole number",
        ),
        (lambda: EMAHandler(net, "a"), "momentum must be a number"),
        (lambda: ProgressBar(desc="Training", foo=3), "foo: neither ProgressBar nor tqdm has"),
        (lambda: get_default_score_fn(None), "metric_name must be a string, got None"),
        (
            lambda: create_supervised_evaluator(net, [3]),
            "metrics must be a dict",
        ),
        (
            lambda: create_supervised_evaluator(net, {"a": Accuracy}),
            "got the class Accuracy",
        ),
    ):
        with pytest.raises(TypeError, match=words):
            make()
    assert not list(tmp_path.iterdir())


def test_outputs_are_not_stored_over_the_states_own_attributes() -> None:
    with pytest.raises(ValueError, match="'iteration': engine.state's own attribute"):
        EpochOutputStore().attach(Engine(lambda *_: None), "iteration")


def test_a_limit_of_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="limit_sec must be above 0 seconds, got nan"):
        TimeLimit(float("nan"))


@pytest.mark.parametrize(
    ("warmup", "updates", "message"),
    [(1.5, 10, "from 0 to 1, got 1.5"), (float("nan"), 10, "got nan"), (0.5, -1, "got -1")],
)
def test_a_warm_up_of_an_average_out_of_range_is_refused(
    warmup: float, updates: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EMAHandler(nn.Linear(1, 1), 0.1, warmup, updates)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Preemption(print, [9]), "as signal.SIGTERM, got 9"),
        (lambda: Preemption(print, [signal.SIGKILL]), "what a program can hear"),
        (lambda: Preemption(print, every=1.5), "every must be a whole number of iterations"),
        (lambda: GradientNorm(optimizer(), "x"), "norm_type must be a number, got 'x'"),
        (lambda: GradientNorm(optimizer(), 0), "norm_type must be above 0, got 0"),
        (lambda: GradientClipping(optimizer(), "a"), "max_norm must be a number, got 'a'"),
        (lambda: EarlyStopping(2.5, float, Engine(print)), "whole number of evaluations, got 2.5"),
        (lambda: TerminateOnNan(3), "output_transform must be a function, got 3"),
        (lambda: EpochOutputStore(3), "output_transform must be a function, got 3"),
    ],
)
def test_settings_of_a_wrong_kind_are_refused_when_they_are_given(
    make: Callable[[], object], text: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(text)):
        make()


def test_a_batch_size_is_not_scheduled_for_other_data_than_the_runs() -> None:
    mine, other = (auto_dataloader(range(8), batch_size=2) for _ in range(2))
    trainer = Engine(lambda *_: None)
    BatchSizeScheduler(mine, lambda _: 4).attach(trainer)
    with pytest.raises(ValueError, match="give BatchSizeScheduler the loader that run"):
        trainer.run(other)
    assert trainer.run(mine).iteration == 2
