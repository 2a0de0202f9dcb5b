"""Saving in the background: in order, never mixed, never lost, and only what is safe is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cookfire.engine import Engine, Events
from cookfire.handlers import Checkpoint, DiskSaver, ModelCheckpoint, Preemption, RunState
from cookfire.handlers._files import load_file
from cookfire.handlers._snapshots import Snapshots
from tests.handlers.background_ranks import save_in_the_background
from tests.handlers.helpers import Memory, checkpoints, engine_at, model


class Slow(Memory):
    """Stores when it is let, and fails when it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.failing: dict[str, Exception] = {}
        self.threads: set[threading.Thread] = set()

    def __call__(self, checkpoint: Any, filename: str, metadata: Any = None) -> None:
        self.threads.add(threading.current_thread())
        self.entered.release()
        assert self.go.acquire(timeout=30)
        if filename in self.failing:
            raise self.failing[filename]
        copied = {name: value.clone() for name, value in checkpoint.items()}
        super().__call__(copied, filename, metadata)


def weight(saver: Memory, step: int) -> float:
    return float(saver.files[f"model_{step}.pt"]["weight"][0, 0])


def test_a_save_keeps_the_state_of_its_moment_while_the_training_changes_it() -> None:
    net, saver = model(0.0), Slow()
    checkpoint = Checkpoint({"model": net}, saver, n_saved=None, background=True)
    saver.go.release(10)
    for step in range(8):
        nn.init.constant_(net.weight, step)
        checkpoint(engine_at(step))
        nn.init.constant_(net.weight, -1.0)
    checkpoint.wait()
    assert [weight(saver, step) for step in range(8)] == list(range(8))
    assert saver.calls == [("save", f"model_{step}.pt") for step in range(8)]
    assert saver.threads.isdisjoint({threading.main_thread()})
    assert len(saver.threads) == 1


def test_two_saves_are_unfinished_at_most_and_the_third_waits() -> None:
    saver = Slow()
    checkpoint = Checkpoint({"model": model()}, saver, n_saved=None, background=True)
    for step in (1, 2):
        checkpoint(engine_at(step))
    third = threading.Thread(target=checkpoint, args=(engine_at(3),))
    third.start()
    third.join(0.1)
    assert third.is_alive()
    saver.go.release()
    third.join(30)
    assert not third.is_alive()
    assert list(saver.files) == ["model_1.pt"]
    saver.go.release(2)
    checkpoint.wait()
    assert list(saver.files) == ["model_1.pt", "model_2.pt", "model_3.pt"]


def test_only_what_is_safe_is_told_and_only_then_the_old_one_is_removed() -> None:
    saver = Slow()
    checkpoint = Checkpoint({"model": model()}, saver, background=True)
    engine, told = engine_at(1), []
    engine.register_events(Checkpoint.SAVED_CHECKPOINT)
    engine.add_event_handler(
        Checkpoint.SAVED_CHECKPOINT, lambda: told.append(checkpoint.last_checkpoint)
    )
    saver.go.release()
    checkpoint(engine)
    checkpoint.wait()
    engine.state.iteration = 2
    checkpoint(engine)
    assert saver.entered.acquire(timeout=30)
    assert checkpoint.last_checkpoint == "model_1.pt"
    assert checkpoint.state_dict() == {"_saved": [(2, "model_2.pt")]}
    assert (told, list(saver.files)) == (["model_1.pt"], ["model_1.pt"])
    saver.go.release()
    checkpoint.wait()
    assert saver.calls[1:] == [("save", "model_2.pt"), ("remove", "model_1.pt")]
    assert told == ["model_1.pt", "model_2.pt"]


def test_an_error_is_raised_at_the_next_call_and_nothing_is_removed_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    saver = Slow()
    saver.failing["model_2.pt"] = OSError(28, "No space left on device", "disk")
    checkpoint = Checkpoint({"model": model()}, saver, background=True)
    saver.go.release(10)
    for step in (1, 2):
        checkpoint(engine_at(step))
    checkpoint._background.wait()
    with pytest.raises(RuntimeError, match=r"model_2\.pt was not saved: OSError: .*No space") as e:
        checkpoint(engine_at(3))
    assert isinstance(e.value.__cause__, OSError)
    assert "model_2.pt was not saved" in caplog.text
    assert list(saver.files) == ["model_1.pt"]
    assert checkpoint.last_checkpoint == "model_1.pt"
    checkpoint(engine_at(4))  # it was told: now things go on
    checkpoint.wait()
    assert list(saver.files) == ["model_4.pt"]


def test_what_waits_behind_a_failed_save_is_saved_and_nothing_is_forgotten() -> None:
    saver = Slow()
    saver.failing["model_2.pt"] = OSError("full")
    checkpoint = Checkpoint({"model": model()}, saver, background=True)
    saver.go.release()
    checkpoint(engine_at(1))
    checkpoint.wait()
    checkpoint(engine_at(2))
    checkpoint(engine_at(3))
    saver.go.release(2)
    with pytest.raises(RuntimeError, match="model_2"):
        checkpoint.wait()
    assert list(saver.files) == ["model_1.pt", "model_3.pt"]
    assert checkpoint.last_checkpoint == "model_3.pt"
    saver.go.release()
    checkpoint(engine_at(4))
    checkpoint.wait()
    assert list(saver.files) == ["model_4.pt"]


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


def test_a_file_has_the_bytes_that_it_has_in_the_foreground(tmp_path: Path) -> None:
    class Odd:
        def __init__(self) -> None:
            base = torch.arange(12.0)
            shared = [base[2:5], base.view(3, 4).t(), nn.Parameter(base)]
            self.state = {
                "shared": shared, "again": (shared, shared[0]), "empty": torch.empty(0, 3),
                "half": torch.ones(3, dtype=torch.bfloat16), "complex": torch.ones(2) * 1j,
                "wants": torch.ones(2, requires_grad=True), "n": None, "set": {1, 2}, "text": "a",
            }  # fmt: skip

        def state_dict(self) -> Any:
            return self.state

    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    net[0].weight = nn.Parameter(torch.ones(3, 3))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    objects: dict[str, Any] = {"model": net, "optimizer": optimizer, "odd": Odd()}
    for folder, background in (("foreground", False), ("background", True)):
        checkpoint = Checkpoint(
            objects,
            tmp_path / folder, include_self=True, n_saved=2, background=background,
        )  # fmt: skip
        for step in (1, 2, 3):
            checkpoint(engine_at(step))
        checkpoint.wait()
    first, second = tmp_path / "foreground", tmp_path / "background"
    assert checkpoints(first) == checkpoints(second) == ["checkpoint_2.pt", "checkpoint_3.pt"]
    for name in checkpoints(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()
        load_file(second / name)


def test_what_is_no_plain_tensor_is_copied_too() -> None:
    class Own:
        def __init__(self) -> None:
            self.values = [1]

    state = {"sparse": torch.eye(3).to_sparse(), "conj": torch.tensor([1j]).conj(), "own": Own()}
    copied = Snapshots().take(state).wait()
    state["own"].values = [2]
    assert torch.equal(copied["sparse"].to_dense(), torch.eye(3))
    assert torch.equal(copied["conj"], torch.tensor([-1j]))
    assert copied["conj"].data_ptr() != state["conj"].data_ptr()
    assert copied["own"].values == [1]


def test_functions_and_model_checkpoints_save_in_the_background_too(tmp_path: Path) -> None:
    seen: list[Any] = []
    function = lambda checkpoint, filename, metadata: seen.append(  # noqa: E731
        (filename, metadata["priority"], threading.current_thread() is threading.main_thread())
    )
    checkpoint = Checkpoint({"model": model()}, function, background=True)
    checkpoint(engine_at(7))
    checkpoint.wait()
    assert seen == [("model_7.pt", 7, False)]
    handler = ModelCheckpoint(tmp_path, n_saved=2, score_name="acc", background=True)
    for step, score in enumerate([0.1, 0.3, 0.2, 0.05]):
        handler(engine_at(step, acc=score), {"model": model()})
    handler.wait()
    assert checkpoints(tmp_path) == ["model_acc=0.2000.pt", "model_acc=0.3000.pt"]
    assert handler.last_checkpoint == tmp_path / "model_acc=0.3000.pt"
    handler.reset()
    assert handler.last_checkpoint is None


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


def test_buffers_are_used_again_and_given_up_when_the_disk_has_caught_up() -> None:
    saver = Slow()
    checkpoint = Checkpoint({"model": nn.Linear(10, 10)}, saver, background=True)

    def free() -> list[torch.Tensor]:
        return [
            one for several in checkpoint._background._snapshots._free.values() for one in several
        ]

    def kept() -> int:
        return sum(buffer.numel() for buffer in free())

    for step in (1, 2):
        checkpoint(engine_at(step))
    saver.go.release(2)
    checkpoint.wait()
    assert kept() == 2 * 440
    before = {buffer.data_ptr() for buffer in free()}
    for step in range(3, 8):
        saver.go.release()
        checkpoint(engine_at(step))
        checkpoint.wait()
        assert kept() == 440
    assert {buffer.data_ptr() for buffer in free()} <= before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_from_cuda_it_is_copied_in_the_order_of_the_stream(tmp_path: Path) -> None:
    net = nn.Linear(2000, 2000, device="cuda")
    handler = Checkpoint({"model": net}, tmp_path, n_saved=None, background=True)
    for step in range(5):
        nn.init.constant_(net.weight, step)
        handler(engine_at(step))
        nn.init.constant_(net.weight, -1.0)
    handler.wait()
    for step in range(5):
        state: Any = load_file(tmp_path / f"model_{step}.pt")
        assert (state["weight"] == step).all()
        assert state["weight"].device.type == "cpu"


def test_ranks_agree_on_what_is_safe_and_raise_the_same_error(
    tmp_path: Path, processes: Callable[..., list[Any]]
) -> None:
    first, second = processes(2, save_in_the_background, str(tmp_path))
    assert first == second
    assert first["told"] == ["model_1.pt", "model_2.pt", "model_3.pt"]
    assert first["files"] == ["model_2.pt", "model_3.pt"]
    assert first["last"] == "model_3.pt"
    assert first["error"] == "RuntimeError: model_5.pt was not saved: OSError: no room"
    assert first["wants a rank"] == (
        "ValueError: background=True among several processes needs a saver that says which of "
        "them stores: give Memory the attribute save_on_rank"
    )
