"""What is wrong with a schedule is told when it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.optim import lr_scheduler

import cookfire.handlers.param_scheduler as ours
import cookfire.handlers.state_param_scheduler as our_state
from cookfire.handlers import schedules
from tests.handlers.test_schedulers import optimizer, schedulers

MISTAKES: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (TypeError, "must be an optimizer of torch, or have param_groups; got int",
     lambda: ours.PiecewiseLinear(3, "lr", [(0, 1.0)])),
    (ValueError, "no such parameter; they have 'lr'",
     lambda: ours.PiecewiseLinear(optimizer(), "lrr", [(0, 1.0)])),
    (ValueError, "param_group_index 1: the optimizer has 1 groups",
     lambda: ours.PiecewiseLinear(optimizer(), "lr", [(0, 1.0)], param_group_index=1)),
    (ValueError, "expected ascending steps, got 3 after 5",
     lambda: ours.PiecewiseLinear(optimizer(), "lr", [(5, 1.0), (3, 0.5)])),
    (ValueError, "expected at least one", lambda: ours.PiecewiseLinear(optimizer(), "lr", [])),
    (ValueError, "steps of 0 or more, got 0.5", lambda: schedules.multi_step(1, 1, [0.5])),
    (ValueError, "at least 2 steps, got 1",
     lambda: ours.CosineAnnealingScheduler(optimizer(), "lr", 1.0, 0.0, 1)),
    (ValueError, "must have 0 steps or more, got -1",
     lambda: schedules.cycles(1.0, 0.0, 5, warmup=-1)),
    (ValueError, "sizes must be above 0, got 0",
     lambda: schedules.cycles(1.0, 0.0, 5, size_mult=0)),
    (ValueError, "step size must be at least 1, got 0", lambda: schedules.step_decay(1.0, 0.5, 0)),
    (ValueError, "comes back by itself has no warm-up", lambda: ours.LinearCyclicalScheduler(
        optimizer(), "lr", 1.0, 0.0, 5, warmup_duration=3)),
    (TypeError, "schedule must be a function", lambda: ours.LambdaScheduler(optimizer(), "lr", 1)),
    (TypeError, "a scheduler of torch goes into LRScheduler", lambda: ours.ConcatScheduler(
        [lr_scheduler.StepLR(optimizer(), 1)] * 2, [1])),
    (ValueError, "expected a list of at least 2", lambda: ours.ConcatScheduler(
        [ours.PiecewiseLinear(optimizer(), "lr", [(0, 1.0)])], [])),
    (ValueError, "must have the same optimizer", lambda: ours.ConcatScheduler(
        [ours.PiecewiseLinear(optimizer(), "lr", [(0, 1.0)]) for _ in range(2)], [3])),
    (ValueError, "expected one less than there are schedules",
     lambda: schedules.concatenate([schedules.linear], [3])),
    (ValueError, "whole numbers of at least 1, got [0]",
     lambda: schedules.concatenate([abs, abs], [0])),
    (ValueError, "expected one for each of 1 schedulers", lambda: ours.ParamGroupScheduler(
        [ours.PiecewiseLinear(optimizer(), "lr", [(0, 1.0)])], names=[])),
    (TypeError, "scheduler of torch.optim.lr_scheduler or a ParamScheduler, got SGD",
     lambda: ours.create_lr_scheduler_with_warmup(optimizer(), 0.0, 3)),
    (ValueError, "at least 2 steps, its first and its last", lambda: (
        ours.create_lr_scheduler_with_warmup(lr_scheduler.StepLR(optimizer(), 1), 0.0, 1))),
    (TypeError, "lambda_obj must be a function", lambda: our_state.LambdaStateScheduler(1, "x")),
    (TypeError, "start must be a number, got 'a'",
     lambda: ours.LinearCyclicalScheduler(optimizer(), "lr", "a", 0.0, 10)),
    (ValueError, "end must be finite, got nan",
     lambda: ours.CosineAnnealingScheduler(optimizer(), "lr", 1.0, float("nan"), 10)),
    (TypeError, "milestones: the value at 30 must be a number, got 'b'",
     lambda: ours.PiecewiseLinear(optimizer(), "lr", [(0, 1.0), (30, "b")])),
    (TypeError, r"milestones: expected pairs (step, value), got 5",
     lambda: ours.PiecewiseLinear(optimizer(), "lr", [5, 6])),
    (TypeError, "initial must be a number, got 'a'",
     lambda: our_state.ExpStateScheduler("a", 0.5, "x")),
    (TypeError, "gamma must be a number", lambda: schedules.step_decay(1.0, "a", 3)),
    (ValueError, "'iteration': engine.state's own attribute",
     lambda: our_state.LambdaStateScheduler(abs, "iteration")),
    (ValueError, "the state lacks 'history'", lambda: ours.PiecewiseLinear(
        optimizer(), "lr", [(0, 1.0)]).load_state_dict({"event_index": 3})),
    (ValueError, "of 1 schedulers, here are 2", lambda: schedulers(
        "concat", optimizer()).load_state_dict(
            {"event_index": 1, "history": [], "schedulers": [{}]})),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_told(number: int) -> None:
    kind, message, make = MISTAKES[number]
    with pytest.raises(kind) as raised:
        make()
    assert message in str(raised.value)
