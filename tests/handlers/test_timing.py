"""How long things take, with a clock that the tests work by hand."""

from __future__ import annotations

import pytest

from cookfire.engine import Engine, Events
from cookfire.handlers import Timer, timing


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    return clock


def test_it_counts_from_when_it_is_made_but_for_the_pauses(clock: Clock) -> None:
    timer = Timer()
    clock.now += 1
    assert timer.value() == 1
    timer.pause()
    timer.pause()
    clock.now += 10
    assert (timer.value(), timer.total, timer.running) == (1, 1, False)
    timer.resume()
    timer.resume()
    clock.now += 2
    assert (timer.value(), timer.total, timer.running) == (3, 1, True)
    assert timer.reset() is timer
    assert (timer.value(), timer.step_count, timer.running) == (0, 0, True)


def test_the_average_is_that_of_a_step(clock: Clock) -> None:
    timer = Timer(average=True)
    clock.now += 6
    assert timer.value() == 6
    for _ in range(3):
        timer.step()
    assert (timer.value(), timer.step_count) == (2, 3)


def test_attached_it_measures_a_run(clock: Clock) -> None:
    def step(engine: Engine, batch: int) -> None:
        clock.now += 1

    trainer = Engine(step)
    timer = Timer()
    assert timer.attach(trainer) is timer
    clock.now += 50
    trainer.run([0] * 4, max_epochs=2)
    clock.now += 50
    assert (timer.value(), timer.running) == (8, False)


def test_attached_it_measures_an_iteration_without_what_is_around_it(clock: Clock) -> None:
    def step(engine: Engine, batch: int) -> None:
        clock.now += 2

    def pass_time() -> None:
        clock.now += 7

    trainer = Engine(step)
    trainer.add_event_handler(Events.STARTED, pass_time)
    timer = Timer(average=True).attach(
        trainer,
        resume=Events.ITERATION_STARTED,
        pause=Events.ITERATION_COMPLETED,
        step=Events.ITERATION_COMPLETED,
    )
    trainer.add_event_handler(Events.GET_BATCH_STARTED, pass_time)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, pass_time)
    trainer.run([0] * 3, max_epochs=2)
    assert (timer.value(), timer.total, timer.step_count) == (2, 12, 6)


def test_each_epoch_can_be_measured_by_itself(clock: Clock) -> None:
    def step(engine: Engine, batch: int) -> None:
        clock.now += engine.state.epoch

    trainer = Engine(step)
    timer = Timer().attach(trainer, start=Events.EPOCH_STARTED, pause=Events.EPOCH_COMPLETED)
    seconds: list[float] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: seconds.append(timer.value()))
    trainer.run([0] * 3, max_epochs=3)
    assert seconds == [3, 6, 9]
