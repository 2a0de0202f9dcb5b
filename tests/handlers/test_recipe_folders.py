"""Fingerprints, locks, publishing and a run's own files."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from cookfire.engine import Engine
from cookfire.handlers import recipe
from cookfire.handlers.recipe import _fingerprint, _lock, _main
from cookfire.handlers.recipe._fingerprint import differences, fingerprint, hash_data
from cookfire.handlers.recipe._resume import ResumeFolder


def test_a_fingerprint_names_parameters_sources_data_processes_and_torch(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    for name in ("train.py", "parts/model.py", "test_toy.py", "runs/tiny/x.py", ".hidden/x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    found = fingerprint({"lr": 0.1, "opt": {"name": "sgd", "betas": [1, 2]}}, folder, folder, 2)
    own = {name for name in found if not name.startswith("file cookfire/")}
    assert own == {
        "parameter lr", "parameter opt.name", "parameter opt.betas", "file toy/train.py",
        "file toy/parts/model.py", "data", "world size", "torch",
    }  # fmt: skip
    for name in ("engine/_loop.py", "handlers/recipe/_fingerprint.py", "distributed/_order.py"):
        assert f"file cookfire/{name}" in found


def test_differences_name_what_changed_and_values_where_they_can_be_read() -> None:
    old = {"parameter lr": "0.1", "file a.py": "sha256:1", "file b.py": "sha256:1", "torch": "2"}
    new = {"parameter lr": "0.2", "file a.py": "sha256:2", "file c.py": "sha256:1", "torch": "2"}
    assert differences(old, new) == [
        "file a.py changed", "file b.py removed", "file c.py added", "parameter lr: 0.1 -> 0.2",
    ]  # fmt: skip


def test_the_datas_hash_follows_names_and_content_but_not_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(name: str, **files: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
        return hash_data(folder)

    first = make("one", a="12", b="34")
    assert make("two", b="34", a="12") == first
    assert make("three", a="13", b="34") != first
    assert make("four", c="12", b="34") != first
    assert hash_data(tmp_path / "one" / "a") != hash_data(tmp_path / "three" / "a")
    (tmp_path / "linked").mkdir()
    for name in ("a", "b"):  # as DVC does from its cache
        cached = tmp_path / "cache/files/md5/0a" / f"{name}{'0' * 29}"
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_text((tmp_path / "one" / name).read_text())
        (tmp_path / "linked" / name).symlink_to(cached)
    assert hash_data(tmp_path / "linked") == first
    monkeypatch.setattr(_fingerprint, "CONTENT_LIMIT", 3)
    assert hash_data(tmp_path / "one") == hash_data(tmp_path / "three")
    with pytest.raises(recipe.RecipeError, match="nowhere: can't be read: No such file"):
        hash_data(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("outside", "../secret"), ("inside", "a"), ("up", ".."), ("self", "self"),
        ("gone", "nowhere"), ("device", "/dev/zero"), ("folder/deep", "../../secret"),
        ("lookalike", f"../files/md5/0a/{'0' * 30}"),
    ],
)  # fmt: skip
def test_a_link_in_a_data_set_is_refused_by_its_name(
    tmp_path: Path, name: str, target: str
) -> None:
    (tmp_path / "secret").write_text("not the data set's")
    (tmp_path / "files/md5/0a").mkdir(parents=True)
    (tmp_path / "files/md5/0a" / ("0" * 30)).symlink_to(tmp_path / "secret")
    link = tmp_path / "set" / name
    link.parent.mkdir(parents=True)
    (tmp_path / "set" / "a").write_text("1")
    link.symlink_to(target)
    with pytest.raises(recipe.RecipeError, match=f"{name}: a link to {target};"):
        hash_data(tmp_path / "set")


def test_a_pipe_in_a_data_set_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(recipe.RecipeError, match="pipe: neither a file nor a folder"):
        hash_data(tmp_path)


def test_a_lock_is_exclusive_names_its_holder_and_is_free_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lock, "PATIENCE", 0.0)
    folder = tmp_path / "x"
    with _lock.locked(folder):
        with pytest.raises(recipe.RecipeError, match=f"process {os.getpid()} is training"):
            _lock._acquire(folder)
        # The folder may be removed under it, as when the holder has finished.
        (folder / "lock").unlink()
        with _lock.locked(folder):
            pass
    with _lock.locked(folder):
        pass


def test_who_waits_for_a_lock_may_open_it_while_its_holder_removes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".resume" / "tiny"
    unlink, open_file = Path.unlink, os.open

    def and_make_anew(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        path.touch()

    with _lock.locked(folder), monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", and_make_anew)
        _lock.remove(folder)
    assert (folder / "lock").exists()

    def after_it_is_gone(path: Path, *options: int) -> int:
        monkeypatch.setattr(os, "open", open_file)
        shutil.rmtree(folder)
        return open_file(path, *options)

    monkeypatch.setattr(os, "open", after_it_is_gone)
    with _lock.locked(folder):
        assert (folder / "lock").read_text() == f"{os.getpid()}\n"


def outlive(sign: Connection) -> None:
    sign.send("running")
    time.sleep(60)


def test_a_forked_worker_that_outlives_the_holder_does_not_hold_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lock, "PATIENCE", 0.0)
    forks = multiprocessing.get_context("fork")
    signs, sign = forks.Pipe(duplex=False)
    with _lock.locked(tmp_path):
        worker = forks.Process(target=outlive, args=(sign,))
        worker.start()
        assert signs.recv() == "running"
        (descriptor,) = _lock._held
        with pytest.raises(recipe.RecipeError):
            _lock._acquire(tmp_path)
        with Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), descriptor)  # as if the holder were killed
        os.close(_lock._acquire(tmp_path))
    worker.kill()
    worker.join()


def test_trouble_with_a_file_of_ours_names_the_users_folder() -> None:
    for file in (".cookfire-1.tmp", ".resume"):
        error = OSError(errno.EROFS, "Read-only file system", f"/out/{file}")
        assert _main._describe(error, resumable=True) == "/out: Read-only file system"
    error = OSError(errno.ENOSPC, "No space left on device", "/out/model.pt")
    assert _main._describe(error, resumable=False) == "/out/model.pt: No space left on device"


def test_publishing_leaves_out_temporary_files_and_sums_and_can_be_repeated(tmp_path: Path) -> None:
    folder, target = ResumeFolder(tmp_path / ".resume" / "tiny"), tmp_path / "runs" / "tiny"
    for name in ("best.pt", "best.pt.sha256", "lonely.sha256", ".x.tmp", "pictures/a.png"):
        (folder.outputs / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.outputs / name).write_text(name)
    target.mkdir(parents=True)
    (target / "best.pt").write_text("of an earlier run")
    (target / "metrics.json").write_text("of an evaluation")
    for _ in range(2):
        folder.publish(target)
        assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == {
            "best.pt", "lonely.sha256", "pictures/a.png", "metrics.json",
        }  # fmt: skip
        assert (target / "best.pt").read_text() == "best.pt"
    folder.remove()
    assert not (tmp_path / ".resume").exists()
    assert (target / "best.pt").read_text() == "best.pt"


def test_publishing_copies_where_files_cannot_be_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    folder = ResumeFolder(tmp_path / "resume")
    folder.outputs.mkdir(parents=True)
    (folder.outputs / "model.pt").write_text("x")
    assert [path.name for path in folder.publish(tmp_path / "runs")] == ["model.pt"]
    assert (tmp_path / "runs" / "model.pt").read_text() == "x"


@pytest.fixture
def run(tmp_path: Path) -> recipe.Run:
    return recipe.Run("tiny", outputs=tmp_path, logs=tmp_path / "logs", data=tmp_path / "data")


def test_a_runs_files_are_equal_bytes_for_equal_content(run: recipe.Run, tmp_path: Path) -> None:
    run.write_metrics({"loss": 1, "accuracy": 0.5})
    assert (tmp_path / "metrics.json").read_text() == '{\n  "accuracy": 0.5,\n  "loss": 1.0\n}\n'
    state = {"w": torch.arange(3)}
    run.save("model.pt", state)
    run.save("best.pt", state)
    assert (tmp_path / "model.pt").read_bytes() == (tmp_path / "best.pt").read_bytes()
    assert torch.equal(run.load("model.pt")["w"], state["w"])
    run.write("pictures/a.png", lambda file: file.write(b"x"))
    assert (tmp_path / "pictures" / "a.png").read_bytes() == b"x"


def test_what_a_run_cannot_load_or_write_is_said(run: recipe.Run, tmp_path: Path) -> None:
    with pytest.raises(recipe.RecipeError, match="model.pt: no such file; train 'tiny' first"):
        run.load("model.pt")
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(recipe.DamagedCheckpoint):
        run.load("model.pt")
    with pytest.raises(recipe.RecipeError, match="metrics.json: loss is nan"):
        run.write_metrics({"loss": float("nan")})
    assert not (tmp_path / "metrics.json").exists()


def test_a_run_made_by_hand_keeps_nothing_unless_it_has_a_folder_for_it(
    run: recipe.Run, tmp_path: Path
) -> None:
    trainer = Engine(lambda _engine, _batch: None)
    assert run.keep(trainer) is False
    trainer.run([1, 2], max_epochs=1)
    assert not list(tmp_path.iterdir())

    keeping = dataclasses.replace(run, states=tmp_path, save_every=2)
    trainer = Engine(lambda _engine, _batch: None)
    assert keeping.keep(trainer) is False
    trainer.run([1, 2, 3], max_epochs=2)
    names = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert names == ["state_4.pt", "state_6.pt"]

    trainer = Engine(lambda _engine, _batch: None)
    assert keeping.keep(trainer) is True
    assert (trainer.state.iteration, trainer.state.epoch) == (6, 2)


def test_a_record_of_the_start_that_cannot_be_read_means_a_fresh_start(tmp_path: Path) -> None:
    folder = ResumeFolder(tmp_path)
    for text in ("", "{}", "[]", '{"fingerprint": {}}'):
        (tmp_path / "started.json").write_text(text)
        (tmp_path / "state_3.pt").write_text("x")
        folder.begin({"parameter lr": "1"}, {"threads": 1})
        assert not (tmp_path / "state_3.pt").exists()
        assert json.loads((tmp_path / "started.json").read_text())["environment"] == {"threads": 1}


def test_a_run_that_goes_on_in_another_environment_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ResumeFolder(tmp_path)
    folder.begin({"parameter lr": "1"}, {"threads": 1})
    (tmp_path / "state_3.pt").write_text("x")
    folder.begin({"parameter lr": "1"}, {"threads": 2})
    assert (tmp_path / "state_3.pt").exists()
    assert "began in another environment (threads 1 -> 2)" in caplog.text
