"""A training that was killed, anywhere, goes on and gives every out byte for byte."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from cookfire.handlers import recipe
from cookfire.handlers.recipe import _lock
from cookfire.handlers.recipe._worker import Task, work
from tests import warm

TOY = Path(__file__).parent / "toy_recipe"
SECONDS = 60

FORKS = warm.forkserver()


def make_toy(root: Path) -> Path:
    """Copy the toy recipe, and data for it, into a folder."""
    shutil.copytree(TOY, root / "toy", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "data").mkdir()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 4, generator=generator)
    torch.save((inputs, (inputs[:, 0] + inputs[:, 1] > 0).long()), root / "data" / "data.pt")
    return root


def run_entry(root: Path, log: Path, trouble: str, entry: str, arguments: list[str]) -> None:
    """Be the process that runs an entry point: in its folder, with its stderr in a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    os.dup2(descriptor, 1)
    os.chdir(root)
    sys.path.insert(0, str(root))
    os.environ.pop("DVC_ROOT", None)
    os.environ["TOY"] = trouble
    torch.set_num_threads(1)
    _lock.PATIENCE = 0.2
    module = importlib.import_module(f"toy.{entry}")
    function, resumable = getattr(module, entry), entry == "train"
    recipe.main(function, module.Config, str(module.__file__), arguments, resumable=resumable)


class Toy:
    """The toy recipe in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.log = make_toy(root), root / "toy", root / "log"

    def start(self, trouble: str = "", entry: str = "train", *arguments: str) -> BaseProcess:
        self.log.unlink(missing_ok=True)
        process = FORKS.Process(
            target=run_entry,
            args=(self.root, self.log, trouble, entry, list(arguments) or ["--profile", "tiny"]),
        )
        process.start()
        return process

    def run(self, trouble: str = "", entry: str = "train", *arguments: str) -> int | None:
        process = self.start(trouble, entry, *arguments)
        process.join(SECONDS)
        return process.exitcode

    def killed(self, trouble: str, *arguments: str) -> None:
        assert self.run(trouble, "train", *arguments) == -signal.SIGKILL, self.said

    def finished(self, *arguments: str) -> str:
        assert self.run("", "train", *arguments) == 0, self.said
        return self.said

    @property
    def said(self) -> str:
        return self.log.read_text()

    def outs(self, profile: str = "tiny") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "runs" / profile).iterdir()}

    @property
    def resume(self) -> Path:
        return self.folder / ".resume" / "tiny"


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outs of an uninterrupted run."""
    toy = Toy(tmp_path_factory.mktemp("uninterrupted"))
    toy.finished()
    assert not (toy.folder / ".resume").exists()
    outs = toy.outs()
    assert sorted(outs) == ["best.pt", "curves.tsv", "model.pt"]
    return outs


def test_killed_within_an_epoch_it_goes_on_and_every_out_is_the_same(
    toy: Toy, expected: dict[str, bytes]
) -> None:
    toy.killed("kill 14")
    assert not (toy.folder / "runs").exists()
    assert "resuming at iteration 12 (epoch 2 of 4)" in toy.finished()
    assert toy.outs() == expected
    assert not (toy.folder / ".resume").exists()


def test_a_fresh_run_sets_the_logs_of_the_one_before_aside_and_a_resumed_one_goes_on_with_them(
    toy: Toy,
) -> None:
    toy.finished()
    logs = toy.folder / "logs" / "tiny"
    (logs / "mark").touch()
    toy.killed("kill 14")
    assert (logs.with_name("tiny.previous") / "mark").exists()
    logs.mkdir(exist_ok=True)
    (logs / "second").touch()
    assert "resuming" in toy.finished()
    assert (logs / "second").exists()
    assert not (logs / "mark").exists()


def test_killed_many_times_anywhere_every_out_is_the_same(
    toy: Toy, expected: dict[str, bytes]
) -> None:
    steps = sorted(random.Random(7).sample(range(2, 33), 4))
    for step in steps:
        toy.killed(f"kill {step}")
    toy.finished()
    assert toy.outs() == expected


@pytest.mark.parametrize("trouble", ["kill-after-epoch 2", "kill-after-epoch 3", "kill-completed"])
def test_killed_between_the_steps_every_out_is_the_same(
    toy: Toy, expected: dict[str, bytes], trouble: str
) -> None:
    toy.killed(trouble)
    assert "resuming at iteration" in toy.finished()
    assert toy.outs() == expected


def test_killed_while_publishing_all_outs_are_published_though_dvc_removed_some(
    toy: Toy, expected: dict[str, bytes]
) -> None:
    toy.killed("kill-publishing")
    published = list((toy.folder / "runs" / "tiny").glob("[!.]*"))
    assert len(published) == 1
    published[0].unlink()
    assert "the training was complete; publishing its outs" in toy.finished()
    assert toy.outs() == expected


def test_a_wish_to_stop_early_survives_a_kill(toy: Toy, tmp_path: Path) -> None:
    other = Toy(tmp_path / "other")
    assert other.run("stop") == 0
    assert len(other.outs()["curves.tsv"].splitlines()) == 2
    toy.killed("stop and die")
    toy.finished()
    assert toy.outs() == other.outs()


def test_what_has_changed_is_named_and_the_run_starts_afresh(
    toy: Toy, expected: dict[str, bytes]
) -> None:
    toy.killed("kill 14")
    params = toy.folder / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("lr: 0.05", "lr: 0.06", 1))
    toy.killed("kill 4")
    assert "starting afresh: since the interrupted run, parameter lr: 0.05 -> 0.06" in toy.said
    params.write_text(text)
    (toy.folder / "helper.py").write_text("")
    with (toy.folder / "config.py").open("a") as file:
        file.write("# changed\n")
    (toy.root / "data" / "more").write_text("x")
    said = toy.finished()
    for phrase in ("data changed", "file toy/config.py changed", "file toy/helper.py added",
                   "parameter lr: 0.06 -> 0.05"):  # fmt: skip
        assert phrase in said
    assert "resuming" not in said
    assert toy.outs() == expected


def test_a_damaged_state_is_skipped_aloud_and_the_one_before_is_used(
    toy: Toy, expected: dict[str, bytes]
) -> None:
    toy.killed("kill 14")
    states = sorted(toy.resume.glob("state_*.pt"))
    assert [path.name for path in states] == ["state_12.pt", "state_9.pt"]
    states[0].write_bytes(states[0].read_bytes()[:-100])
    said = toy.finished()
    assert "skipped: " in said
    assert "state_12.pt" in said
    assert "resuming at iteration 9 (epoch 2 of 4)" in said
    assert toy.outs() == expected


def test_without_any_intact_state_it_begins_again(toy: Toy, expected: dict[str, bytes]) -> None:
    toy.killed("kill 14")
    for path in toy.resume.glob("state_*.pt"):
        path.write_bytes(b"")
    assert "resuming" not in toy.finished()
    assert toy.outs() == expected


def test_a_state_that_does_not_fit_the_program_is_one_line(toy: Toy) -> None:
    toy.killed("kill 14")
    for path in toy.resume.glob("state_*.pt"):
        torch.save({"run": {}, "ends": False}, path)
        path.with_name(f"{path.name}.sha256").unlink()
    assert toy.run() == 2
    assert "does not fit this program" in toy.said.splitlines()[-1]


def test_a_second_training_of_a_profile_is_refused_with_the_firsts_process_id(toy: Toy) -> None:
    first = toy.start("wait")
    while not list(toy.resume.glob("state_*.pt")):
        time.sleep(0.02)
    assert toy.run() == 2
    assert toy.said.splitlines() == [
        f"toy/.resume/tiny: process {first.pid} is training this; waiting 0.2 s for it to end",
        f"toy/.resume/tiny: process {first.pid} is training this already; wait for it or end it",
    ]
    first.kill()
    first.join()
    assert "resuming at iteration 3 (epoch 1 of 4)" in toy.finished()


def interrupt_train(folder: Path, at: int) -> bool:
    """Be one of two processes that train until an error at an iteration; tell whether it came."""
    sys.path.insert(0, str(folder.parent))
    os.environ["TOY"] = f"fail {at}"
    train, config = (importlib.import_module(f"toy.{name}") for name in ("train", "config"))
    task = Task(
        "train", folder, "two", {}, data=folder.parent / "data", outputs=folder / "runs" / "two",
        logs=folder / "logs", resume=folder / ".resume" / "two",
    )  # fmt: skip
    try:
        work(0, train.train, recipe.load(folder / "params.yaml", "two", config.Config), task)
    except ArithmeticError:
        return True
    return False


def test_two_processes_go_on_together_and_every_out_is_the_same(
    tmp_path: Path, processes: Callable[..., list[bool]]
) -> None:
    toy, other = Toy(tmp_path / "failed"), Toy(tmp_path / "uninterrupted")
    assert processes(2, interrupt_train, other.folder, 99) == [False, False]
    assert processes(2, interrupt_train, toy.folder, 14) == [True, True]
    assert (toy.folder / ".resume" / "two" / "state_12.pt").exists()
    assert processes(2, interrupt_train, toy.folder, 99) == [False, False]
    assert toy.outs("two") == other.outs("two")
    assert len(toy.outs("two")) == 3


def test_what_one_of_several_processes_complains_of_is_one_line(toy: Toy) -> None:
    assert toy.run("refuse 1", "train", "--profile", "two") == 2
    assert toy.said.splitlines()[-1] == "the data is not to be had"


def test_a_run_that_could_not_begin_is_one_line_and_leaves_nothing(toy: Toy) -> None:
    assert toy.run("refuse 0", "train", "--profile", "tiny", "--out", "here") == 2
    assert toy.said == "the data is not to be had\n"
    assert not (toy.root / "here").exists()
    (toy.root / "here").mkdir()
    assert toy.run("refuse 0", "train", "--profile", "tiny", "--out", "here") == 2
    assert not list((toy.root / "here").iterdir())


def test_a_run_that_could_not_begin_leaves_the_record_of_the_run_before(toy: Toy) -> None:
    toy.finished()
    manifest = toy.folder / "logs" / "tiny" / "manifest.json"
    before = manifest.read_bytes()
    assert toy.run("refuse 0") == 2
    assert manifest.read_bytes() == before
    assert not manifest.parent.with_name("tiny.previous").exists()


def test_after_ctrl_c_it_is_said_where_the_same_command_goes_on(toy: Toy) -> None:
    for trouble, line in (
        ("interrupt 1", "interrupted; nothing was kept yet, so that the same command begins again"),
        ("interrupt 14", "interrupted; the same command goes on from iteration 12"),
    ):
        assert toy.run(trouble) == 130
        assert toy.said.splitlines()[-1] == line
    assert "resuming at iteration 12" in toy.finished()


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    toy: Toy, expected: dict[str, bytes]
) -> None:
    assert toy.run("full 14") == 2
    assert toy.said.splitlines()[-1] == (
        "No space left on device; the same command goes on when there is room"
    )
    assert "resuming at iteration 12" in toy.finished()
    assert toy.outs() == expected


def test_with_out_everything_is_written_there_and_other_data_can_be_trained_on(
    toy: Toy, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    shutil.copytree(tmp_path / "data", tmp_path / "mine")
    options = ("--profile", "tiny", "--data", "mine", "--out", "here")
    toy.killed("kill 14", *options)
    assert (tmp_path / "here" / ".resume" / "state_12.pt").exists()
    assert "resuming at iteration 12" in toy.finished(*options)
    assert {name: (tmp_path / "here" / name).read_bytes() for name in expected} == expected
    assert toy.run("", "evaluate", *options) == 0
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == sorted(
        [*expected, "logs", "metrics.json"]
    )
    assert (tmp_path / "here" / "logs" / "data").read_text() == str(tmp_path / "mine")
    assert not (toy.folder / "runs").exists()
    assert not (toy.folder / "logs").exists()


@pytest.mark.parametrize(
    ("entry", "arguments", "line"),
    [
        ("train", ["--profile", "tiny", "--data", "data"],
         "--data needs --out DIR outside runs/, which holds results on the profile's own data"),
        ("train", ["--profile", "tiny", "--data", "data", "--out", "toy/runs/x"],
         "--out toy/runs/x: runs/ is DVC's; choose a folder outside it"),
        ("train", ["--profile", "tiny", "--out", "log"], "--out log: not a folder"),
        ("train", ["--profile", "tiny", "--out", "data/x"],
         "--out data/x: is in the data set, data"),
        ("train", ["--profile", "tiny", "--seed", "9" * 20, "--out", "x"],
         "--seed: expected a number of 64 bits, got 99999999999999999999 (int)"),
        ("train", ["--profile", "tiny", "--out", "log/x"], "log/x: Not a directory"),
        ("train", ["--profile", "tinny"],
         "toy/params.yaml: no profile 'tinny'; did you mean 'tiny'? "
         "(there are: tiny, two, pinned, lost, made)"),
        ("train", ["--profile", "tiny", "--data", "nowhere", "--out", "x"],
         "--data: no such file or folder: nowhere"),
        ("train", ["--profile", "lost"],
         "toy/params.yaml: lost.data: no such file or folder: lost; --data DIR --out DIR takes "
         "another"),
        ("train", ["--profile", "made"],
         "toy/params.yaml: made.data: no such file or folder: toy/digits; `dvc repro "
         "toy/dvc.yaml:digits` makes it, and --data DIR --out DIR takes another"),
        ("evaluate", ["--profile", "tiny"],
         "toy/runs/tiny/model.pt: no such file; train 'tiny' first"),
        ("train", ["--profile", "pinned"],
         "toy/params.yaml: pinned.environment: these must be set before Python starts, and are "
         "not: ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=COMPATIBLE"),
    ],
)  # fmt: skip
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(
    toy: Toy, entry: str, arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (toy.folder / "dvc.yaml").touch()
    with (toy.folder / "params.yaml").open("a") as file:
        file.write("lost: {data: ../lost, lr: 1, epochs: 1}\n")
        file.write("made: {data: digits, lr: 1, epochs: 1}\n")
    assert toy.run("", entry, *arguments) == 2
    assert toy.said.splitlines()[-1] == line
