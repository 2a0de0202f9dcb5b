"""Schedules: their values are those of torch and ignite, in any order and after a resume."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import ignite.handlers.param_scheduler as theirs
import ignite.handlers.state_param_scheduler as their_state
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD, Optimizer, lr_scheduler

import cookfire.handlers.param_scheduler as ours
import cookfire.handlers.state_param_scheduler as our_state
from cookfire.engine import Engine, Events
from cookfire.handlers import schedules

STEPS = 200


def optimizer(groups: int = 1) -> SGD:
    return SGD([{"params": [torch.zeros(1)], "lr": 0.1} for _ in range(groups)], momentum=0.9)


CYCLE = {"param_name": "lr", "start_value": 1.0, "end_value": 0.2}
MULTIPLIED = {"cycle_mult": 1.5, "start_value_mult": 0.9, "end_value_mult": 1.1}
GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "saw": ("LinearCyclicalScheduler", {**CYCLE, "cycle_size": 7, "monotonic": True}),
    "triangle": ("LinearCyclicalScheduler", {**CYCLE, "cycle_size": 7}),
    "saw and back": (
        "LinearCyclicalScheduler",
        {**CYCLE, **MULTIPLIED, "cycle_size": 7, "monotonic": True, "warmup_duration": 3},
    ),
    "triangle that grows": ("LinearCyclicalScheduler", {**CYCLE, **MULTIPLIED, "cycle_size": 6}),
    "cosine": ("CosineAnnealingScheduler", {**CYCLE, "cycle_size": 9}),
    "cosine and back": ("CosineAnnealingScheduler",
                        {**CYCLE, **MULTIPLIED, "cycle_size": 6, "warmup_duration": 4}),
    "cosine of momentum": ("CosineAnnealingScheduler",
                           {**CYCLE, "param_name": "momentum", "cycle_size": 30}),
    "pieces": ("PiecewiseLinear",
               {"param_name": "lr", "milestones_values": [(3, 1.0), (60, 0.5), (150, 0.0)]}),
    "pieces with a jump": (
        "PiecewiseLinear",
        {"param_name": "lr", "milestones_values": [(0, 1.0), (20, 0.5), (20, 0.9), (99, 0.1)]},
    ),
}  # fmt: skip
STATE: dict[str, tuple[str, dict[str, Any]]] = {
    "function": ("LambdaStateScheduler", {"lambda_obj": lambda step: 0.99**step}),
    "pieces": ("PiecewiseLinearStateScheduler",
               {"milestones_values": [(3, 1.0), (60, 0.5), (150, 0.0)]}),
    "exponential": ("ExpStateScheduler", {"initial_value": 2.0, "gamma": 0.97}),
    "steps": ("StepStateScheduler", {"initial_value": 2.0, "gamma": 0.5, "step_size": 30}),
    "milestones": ("MultiStepStateScheduler",
                   {"initial_value": 2.0, "gamma": 0.5, "milestones": [3, 50, 50, 120]}),
}  # fmt: skip


def column(rows: list[list[Any]]) -> list[float]:
    assert [row[0] for row in rows] == list(range(len(rows)))
    return [row[1] for row in rows]


@pytest.mark.parametrize("name", GROUPS)
def test_values_are_those_of_ignite(name: str) -> None:
    kind, kwargs = GROUPS[name]
    expected = column(getattr(theirs, kind).simulate_values(STEPS, **copy.deepcopy(kwargs)))
    values = column(getattr(ours, kind).simulate_values(STEPS, **kwargs))
    assert values == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", STATE)
def test_values_in_the_state_are_those_of_ignite(name: str) -> None:
    kind, kwargs = STATE[name]
    kwargs = {**kwargs, "param_name": "noise"}
    given = {**kwargs, "create_new": True}
    expected = column(getattr(their_state, kind).simulate_values(STEPS, **given))
    values = column(getattr(our_state, kind).simulate_values(STEPS, **kwargs))
    assert values == pytest.approx(expected, rel=1e-12)


TORCH: dict[str, tuple[Callable[[Optimizer], Any], schedules.Schedule]] = {
    "exponential": (lambda o: lr_scheduler.ExponentialLR(o, 0.97),
                    schedules.exponential(0.1, 0.97)),
    "steps": (lambda o: lr_scheduler.StepLR(o, 30, 0.5), schedules.step_decay(0.1, 0.5, 30)),
    "milestones": (lambda o: lr_scheduler.MultiStepLR(o, [3, 50, 120], 0.5),
                   schedules.multi_step(0.1, 0.5, [3, 50, 120])),
    "restarts": (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 12, 2, 0.01),
                 schedules.cycles(0.1, 0.01, 12, schedules.cosine, size_mult=2)),
    "triangle": (lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.5, 8, cycle_momentum=False),
                 schedules.cycles(0.1, 0.5, 16, schedules.triangle)),
    "line": (lambda o: lr_scheduler.LinearLR(o, 0.5, 1.0, 20),
             schedules.piecewise_linear([(0, 0.05), (20, 0.1)])),
    "in turn": (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.5, 1.0, 20), lr_scheduler.ExponentialLR(o, 0.9)], [20]
        ),
        schedules.concatenate(
            [schedules.piecewise_linear([(0, 0.05), (20, 0.1)]), schedules.exponential(0.1, 0.9)],
            [20],
        ),
    ),
}  # fmt: skip


def torch_values(make: Callable[[Optimizer], Any]) -> list[float]:
    sgd = optimizer()
    scheduler, values = make(sgd), []
    for _ in range(STEPS):
        values.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("name", TORCH)
def test_values_are_those_of_torch(name: str) -> None:
    make, schedule = TORCH[name]
    values = [schedule(step) for step in range(STEPS)]
    assert values == pytest.approx(torch_values(make), rel=1e-9)


@given(
    size=st.integers(2, 9),
    size_mult=st.sampled_from([1.0, 1.05, 1.5, 2.0]),
    warmup=st.integers(0, 4),
    steps=st.lists(st.integers(0, 99)),
)
def test_a_schedule_is_a_function_of_the_step_alone_in_whatever_order_it_is_asked(
    size: int, size_mult: float, warmup: int, steps: list[int]
) -> None:
    expected = theirs.LinearCyclicalScheduler.simulate_values(
        100, param_name="lr", start_value=1.0, end_value=0.0, cycle_size=size,
        cycle_mult=size_mult, warmup_duration=warmup, monotonic=True,
    )  # fmt: skip
    schedule = schedules.cycles(
        1.0, 0.0, size, schedules.linear, size_mult=size_mult, warmup=warmup
    )
    for step in steps:
        assert schedule(step) == pytest.approx(expected[step][1], abs=1e-12)


def test_cycles_that_get_shorter_end_at_two_steps() -> None:
    schedule = schedules.cycles(1.0, 0.0, 4, schedules.linear, size_mult=0.5)
    assert [schedule(step) for step in range(8)] == [1.0, 0.75, 0.5, 0.25, 1.0, 0.5, 1.0, 0.5]
    assert schedule(10**9) == 1.0


def schedulers(name: str, sgd: SGD) -> Any:
    if name in GROUPS:
        kind, kwargs = GROUPS[name]
        return getattr(ours, kind)(sgd, **kwargs)
    line = ours.PiecewiseLinear(sgd, "lr", [(0, 0.0), (50, 1.0)])
    cosine = ours.CosineAnnealingScheduler(sgd, "lr", 1.0, 0.0, 40)
    made: dict[str, Callable[[], Any]] = {
        "lambda": lambda: ours.LambdaScheduler(sgd, "lr", lambda step: 1 / (1 + step)),
        "concat": lambda: ours.ConcatScheduler([line, cosine], [50]),
        "groups": lambda: ours.ParamGroupScheduler(
            [line, ours.CosineAnnealingScheduler(sgd, "momentum", 0.9, 0.5, 40)]
        ),
        "concat with torch": lambda: ours.ConcatScheduler(
            [line, ours.LRScheduler(lr_scheduler.ExponentialLR(sgd, 0.99)), cosine], [50, 60]
        ),
        "warm-up": lambda: ours.create_lr_scheduler_with_warmup(
            lr_scheduler.ExponentialLR(sgd, 0.99), 0.0, 20
        ),
    }
    return made[name]()


COMBINED = ["lambda", "concat", "groups", "concat with torch", "warm-up"]


@pytest.mark.parametrize("name", [*GROUPS, *COMBINED])
def test_resumed_in_the_middle_it_goes_on_with_the_same_values(name: str) -> None:
    def run(steps: int, states: Any = None) -> tuple[list[Any], Any]:
        sgd = optimizer()
        scheduler = schedulers(name, sgd)
        scheduler.save_history = True
        values: list[Any] = []

        def step(engine: Engine, batch: int) -> None:
            values.append([sgd.param_groups[0][key] for key in ("lr", "momentum")])
            sgd.step()

        trainer = Engine(step)
        scheduler.attach(trainer)
        things = [sgd, scheduler, trainer]
        for thing, state in zip(things, states or [], strict=False):
            thing.load_state_dict(state)
        trainer.run([0] * STEPS, max_iters=steps)
        history: Any = vars(trainer.state)["param_history"]
        return values, (copy.deepcopy([thing.state_dict() for thing in things]), history)

    whole, (_, history) = run(STEPS)
    before, (states, _) = run(73)
    after, (_, resumed_history) = run(STEPS, states)
    assert before + after == whole
    assert resumed_history == history
    assert all(len(values) == STEPS for values in history.values())


def test_a_concatenation_with_torchs_schedulers_has_the_values_of_each() -> None:
    sgd = optimizer()
    scheduler = schedulers("concat with torch", sgd)
    values = []
    for _ in range(STEPS):
        scheduler(None)
        values.append(sgd.param_groups[0]["lr"])
        sgd.step()
    line = [step / 50 for step in range(50)]
    decay = [0.1 * 0.99**step for step in range(60)]
    cosine = [schedules.cycles(1.0, 0.0, 40)(step) for step in range(90)]
    assert values == pytest.approx(line + decay + cosine)


@pytest.mark.parametrize("end", [None, 0.5, 0.1])
@pytest.mark.parametrize("duration", [2, 3, 20])
def test_a_warm_up_before_a_scheduler_of_torch_is_that_of_ignite(
    end: float | None, duration: int
) -> None:
    values: list[list[Any]] = []
    for module in (theirs, ours):
        rows: list[Any] = [None] * STEPS
        schedule = lr_scheduler.ExponentialLR(optimizer(), 0.9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module.create_lr_scheduler_with_warmup(
                schedule, 0.0, duration, end, output_simulated_values=rows
            )
        values.append(rows)
    assert column(values[1]) == pytest.approx(column(values[0]), rel=1e-9)
    # After it comes what a plain loop gives, the first value only if it was not yet in force.
    plain = torch_values(lambda o: lr_scheduler.ExponentialLR(o, 0.9))
    rest = column(values[1])[duration:]
    assert rest == pytest.approx(plain[0 if end == 0.5 else 1 :][: len(rest)])


def test_a_warm_up_reaches_each_groups_own_value() -> None:
    sgd = SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in (0.1, 0.4)])
    rows: list[Any] = [None] * 4
    ours.create_lr_scheduler_with_warmup(
        lr_scheduler.ExponentialLR(sgd, 0.5), 0.0, 3, output_simulated_values=rows
    )
    assert rows == [[0, 0, 0], [1, 0.05, 0.2], [2, 0.1, 0.4], [3, 0.05, 0.2]]
    one = ours.PiecewiseLinear(sgd, "lr", [(0, 1.0), (2, 0.0)], param_group_index=1)
    scheduler = ours.create_lr_scheduler_with_warmup(one, 0.5, 2)
    seen = []
    for _ in range(3):
        scheduler(None)
        seen.append([group["lr"] for group in sgd.param_groups])
    assert seen == [[0.1, 0.5], [0.1, 1.0], [0.1, 0.5]]


def test_groups_of_one_parameter_have_a_history_each_and_a_tensor_is_filled() -> None:
    sgd = optimizer(groups=2)
    for group in sgd.param_groups:
        group["lr"] = torch.tensor(0.1)
    tensors = [group["lr"] for group in sgd.param_groups]
    scheduler = ours.ParamGroupScheduler(
        [
            ours.PiecewiseLinear(sgd, "lr", [(0, 1.0), (2, 0.0)], param_group_index=0),
            ours.PiecewiseLinear(sgd, "lr", [(0, 0.5), (2, 0.0)], param_group_index=1),
        ],
        save_history=True,
    )
    trainer = Engine(lambda *_: None)
    scheduler.attach(trainer)
    trainer.run([0] * 3)
    history: Any = vars(trainer.state)["param_history"]
    assert history == {"lr": [[1.0], [0.5], [0.0]], "lr_1": [[0.5], [0.25], [0.0]]}
    assert tensors[0] is sgd.param_groups[0]["lr"]
    assert tensors[0] == 0


def test_simulations_and_drawings_leave_schedulers_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    sgd = optimizer()
    line = ours.PiecewiseLinear(sgd, "lr", [(0, 0.0), (2, 1.0)])
    decay = ours.LRScheduler(lr_scheduler.ExponentialLR(sgd, 0.5))
    rows = ours.ConcatScheduler.simulate_values(
        4, schedulers=[line, decay], durations=[2], param_names=["lr", "momentum"]
    )
    assert rows == [[0, 0, 0.9], [1, 0.5, 0.9], [2, 0.1, 0.9], [3, 0.05, 0.9]]
    momentum = ours.PiecewiseLinear(sgd, "momentum", [(0, 0.0), (2, 1.0)])
    rows = ours.ParamGroupScheduler.simulate_values(2, [momentum, decay])
    assert rows == [[0, 0.0, 0.1], [1, 0.5, 0.05]]
    assert (line.event_index, decay.event_index, sgd.param_groups[0]["lr"]) == (0, 0, 0.1)
    kwargs = GROUPS["cosine"][1]
    axes = ours.CosineAnnealingScheduler.plot_values(10, **kwargs)
    assert axes.get_ylabel() == "lr"
    assert len(axes.lines[0].get_ydata()) == 10
    axes.figure.clear()


def test_a_plateau_is_torchs_also_resumed_and_for_one_group() -> None:
    metrics = [1.0, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8, float("nan"), 0.7] * 2
    kwargs: Any = {"factor": 0.5, "patience": 1, "min_lr": 0.01}
    sgd = optimizer()
    plain = lr_scheduler.ReduceLROnPlateau(sgd, **kwargs)
    expected = []
    for metric in metrics:
        plain.step(metric)
        expected.append(sgd.param_groups[0]["lr"])
    simulated = ours.ReduceLROnPlateauScheduler.simulate_values(
        len(metrics), metrics, 0.1, **kwargs
    )
    assert column(simulated) == expected

    def begin() -> tuple[SGD, Engine, Any]:
        two = optimizer(groups=2)
        trainer = Engine(lambda *_: None)
        scheduler = ours.ReduceLROnPlateauScheduler(
            two, "loss", trainer, save_history=True, param_group_index=1, **kwargs
        )
        return two, trainer, scheduler

    def feed(scheduler: Any, values: list[float]) -> None:
        evaluator = Engine(lambda *_: None)
        evaluator.add_event_handler(Events.COMPLETED, scheduler)
        for value in values:
            evaluator.state.metrics["loss"] = torch.tensor(value)
            evaluator.run([0])

    first, _, before = begin()
    feed(before, metrics[:9])
    second, trainer, after = begin()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    feed(after, metrics[9:])
    assert second.param_groups[0]["lr"] == 0.1
    history: Any = vars(trainer.state)["param_history"]
    assert [value for (value,) in history["lr"]] == expected
    assert after.get_param() == expected[-1]
    with pytest.raises(ValueError, match="no metric 'loss'; its metrics are: none"):
        after(Engine(lambda *_: None))
    with pytest.raises(ValueError, match="one for each of the 3 events, got 1"):
        ours.ReduceLROnPlateauScheduler.simulate_values(3, [1.0], 0.1)


def test_the_state_has_the_value_in_force_from_the_first_step_on_and_after_a_resume() -> None:
    def begin(steps: int, states: Any = None) -> tuple[list[Any], Any]:
        seen: list[Any] = []
        trainer = Engine(lambda engine, _: seen.append(vars(engine.state)["noise"]))
        scheduler = our_state.ExpStateScheduler(1.0, 0.5, "noise", True, create_new=True)
        scheduler.attach(trainer)
        for thing, state in zip([trainer, scheduler], states or [], strict=False):
            thing.load_state_dict(state)
        trainer.run([0] * 9, max_iters=steps)
        return seen, [trainer.state_dict(), scheduler.state_dict()]

    whole, _ = begin(9)
    assert whole == [0.5**step for step in range(9)]
    before, states = begin(4)
    after, (_, state) = begin(9, states)
    assert before + after == whole
    assert state["history"] == [0.5**step for step in range(1, 10)]


def test_a_schedule_of_the_state_needs_its_attribute_or_makes_it() -> None:
    trainer = Engine(lambda *_: None)
    with pytest.raises(ValueError, match="no attribute 'noise'; give create_new=True"):
        our_state.ExpStateScheduler(1.0, 0.5, "noise").attach(trainer)
    our_state.ExpStateScheduler(1.0, 0.5, "noise", create_new=True).attach(trainer)
    with pytest.raises(ValueError, match="has an attribute 'noise' already"):
        our_state.ExpStateScheduler(1.0, 0.5, "noise", create_new=True).attach(trainer)
