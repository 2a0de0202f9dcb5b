"""Checkpoints on the disk: nothing is ever lost, and what is loaded is what was saved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ignite.engine
import ignite.handlers
import pytest
import torch
from torch import nn

from cookfire.engine import Engine, Events
from cookfire.handlers import (
    Checkpoint,
    DamagedCheckpoint,
    DiskSaver,
    RunState,
)
from tests.handlers.helpers import Memory, checkpoints, engine_at, model
from tests.handlers.killing import kill_before_each_call
from tests.handlers.ranks import save_together


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the disk


def test_disk_saver_without_atomic_writes_the_file_itself(tmp_path: Path) -> None:
    saver = DiskSaver(tmp_path, atomic=False)
    saver({"step": 1}, "a.pt")
    saver({"step": 2}, "a.pt")
    assert names(tmp_path) == ["a.pt"]
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {"step": 2}
    saver.remove("a.pt")
    saver.remove("a.pt")
    assert names(tmp_path) == []


def test_disk_saver_hands_its_options_to_torch_save(tmp_path: Path) -> None:
    DiskSaver(tmp_path, _use_new_zipfile_serialization=False)({"step": 1}, "a.pt")
    assert (tmp_path / "a.pt").read_bytes()[:2] != b"PK"
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {"step": 1}


def test_a_folder_that_cannot_be_written_leaves_what_is_there(tmp_path: Path) -> None:
    checkpoint = Checkpoint({"model": model(1.0)}, tmp_path)
    checkpoint(engine_at(1))
    before = os.geteuid()
    tmp_path.chmod(0o555)
    try:
        if before == 0:
            os.seteuid(65534)
        with pytest.raises(PermissionError):
            checkpoint(engine_at(2))
    finally:
        if before == 0:
            os.seteuid(0)
        tmp_path.chmod(0o755)
    assert names(tmp_path) == ["model_1.pt", "model_1.pt.sha256"]
    checkpoint(engine_at(3))
    assert names(tmp_path) == ["model_3.pt", "model_3.pt.sha256"]


def save_step(folder: Path, step: int) -> None:
    checkpoint = Checkpoint({"model": model(float(step))}, folder)
    checkpoint.load_state_dict({"_saved": [(step - 1, f"model_{step - 1}.pt")]})
    checkpoint(engine_at(step))


def newest(folder: Path) -> int:
    net = model(-1.0)
    path = Checkpoint.load_newest(folder, {"model": net})
    step = int(net.weight[0, 0].item())
    assert path.name == f"model_{step}.pt"
    return step


def test_the_old_one_is_there_until_the_new_one_is_safe_at_every_system_call(
    tmp_path: Path,
) -> None:
    found = []
    save_step(tmp_path, 1)
    for _ in kill_before_each_call(partial(save_step, tmp_path, 2)):
        intact = {int(name[6:-3]) for name in checkpoints(tmp_path)}
        assert newest(tmp_path) == max(intact)
        found.append(intact)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        save_step(tmp_path, 1)
    assert [step for i, step in enumerate(found) if step not in found[:i]] == [{1}, {1, 2}, {2}]
    assert names(tmp_path) == ["model_2.pt", "model_2.pt.sha256"]


# --- loading


def test_the_newest_intact_one_is_loaded_and_what_was_skipped_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in [9, 10, 11]:  # by age, not by name
        Checkpoint({"model": model(float(step))}, tmp_path, n_saved=None)(engine_at(step))
        os.utime(tmp_path / f"model_{step}.pt", ns=(step, step))
    damage(tmp_path / "model_11.pt")
    (tmp_path / ".cookfire-0123456789abcdef.tmp").write_text("of a killed save")
    assert newest(tmp_path) == 10
    assert "skipped" in caplog.text
    assert "model_11.pt: damaged: its sha256" in caplog.text
    net = model()
    assert Checkpoint.load_newest(tmp_path, {"model": net}, "*_9.pt").name == "model_9.pt"


def test_files_of_the_same_age_are_told_apart_by_the_numbers_in_their_names(
    tmp_path: Path,
) -> None:
    for step in [100, 9, 20]:
        Checkpoint({"model": model(float(step))}, tmp_path, n_saved=None)(engine_at(step))
        os.utime(tmp_path / f"model_{step}.pt", ns=(7, 7))
    assert newest(tmp_path) == 100


def test_a_checkpoint_that_rotates_away_meanwhile_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in [1, 2]:
        Checkpoint({"model": model(float(step))}, tmp_path, n_saved=None)(engine_at(step))
    find = Path.glob

    def find_and_rotate(folder: Path, pattern: str) -> list[Path]:
        paths = [*find(folder, pattern), folder / "model_0.pt"]
        (tmp_path / "model_2.pt").rename(tmp_path / "gone")
        (tmp_path / "model_2.pt").symlink_to(tmp_path / "nowhere")
        return paths

    monkeypatch.setattr(Path, "glob", find_and_rotate)
    assert newest(tmp_path) == 1


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_without_an_intact_one_all_damages_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint \*\.pt"):
        Checkpoint.load_newest(tmp_path, {"model": model()})
    for step in [1, 2]:
        Checkpoint({"model": model()}, tmp_path, n_saved=None)(engine_at(step))
        damage(tmp_path / f"model_{step}.pt")
    with pytest.raises(DamagedCheckpoint, match=r"(?s)no intact checkpoint.*model_2.*model_1"):
        Checkpoint.load_newest(tmp_path, {"model": model()})


def test_objects_load_from_a_file_a_dict_or_a_bare_state(tmp_path: Path) -> None:
    net = model(3.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    Checkpoint({"model": net, "optimizer": optimizer}, tmp_path)(engine_at(1))
    Checkpoint({"model": net}, tmp_path)(engine_at(1))
    states = torch.load(tmp_path / "checkpoint_1.pt", weights_only=True)
    for source in [
        tmp_path / "checkpoint_1.pt",
        str(tmp_path / "model_1.pt"),
        states,
        states["model"],
    ]:
        other = model()
        Checkpoint.load_objects({"model": other}, source)
        assert torch.equal(other.weight, net.weight)
    both: dict[str, Any] = {"model": model(), "optimizer": torch.optim.SGD(model().parameters())}
    Checkpoint.load_objects(both, tmp_path / "checkpoint_1.pt")
    assert both["optimizer"].param_groups[0]["lr"] == 0.5


def test_strict_reaches_models_only() -> None:
    state = {
        "model": {"weight": torch.ones(2, 3)},
        "optimizer": torch.optim.SGD(model().parameters()).state_dict(),
    }
    net = model()
    objects: dict[str, Any] = {"model": net, "optimizer": torch.optim.SGD(net.parameters())}
    with pytest.raises(ValueError, match="'model' does not fit: it lacks 'bias'"):
        Checkpoint.load_objects(objects, state)
    Checkpoint.load_objects(objects, state, strict=False)
    assert torch.equal(net.weight, torch.ones(2, 3))


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    net = model()
    with pytest.raises(ValueError, match="the checkpoint has no 'head'; it has 'model', 'x'"):
        Checkpoint.load_objects({"model": net, "head": net}, {"model": {}, "x": {}})
    with pytest.raises(TypeError, match=r"to_load\['model'\] must have load_state_dict"):
        Checkpoint.load_objects({"model": 3}, {})
    with pytest.raises(TypeError, match="a file or a dict of states, got int"):
        Checkpoint.load_objects({"model": net}, 3)
    torch.save(3, tmp_path / "a.pt")
    with pytest.raises(TypeError, match="not a dict of states"):
        Checkpoint.load_newest(tmp_path, {"model": net})


def test_own_checkpoints_are_reloaded_by_step_and_score(tmp_path: Path) -> None:
    net = model()
    checkpoint = Checkpoint(
        {"model": net}, tmp_path, "best", score_name="acc", n_saved=None,
        global_step_transform=lambda engine, event: engine.state.epoch,
    )  # fmt: skip
    for epoch in [1, 2]:
        nn.init.constant_(net.weight, epoch)
        checkpoint(engine_at(epoch=epoch, acc=epoch / 4))
    checkpoint.reload_objects({"model": net}, global_step=1, score=0.25)
    assert torch.equal(net.weight, torch.ones(2, 3))
    with pytest.raises(FileNotFoundError):
        checkpoint.reload_objects({"model": net}, global_step=3, score=0.25)
    with pytest.raises(TypeError, match="unknown component 'step'"):
        checkpoint.reload_objects({"model": net}, step=3)
    with pytest.raises(TypeError, match="needs checkpoints on the disk"):
        Checkpoint({"model": net}, Memory()).reload_objects({"model": net}, global_step=1)


def test_its_own_state_continues_the_rotation(tmp_path: Path) -> None:
    net = model()
    first = Checkpoint({"model": net}, tmp_path, n_saved=2, include_self=True)
    for step in [1, 2, 3]:
        first(engine_at(step))
    second = Checkpoint({"model": net}, tmp_path, n_saved=2, include_self=True)
    Checkpoint.load_objects({"model": net, "checkpointer": second}, tmp_path / "model_3.pt")
    assert second.state_dict() == first.state_dict()
    second(engine_at(4))
    assert checkpoints(tmp_path) == ["model_3.pt", "model_4.pt"]
    second.reset()
    assert second.last_checkpoint is None
    second(engine_at(5))
    assert checkpoints(tmp_path) == ["model_3.pt", "model_4.pt", "model_5.pt"]
    with pytest.raises(ValueError, match="lacks '_saved'"):
        second.load_state_dict({})


def test_a_run_that_goes_on_from_a_rotated_state_of_all_rotates_that_file_too(
    tmp_path: Path,
) -> None:
    def make() -> tuple[Engine, Checkpoint, RunState]:
        trainer = Engine(lambda engine, batch: None)
        run = RunState(trainer, model=model())
        checkpoint = Checkpoint({"run": run}, tmp_path, n_saved=2)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, checkpoint)
        return trainer, checkpoint, run

    trainer, first, _ = make()
    trainer.run([0], max_epochs=3)
    trainer, second, run = make()
    Checkpoint.load_objects({"run": run}, tmp_path / "run_3.pt")
    assert second.state_dict()["_saved"] == first.state_dict()["_saved"]
    trainer.run([0], max_epochs=5)
    assert checkpoints(tmp_path) == ["run_4.pt", "run_5.pt"]


def test_ignite_and_we_load_each_others_checkpoints(tmp_path: Path) -> None:
    net = model(4.0)
    Checkpoint({"model": net}, tmp_path / "ours")(engine_at(1))
    theirs = ignite.handlers.Checkpoint({"model": net}, str(tmp_path / "theirs"))
    engine = ignite.engine.Engine(lambda engine, batch: None)
    engine.add_event_handler(ignite.engine.Events.COMPLETED, theirs)
    engine.run([0])
    first, second = model(), model()
    ignite.handlers.Checkpoint.load_objects({"model": first}, tmp_path / "ours" / "model_1.pt")
    Checkpoint.load_objects({"model": second}, tmp_path / "theirs" / "model_1.pt")
    assert torch.equal(first.weight, net.weight)
    assert torch.equal(second.weight, net.weight)
    state = theirs.state_dict()
    ours = Checkpoint({"model": net}, tmp_path / "ours")
    ours.load_state_dict(state)
    assert ours.state_dict() == dict(state)


# --- wrapped models


class Partly(nn.Module):
    """A model of which a part may be compiled."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.norm = nn.BatchNorm1d(2)


def compiled(module: nn.Module) -> nn.Module:
    wrapped = torch.compile(module)
    assert isinstance(wrapped, nn.Module)
    return wrapped


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        compiled,
        lambda module: compiled(nn.DataParallel(module)),
        lambda module: nn.DataParallel(compiled(module)),
    ],
)
def test_a_wrapped_model_is_saved_and_loaded_as_the_plain_one(
    tmp_path: Path, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    net = model(5.0)
    Checkpoint({"model": net}, tmp_path / "plain")(engine_at(1))
    Checkpoint({"model": wrap(net)}, tmp_path / "wrapped")(engine_at(1))
    path = tmp_path / "wrapped" / "model_1.pt"
    assert path.read_bytes() == (tmp_path / "plain" / "model_1.pt").read_bytes()
    other = model()
    Checkpoint.load_objects({"model": wrap(other)}, path)
    assert torch.equal(other.weight, net.weight)


def test_a_partly_compiled_model_is_saved_and_loaded_as_the_plain_one(tmp_path: Path) -> None:
    plain, partly = Partly(model(5.0)), Partly(compiled(model(6.0)))
    Checkpoint({"model": plain}, tmp_path)(engine_at(1))
    Checkpoint({"model": partly}, tmp_path)(engine_at(2))
    states = [torch.load(tmp_path / f"model_{step}.pt", weights_only=True) for step in (1, 2)]
    assert list(states[0]) == list(states[1])
    assert states[0]._metadata == states[1]._metadata
    Checkpoint.load_objects({"model": plain}, tmp_path / "model_2.pt")
    assert torch.equal(plain.state_dict()["part.weight"], torch.full((2, 3), 6.0))
    Checkpoint.load_objects({"model": partly}, states[0])
    assert torch.equal(partly.state_dict()["part._orig_mod.weight"], torch.full((2, 3), 5.0))
    fresh = Partly(model())
    Checkpoint.load_objects({"model": fresh}, {"model": Partly(compiled(model(7.0))).state_dict()})
    assert torch.equal(fresh.state_dict()["part.weight"], torch.full((2, 3), 7.0))


# --- two processes


def test_two_ranks_save_together_and_one_of_them_writes(
    tmp_path: Path, processes: Callable[..., list[Any]]
) -> None:
    first, second = processes(2, save_together, str(tmp_path))
    for seen in (first, second):
        assert seen["saved"] == (["saved"], {"_saved": [(0.9, "checkpoint_acc=0.9000.pt")]})
        assert seen["files"] == ["checkpoint_acc=0.9000.pt"]
        assert seen["called"][1] == [("save", "model_4.pt")]
        assert seen["made"]
    assert (first["called"][0], second["called"][0]) == (["model_4.pt"], [])
    assert first["error"] == "OSError: no room for model_5.pt"
    assert second["error"] == (
        "RuntimeError: model_5.pt was not saved: rank 0 raised OSError: no room for model_5.pt"
    )
    state = torch.load(tmp_path / "sharded" / "checkpoint_acc=0.9000.pt", weights_only=True)
    assert list(state["model"]) == ["weight", "bias"]
    assert state["optimizer"] == {"of rank 0": 1, "of rank 1": 1}
