"""Saving in the background: runs, processes and the interpreter do not end before it is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.utils.data import DataLoader

from cookfire.engine import Engine, Events
from cookfire.handlers import Checkpoint, DiskSaver, Preemption, RunState
from cookfire.handlers._files import load_file
from tests.handlers.helpers import checkpoints, engine_at, model
from tests.handlers.slow_saver import Slow


def test_an_error_at_the_end_of_a_run_is_raised_by_the_run() -> None:
    def fail(checkpoint: Any, filename: str) -> None:
        raise OSError(f"no room for {filename}")

    trainer = Engine(lambda *_: None)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=3), Checkpoint({"model": model()}, fail, background=True)
    )
    with pytest.raises(RuntimeError, match=r"model_3\.pt was not saved: OSError: no room for"):
        trainer.run([0] * 3)


@pytest.mark.parametrize("end", ["completed", "terminated", "interrupted", "failed"])
@pytest.mark.parametrize(
    "event", [Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED, Events.COMPLETED]
)
def test_a_run_does_not_end_before_its_last_save_is_safe(
    tmp_path: Path, end: str, event: Any
) -> None:
    if event is Events.COMPLETED and end in ("interrupted", "failed"):
        return  # there is none

    def step(engine: Engine, batch: int) -> None:
        if end == "failed" and engine.state.iteration == 3:
            raise ZeroDivisionError

    saved: list[str] = []

    def save(checkpoint: Any, filename: str) -> None:
        threading.Event().wait(0.05)
        saved.append(filename)

    trainer = Engine(step)
    checkpoint = Checkpoint({"model": model()}, save, background=True)
    trainer.add_event_handler(event, checkpoint)
    stop = {"terminated": trainer.terminate, "interrupted": trainer.interrupt}
    if end in stop:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), stop[end])
    try:
        trainer.run([0, 0], max_epochs=2)
    except ZeroDivisionError:
        assert end == "failed"
    last = {"completed": 4, "terminated": 3, "interrupted": 3, "failed": 2}[end]
    if event is Events.EPOCH_COMPLETED and end != "completed":
        last = 2
    assert saved[-1] == f"model_{last}.pt"
    if end != "failed":
        assert checkpoint.last_checkpoint == saved[-1]


def test_the_end_of_an_evaluation_is_not_the_end_of_the_run_and_waits_for_nothing() -> None:
    saver = Slow()
    trainer, evaluator = Engine(lambda *_: None), Engine(lambda *_: None)
    handler = Checkpoint({"model": model()}, saver, background=True)
    evaluator.add_event_handler(Events.COMPLETED, handler)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), lambda: evaluator.run([0]))
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=2),
        lambda: (seen.append(dict(saver.files)), saver.go.release()),
    )
    trainer.run([0, 0])
    assert seen == [{}]
    assert list(saver.files) == ["model_1.pt"]


def test_a_run_state_does_not_see_what_waits_for_the_run(tmp_path: Path) -> None:
    trainer, evaluator = Engine(lambda *_: None), Engine(lambda *_: None)
    state = RunState(trainer, evaluator=evaluator)
    handler = Checkpoint({"run": state}, tmp_path, background=True)
    evaluator.add_event_handler(Events.COMPLETED, handler)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    trainer.run([0, 0], max_epochs=3)
    assert "Checkpoint 1" not in state.state_dict()["ranks"][0]["attached"]


SCRIPT = """
import sys, time
from cookfire.handlers import Checkpoint
from tests.handlers.helpers import engine_at, model

def slowly(checkpoint, filename):
    time.sleep(0.3)
    print("saved", filename, flush=True)
    if sys.argv[1] == "fails":
        raise OSError("the disk is full")

Checkpoint({"model": model()}, slowly, background=True)(engine_at(1))
print("the end of the program", flush=True)
if sys.argv[1] == "raises":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("how", ["ends", "raises", "fails"])
def test_the_interpreter_waits_for_the_last_save_and_an_error_is_said(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["the end of the program", "saved model_1.pt"]
    assert done.returncode == (3 if how == "raises" else 0)
    assert ("model_1.pt was not saved: OSError: the disk is full" in done.stderr) == (
        how == "fails"
    )


def test_preemption_ends_the_process_only_when_its_save_is_safe(tmp_path: Path) -> None:
    def save(checkpoint: Any, filename: str) -> None:
        threading.Event().wait(0.1)
        DiskSaver(tmp_path, require_empty=False)(checkpoint, filename)

    trainer = Engine(lambda *_: None)
    handler = Checkpoint({"model": model()}, save, filename_pattern="run.pt", background=True)
    Preemption(handler, exits=True).attach(trainer)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=2), lambda: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(SystemExit):
        trainer.run([0] * 5)
    assert checkpoints(tmp_path) == ["run.pt"]
    assert handler.last_checkpoint == "run.pt"


def test_workers_that_load_the_data_can_be_forked_while_it_saves(tmp_path: Path) -> None:
    net = nn.Linear(300, 300)
    trainer = Engine(lambda engine, batch: None)
    handler = Checkpoint({"model": net}, tmp_path, background=True)
    trainer.add_event_handler(Events.ITERATION_COMPLETED | Events.EPOCH_STARTED, handler)
    loader = DataLoader(range(6), num_workers=2)
    trainer.run(loader, max_epochs=3)
    assert checkpoints(tmp_path) == ["model_18.pt"]
    load_file(tmp_path / "model_18.pt")


def test_a_forked_process_saves_with_a_thread_of_its_own(tmp_path: Path) -> None:
    handler = Checkpoint({"model": model()}, tmp_path, n_saved=None, background=True)
    handler(engine_at(1))
    handler.wait()
    child = os.fork()
    if child == 0:
        try:
            handler(engine_at(2))
            handler.wait()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert checkpoints(tmp_path) == ["model_1.pt", "model_2.pt"]


def test_after_an_error_the_last_checkpoint_is_one_that_is_there(tmp_path: Path) -> None:
    def fail_at_last(_: Engine, batch: int) -> None:
        if batch == 5:
            raise ZeroDivisionError

    trainer = Engine(fail_at_last)
    handler = Checkpoint({"model": model()}, tmp_path, background=True)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, handler)
    with pytest.raises(ZeroDivisionError):
        trainer.run(range(10))
    assert handler.last_checkpoint == tmp_path / "model_5.pt"
    assert checkpoints(tmp_path) == ["model_5.pt"]
