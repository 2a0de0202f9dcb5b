"""Saving in the background: in order, never mixed, never lost, and only what is safe is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from cookfire.handlers import Checkpoint, ModelCheckpoint
from cookfire.handlers._files import load_file
from cookfire.handlers._snapshots import Snapshots
from tests.handlers.background_ranks import save_in_the_background
from tests.handlers.helpers import Memory, checkpoints, engine_at, model
from tests.handlers.slow_saver import Slow


def weight(saver: Memory, step: int) -> float:
    return float(saver.files[f"model_{step}.pt"]["weight"][0, 0])


def test_a_save_keeps_the_state_of_its_moment_while_the_training_changes_it() -> None:
    net, saver = model(0.0), Slow()
    checkpoint = Checkpoint({"model": net}, saver, n_saved=None, background=True)
    for step in range(8):
        nn.init.constant_(net.weight, step)
        checkpoint(engine_at(step))
        nn.init.constant_(net.weight, -1.0)
        saver.go.release()
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


def test_what_waits_behind_a_failed_save_is_saved_and_nothing_is_removed_for_it() -> None:
    saver = Slow()
    saver.failing["model_3.pt"] = OSError("full")
    checkpoint = Checkpoint({"model": model()}, saver, n_saved=2, background=True)
    for step in (1, 2):
        saver.go.release()
        checkpoint(engine_at(step))
    checkpoint.wait()
    checkpoint(engine_at(3))  # would replace the first
    checkpoint(engine_at(4))  # would replace the second
    saver.go.release(2)
    with pytest.raises(RuntimeError, match="model_3"):
        checkpoint.wait()
    assert list(saver.files) == ["model_1.pt", "model_2.pt", "model_4.pt"]
    assert checkpoint.last_checkpoint == "model_4.pt"
    saver.go.release()
    checkpoint(engine_at(5))
    checkpoint.wait()
    assert list(saver.files) == ["model_4.pt", "model_5.pt"]


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


@pytest.mark.filterwarnings("ignore:Sparse CSC tensor support is in beta")
def test_compressed_sparse_tensors_are_copied_as_they_are_saved_in_the_foreground() -> None:
    sparse = torch.tensor([[0.0, 1.0], [2.0, 0.0]]).to_sparse(layout=torch.sparse_csc)
    copied = Snapshots().take({"sparse": sparse}).wait()["sparse"]
    sparse.values().zero_()
    assert copied.layout == torch.sparse_csc
    assert copied.to_dense().tolist() == [[0.0, 1.0], [2.0, 0.0]]


def test_memory_of_numpy_seen_through_a_shorter_and_a_longer_array_is_copied_whole() -> None:
    array = numpy.arange(1000.0)
    state = {"first": torch.from_numpy(array[:3]), "all": torch.from_numpy(array)}
    copied = Snapshots().take(state).wait()
    assert torch.equal(copied["first"], state["first"])
    assert torch.equal(copied["all"], state["all"])


def test_functions_and_model_checkpoints_save_in_the_background_too(tmp_path: Path) -> None:
    seen: list[Any] = []

    def function(checkpoint: Any, filename: str, metadata: Any) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        seen.append((filename, metadata["priority"], is_main))

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
