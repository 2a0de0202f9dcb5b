"""Ending by the clock or by a signal, and what an epoch put out."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cookfire.engine import Engine, Events
from cookfire.handlers import EpochOutputStore, Preemption, TimeLimit
from tests import warm
from tests.handlers.preempted import train, train_slowly
from tests.handlers.ranks import stop_together


def test_a_killed_process_saves_ends_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    # The fork server has imported torch already.
    process = warm.forkserver().Process(target=train_slowly, args=(tmp_path,))
    process.start()
    while not (tmp_path / "begun").exists():
        assert process.exitcode is None
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(100)
    assert process.exitcode == 128 + signal.SIGTERM
    assert not (tmp_path / "after").exists()  # what follows run() was not executed
    newest = max((tmp_path / "run").glob("*.pt"), key=lambda path: path.stat().st_mtime_ns)
    saved: Any = torch.load(newest, weights_only=True)
    done = saved["trainer"]["iteration"]
    assert 0 < done < 20
    assert newest.name == f"state_{done}.pt"
    # In this process: the rest of it, and all of it.
    resumed = train(tmp_path, seed=3)
    assert resumed == train(tmp_path / "whole")


def trainer() -> Engine:
    return Engine(lambda *_: None)


def send(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_the_run_pauses_after_all_handlers_of_the_iteration_and_signals_are_restored() -> None:
    order: list[str] = []

    def mine(*_: Any) -> None:
        order.append("mine")

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        engine = trainer()
        preemption = Preemption(lambda: order.append("save"), [signal.SIGUSR1], exits=False)
        engine.add_event_handler(Events.ITERATION_STARTED(once=3), send(signal.SIGUSR1))
        preemption.attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), lambda: order.append("last"))
        engine.add_event_handler(Events.COMPLETED, lambda: order.append("completed"))
        assert engine.run([0] * 5).iteration == 3
        assert order == ["last", "save"]
        assert preemption.received == signal.SIGUSR1
        assert signal.getsignal(signal.SIGUSR1) is mine
        # In the same process it goes on with the next, and listens again.
        preemption.received = None
        engine.add_event_handler(Events.ITERATION_STARTED(once=5), send(signal.SIGUSR1))
        assert engine.run().iteration == 5
        assert order == ["last", "save", "save"]
        os.kill(os.getpid(), signal.SIGUSR1)
        assert order[3:] == ["mine"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_after_the_last_iteration_does_what_it_did_before() -> None:
    order: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: order.append("mine"))
    try:
        engine = trainer()
        Preemption(lambda: order.append("save")).attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, send(signal.SIGUSR1))
        engine.run([0])
        assert order == ["mine"]
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("way", ["to its end", "terminated", "interrupted", "failed"])
def test_however_a_run_ends_the_signals_are_restored(way: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    engine = trainer()
    Preemption(lambda: None).attach(engine)
    during: list[Any] = []
    ways: dict[str, Callable[[], Any]] = {
        "to its end": lambda: None,
        "terminated": lambda: engine.terminate(skip_completed=True),
        "interrupted": engine.interrupt,
        "failed": lambda: 1 / 0,
    }
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: during.append(signal.getsignal(signal.SIGTERM))
    )
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), ways[way])
    try:
        engine.run([0] * 3)
    except ZeroDivisionError:
        assert way == "failed"
    assert during[0] is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_failure_after_the_signal_says_that_nothing_was_saved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = trainer()
    Preemption(lambda: None).attach(engine)
    engine.add_event_handler(Events.ITERATION_STARTED, send(signal.SIGTERM))
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.run([0])
    assert "failed after SIGTERM, before it could be saved" in caplog.text


def test_only_the_main_thread_can_listen() -> None:
    engine = trainer()
    Preemption(lambda: None).attach(engine)
    errors: list[Exception] = []

    def run() -> None:
        try:
            engine.run([0])
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "only the main thread" in str(errors[0])


def test_time_ends_a_run() -> None:
    limit = TimeLimit(1)
    limit.start_time -= 0.99
    engine = Engine(lambda *_: time.sleep(0.005))
    engine.add_event_handler(Events.ITERATION_COMPLETED, limit)
    assert 1 <= engine.run([0] * 50).iteration <= 3
    engine = trainer()
    engine.add_event_handler(Events.ITERATION_COMPLETED, TimeLimit(None))  # no limit
    engine.add_event_handler(Events.ITERATION_COMPLETED, TimeLimit(1000))
    assert engine.run([0] * 50).iteration == 50


def test_all_processes_stop_at_one_iteration(processes: Any) -> None:
    first, second = processes(2, stop_together)
    assert first == second
    # The signal reached one process in iteration 4; it is spoken about at 6. Time was up at once.
    assert first == {"preempted at": 6, "saved": 1, "out of time at": 3}


def test_an_epochs_outputs_are_kept_also_by_a_run_that_goes_on_in_its_middle() -> None:
    def begin(states: Any = None) -> tuple[Engine, EpochOutputStore]:
        engine = Engine(lambda engine, batch: torch.tensor(batch))
        store = EpochOutputStore(output_transform=float)
        store.attach(engine, "outputs")
        for thing, state in zip([engine, store], states or [], strict=False):
            thing.load_state_dict(state)
        return engine, store

    engine, store = begin()
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), engine.terminate)
    engine.run([1, 2, 3], max_epochs=2)
    assert vars(engine.state)["outputs"] == [1, 2, 3]
    assert store.data == [1, 2]
    second, _ = begin([engine.state_dict(), store.state_dict()])
    state = second.run([1, 2, 3])
    assert vars(state)["outputs"] == [1, 2, 3]
    nameless = EpochOutputStore()
    engine = Engine(lambda engine, batch: batch)
    nameless.attach(engine)
    nameless.store(engine)
    engine.run([4, 5])
    assert nameless.data == [4, 5]
    assert not hasattr(engine.state, "None")


def test_mistakes_are_told() -> None:
    with pytest.raises(TypeError, match="must be a function or a handler, got int"):
        Preemption(3)
    with pytest.raises(ValueError, match="expected at least one"):
        Preemption(print, [])
    with pytest.raises(ValueError, match="at least 1 iteration, got 0"):
        Preemption(print, every=0)
    with pytest.raises(ValueError, match="above 0 seconds, got 0"):
        TimeLimit(0)
    with pytest.raises(ValueError, match="at least 1 iteration, got 0"):
        TimeLimit(3, every=0)
