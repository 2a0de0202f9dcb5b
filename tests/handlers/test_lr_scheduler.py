"""Schedules of torch as handlers: the value in force at each step."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import ignite.handlers.param_scheduler
import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler

from cookfire.engine import Engine, Events
from cookfire.handlers import LRScheduler


class Decay:
    """A callable with a state, as LambdaLR may have."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: int) -> float:
        self.calls += 1
        return 1 / self.calls


SCHEDULES: dict[str, Callable[[Optimizer], Any]] = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 3),
    "exponential": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 5),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=20),
    "cyclic": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.1, 0.5, step_size_up=3),
    "function": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
    "object": lambda optimizer: lr_scheduler.LambdaLR(optimizer, Decay()),
    "sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
            lr_scheduler.CosineAnnealingLR(optimizer, 5),
        ],
        [3],
    ),
    "chain": lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(optimizer, 0.9), lr_scheduler.StepLR(optimizer, 2)]
    ),
}


def optimizer(groups: int = 1) -> SGD:
    parameters = [{"params": [torch.zeros(1)], "lr": 0.1 * (i + 1)} for i in range(groups)]
    return SGD(parameters, lr=0.1, momentum=0.9)


def plain_loop(make: Callable[[Optimizer], Any], steps: int) -> list[float]:
    """Return the value in force at each step of a loop in plain torch."""
    sgd = optimizer()
    scheduler = make(sgd)
    values = []
    for _ in range(steps):
        values.append(float(sgd.param_groups[0]["lr"]))
        sgd.step()
        scheduler.step()
    return values


def trainer_of(sgd: SGD) -> tuple[Engine, list[float]]:
    values: list[float] = []

    def step(engine: Engine, batch: int) -> None:
        values.append(float(sgd.param_groups[0]["lr"]))
        sgd.step()

    return Engine(step), values


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("legacy", [False, True])
def test_the_value_in_force_at_each_step_is_that_of_a_plain_loop(name: str, legacy: bool) -> None:
    sgd = optimizer()
    trainer, values = trainer_of(sgd)
    scheduler = LRScheduler(SCHEDULES[name](sgd), use_legacy=legacy)
    scheduler.attach(trainer, Events.ITERATION_COMPLETED if legacy else Events.ITERATION_STARTED)
    trainer.run([0] * 5, max_epochs=3)
    assert values == plain_loop(SCHEDULES[name], 15)
    assert scheduler.event_index == 15


def test_a_schedule_of_epochs_changes_between_epochs() -> None:
    sgd = optimizer()
    trainer, values = trainer_of(sgd)
    schedule = lr_scheduler.ExponentialLR(sgd, 0.5)
    LRScheduler(schedule).attach(trainer, Events.EPOCH_STARTED)
    trainer.run([0] * 2, max_epochs=3)
    assert values == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("legacy", [False, True])
def test_simulated_values_are_those_of_a_plain_loop_and_nothing_is_changed(
    name: str, legacy: bool
) -> None:
    sgd = optimizer()
    schedule = SCHEDULES[name](sgd)
    before = copy.deepcopy((sgd.param_groups, schedule.state_dict()))
    values = LRScheduler.simulate_values(12, schedule, use_legacy=legacy)
    expected = plain_loop(SCHEDULES[name], 13)[legacy:][:12]
    assert values == [[index, value] for index, value in enumerate(expected)]
    assert (sgd.param_groups, schedule.state_dict()) == before


# ignite skips the first value of some others, and does not take compositions.
@pytest.mark.parametrize("name", ["step", "one cycle", "cyclic", "function"])
@pytest.mark.parametrize("legacy", [False, True])
def test_simulated_values_are_those_of_ignite(name: str, legacy: bool) -> None:
    theirs = ignite.handlers.param_scheduler.LRScheduler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.simulate_values(12, SCHEDULES[name](optimizer()), use_legacy=legacy)
    values = LRScheduler.simulate_values(12, SCHEDULES[name](optimizer()), use_legacy=legacy)
    assert [value for _, value in values] == pytest.approx([value for _, value in expected])
    assert [index for index, _ in values] == list(range(12))


def test_simulation_copies_neither_parameters_nor_tensors_in_place() -> None:
    class NotToCopy(torch.nn.Parameter):
        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("copied")

    weight = NotToCopy(torch.zeros(2))
    sgd = SGD([{"params": [weight]}], lr=torch.tensor(1.0))
    schedule = lr_scheduler.ExponentialLR(sgd, 0.5)
    assert LRScheduler.simulate_values(3, schedule) == [[0, 1.0], [1, 0.5], [2, 0.25]]
    assert sgd.param_groups[0]["lr"] == 1.0


def test_groups_have_a_value_each_and_history_remembers_them() -> None:
    sgd = optimizer(groups=2)
    trainer, _ = trainer_of(sgd)
    scheduler = LRScheduler(lr_scheduler.ExponentialLR(sgd, 0.5), save_history=True)
    scheduler.attach(trainer)
    trainer.run([0] * 3)
    expected = [[0.1, 0.2], [0.05, 0.1], [0.025, 0.05]]
    history: Any = vars(trainer.state)["param_history"]
    assert history == {"lr": expected}
    assert scheduler.get_param() == [0.025, 0.05]
    assert scheduler.optimizer is sgd
    assert scheduler.optimizer_param_groups is sgd.param_groups
    single = LRScheduler(lr_scheduler.ExponentialLR(optimizer(), 0.5))
    single(None)
    assert single.get_param() == 0.1


def test_it_continues_from_its_state_with_its_history_and_without_a_warning() -> None:
    def new() -> tuple[list[float], list[Any]]:
        sgd = optimizer()
        trainer, seen = trainer_of(sgd)
        scheduler = LRScheduler(SCHEDULES["sequence"](sgd), save_history=True)
        scheduler.attach(trainer)
        return seen, [trainer, sgd, scheduler]

    before, things = new()
    things[0].run([0] * 7, max_iters=1)
    saved = copy.deepcopy([thing.state_dict() for thing in things])
    after, things = new()
    for thing, state in zip(things, saved, strict=True):
        thing.load_state_dict(state)
    things[0].run([0] * 7, max_iters=7)
    assert before + after == plain_loop(SCHEDULES["sequence"], 7)
    assert things[0].state.param_history["lr"] == [[value] for value in before + after]
    with pytest.raises(ValueError, match="the state lacks 'event_index'"):
        things[2].load_state_dict({})


def test_ignites_state_loads() -> None:
    theirs = ignite.handlers.param_scheduler.LRScheduler(SCHEDULES["step"](optimizer()))
    for _ in range(4):
        theirs(None)
    ours = LRScheduler(SCHEDULES["step"](optimizer()))
    ours.load_state_dict(theirs.state_dict())
    assert ours.event_index == 4
    assert ours.lr_scheduler.last_epoch == 4


def test_only_schedulers_that_need_no_metric_are_taken() -> None:
    with pytest.raises(TypeError, match="ReduceLROnPlateau needs a metric at each step"):
        LRScheduler(lr_scheduler.ReduceLROnPlateau(optimizer()))
    with pytest.raises(TypeError, match="must be one of torch.optim.lr_scheduler, got SGD"):
        LRScheduler.simulate_values(3, optimizer())


def test_legacy_at_the_wrong_event_warns_once() -> None:
    sgd = optimizer()
    trainer, _ = trainer_of(sgd)
    LRScheduler(SCHEDULES["step"](sgd), use_legacy=True).attach(trainer)
    with pytest.warns(UserWarning, match="skips the scheduler's first value") as said:
        trainer.run([0] * 3)
    assert len(said) == 1


def test_values_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    schedule = lr_scheduler.ExponentialLR(optimizer(groups=2), 0.5)
    axes = LRScheduler.plot_values(num_events=3, lr_scheduler=schedule)
    assert [line.get_ydata().tolist() for line in axes.lines] == [
        [0.1, 0.05, 0.025],
        [0.2, 0.1, 0.05],
    ]
    axes.figure.clear()
