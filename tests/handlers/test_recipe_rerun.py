"""`verify --rerun`: the cells run anew, and what was there is lost only to a finished run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cookfire.handlers import recipe
from cookfire.handlers.recipe.__main__ import main as command
from cookfire.handlers.recipe._rerun import rerun
from tests.handlers.dvc_project import DvcProject

SECONDS = 240

BASELINE = """
tiny: {{metrics: {{accuracy: {{value: 1, tolerance: 0.02}}}}, sha256: "{sha256}", commit: a,
  environment: {{world_size: 1}}, date: 2026-01-01, inputs: {{parameters: {{data: ../data/numbers}},
  data: {data}, recipe: c, core: d}}}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> DvcProject:
    project = DvcProject(tmp_path_factory.mktemp("finished"))
    manifest = project.folder / "logs" / "tiny" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    sha256 = hashlib.sha256((project.outs / "model.pt").read_bytes()).hexdigest()
    text = BASELINE.format(sha256=sha256, data="b")
    (project.folder / "baseline.yaml").write_text(text)
    project.commit()
    return project


@pytest.fixture
def project(finished: DvcProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DvcProject:
    """A copy of the finished one."""
    root = tmp_path / "project"
    shutil.copytree(finished.root, root, symlinks=True)
    copy = DvcProject.__new__(DvcProject)
    copy.root, copy.folder, copy.outs = root, root / "toy", root / "toy" / "runs" / "tiny"
    copy.ran()
    monkeypatch.chdir(root)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return copy


def verify(project: DvcProject, **options: bool) -> int:
    return recipe.verify(project.folder, ["tiny"], **options)


def test_a_rerun_runs_every_cell_though_nothing_changed_and_compares_bits(
    project: DvcProject, capfd: pytest.CaptureFixture[str]
) -> None:
    before = project.files()
    assert verify(project, rerun=True) == 0
    assert project.ran() == "train evaluate"
    assert project.files() == before
    assert [line.split() for line in capfd.readouterr().out.splitlines()][-5:] == [
        ["baseline", "tolerance", "found"],
        ["accuracy", "1", "0.02", "1", "equal"],
        ["model.pt", *[hashlib.sha256(b"1\n").hexdigest()[:12]] * 2, "equal"],
        ["dvc.lock", "3", "outs", "the", "same", "equal"],
        ["equal", "bits"],
    ]
    assert not (project.folder / ".resume").exists()


def test_an_out_that_has_other_bytes_than_before_is_named(
    project: DvcProject, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TROUBLE", "other curves")
    assert verify(project, rerun=True) == 1
    assert "dvc.lock names other bytes of curves.tsv" in capfd.readouterr().out
    # It lies there now, and DVC has locked it.
    assert verify(project) == 0


def test_outs_that_are_not_those_of_the_lock_are_named_without_a_rerun_too(
    project: DvcProject, capfd: pytest.CaptureFixture[str]
) -> None:
    (project.outs / "curves.tsv").write_text("by hand")
    assert verify(project) == 1
    assert "dvc.lock names other bytes of curves.tsv" in capfd.readouterr().out
    (project.folder / "dvc.lock").write_text("stages: [")
    assert verify(project) == 0


def test_after_a_cell_that_failed_everything_is_as_before(
    project: DvcProject,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = project.files()
    # The training comes through, gives other bits, and DVC locks and stages them.
    (project.root / "data" / "numbers").write_text("2\n")
    monkeypatch.setenv("TROUBLE", "no evaluation")
    assert command(["verify", "toy", "--profile", "tiny", "--rerun"]) == 2
    said = capfd.readouterr().err
    assert "evaluate@tiny` failed (exit code 255); the outs of before are back" in said
    assert project.ran() == "train"
    assert project.files() == before
    assert project.call("git", "diff", "--cached", "--name-only") == ""
    # Hours of training are not lost to a mistake in the evaluation.
    assert caplog.messages == ["toy/.resume/tiny.new: what train@tiny made anew is kept here"]
    kept = project.folder / ".resume" / "tiny.new"
    assert (kept / "model.pt").read_text() == "2\n"
    assert [path.name for path in kept.parent.iterdir()] == ["tiny.new"]


def start(project: DvcProject) -> subprocess.Popen[bytes]:
    """Start a rerun whose training waits; return when it does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cookfire.handlers.recipe",
         "verify", "toy", "--profile", "tiny", "--rerun"],
        cwd=project.root, env={**project.variables, "TROUBLE": "wait"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wait_until(lambda: (project.root / "waiting").exists())
    return process


def wait_until(what: object) -> None:
    assert callable(what)
    end = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def wait_until_gone(session: int) -> None:
    """Wait for all processes that a rerun started: DVC takes a dead one for alive until then."""

    def left() -> list[str]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    found.append(stat.parent.name)
        return found

    wait_until(lambda: not left())


def test_after_ctrl_c_everything_is_as_before(project: DvcProject) -> None:
    before = project.files()
    process = start(project)
    assert not (project.outs / "model.pt").exists()
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, said.decode()
    assert said.decode().endswith("interrupted; the same command goes on\n")
    assert project.files() == before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux ends DVC with us")
def test_after_a_kill_nothing_runs_on_and_the_same_command_goes_on(project: DvcProject) -> None:
    before = project.files()
    process = start(project)
    process.kill()
    process.wait()  # until then it is there for what it started
    wait_until_gone(process.pid)
    process.communicate()
    # A rerun that fails now still knows what was there before the first.
    (project.folder / "evaluate.py").write_text("raise SystemExit(1)")
    with pytest.raises(recipe.RecipeError, match="the outs of before are back"):
        rerun(project.folder, "tiny")
    assert project.files() == before
    project.call("git", "checkout", "toy/evaluate.py")
    assert verify(project, rerun=True) == 0
    assert project.files() == before


def test_what_a_killed_rerun_kept_is_forgotten_when_the_run_was_finished_otherwise(
    project: DvcProject,
) -> None:
    process = start(project)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    wait_until_gone(process.pid)
    train = project.folder / "train.py"
    train.write_text(train.read_text() + '(runs / "model.pt").write_text("2")')
    project.dvc("repro", "toy/dvc.yaml")
    after = project.files()
    assert after["model.pt"] == b"2"
    train.write_text("raise SystemExit(1)")
    with pytest.raises(recipe.RecipeError, match="the outs of before are back"):
        rerun(project.folder, "tiny")
    assert project.files() == after


def test_what_other_profiles_have_locked_since_a_kill_stays(project: DvcProject) -> None:
    lock = project.folder / "dvc.lock"
    process = start(project)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    wait_until_gone(process.pid)
    others = "  train@other:\n    cmd: x\n    outs:\n    - path: toy/y\n      md5: '0123'\n"
    lock.write_text(lock.read_text() + others)
    before = yaml.safe_load(lock.read_text())
    (project.folder / "evaluate.py").write_text("raise SystemExit(1)")
    (project.root / "data" / "numbers").write_text("2\n")
    with pytest.raises(recipe.RecipeError, match="the outs of before are back"):
        rerun(project.folder, "tiny")
    assert yaml.safe_load(lock.read_text()) == before


def test_missing_data_are_made_by_their_stage(project: DvcProject) -> None:
    (project.root / "data" / "numbers").unlink()
    assert verify(project, rerun=True) == 0
    assert (project.root / "data" / "numbers").read_text() == "1\n"


def test_what_cannot_be_run_anew_is_one_line(
    project: DvcProject, capfd: pytest.CaptureFixture[str]
) -> None:
    for arguments, line in (
        (["toy", "--rerun"], "--rerun needs --profile: all profiles together may take days"),
        (["toy", "--rerun", "--profile", "other"],
         "toy/dvc.yaml: no stage runs 'other' (of each of these one does: tiny)"),
        (["toy", "--rerun", "--profile", "x"],
         "toy/params.yaml: no profile 'x' (there are: tiny, other)"),
    ):  # fmt: skip
        assert command(["verify", *arguments]) == 2
        assert capfd.readouterr().err == f"{line}\n"
    shutil.rmtree(project.root / ".dvc")
    assert command(["verify", "toy", "--rerun", "--profile", "tiny"]) == 2
    assert capfd.readouterr().err.startswith("toy: not in a DVC repository")
