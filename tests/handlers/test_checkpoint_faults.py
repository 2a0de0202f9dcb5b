"""Checkpoints under fault: killed, on a full or read-only disk, with damaged and hostile files."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from cookfire.handlers import Checkpoint, CheckpointEvents, DamagedCheckpoint
from cookfire.handlers._files import load_file
from tests.handlers.helpers import checkpoints, engine_at, model
from tests.handlers.hostile import KINDS, write_hostile
from tests.handlers.killing import kill_at_random_moments

KILLS = int(os.environ.get("COOKFIRE_KILLS", "200"))
"""SIGKILLs of each kind of saving; more of them take more time and find no more, so far."""


def at_step(step: float) -> nn.Linear:
    """Return a model of 80 kB that tells the step it was saved at."""
    layer = nn.Linear(100, 200)
    nn.init.constant_(layer.weight, step)
    return layer


def newest(folder: Path) -> int:
    """Return the step of the newest intact checkpoint, all of which must be of that step."""
    net = at_step(-1)
    path = Path(Checkpoint.load_newest(folder, {"model": net}))
    step = int(net.weight[0, 0])
    assert (net.weight == step).all()
    assert path.stem.endswith(f"_{step}")
    return step


def save_again_and_again(folder: Path, background: bool, acknowledge: int) -> None:
    """Go on where the newest checkpoint is; write each step that is told to be safe."""
    net, engine = at_step(0), engine_at(0)
    checkpoint = Checkpoint(
        {"model": net}, folder, n_saved=2, include_self=True, background=background
    )

    def told() -> None:
        last = Path(str(checkpoint.last_checkpoint)).stem
        os.write(acknowledge, f"{last.rsplit('_', 1)[1]}\n".encode())

    engine.register_events(*CheckpointEvents)
    engine.add_event_handler(Checkpoint.SAVED_CHECKPOINT, told)
    if checkpoints(folder):
        Checkpoint.load_newest(folder, {"model": net, "checkpointer": checkpoint})
    engine.state.iteration = int(net.weight[0, 0])
    while True:
        engine.state.iteration += 1
        nn.init.constant_(net.weight, engine.state.iteration)
        checkpoint(engine)


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: many saves fit between two kills."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_killed_at_any_moment_no_checkpoint_is_lost_that_was_told_to_be_safe(
    quick_disk: Path, background: bool
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    safe, told, text = 0, 0, b""
    for _ in kill_at_random_moments(
        lambda: save_again_and_again(quick_disk, background, writing), KILLS
    ):
        while True:
            try:
                text += os.read(reading, 65536)
            except BlockingIOError:
                break
        lines = text.split(b"\n")
        text = lines.pop()
        told += len(lines)
        safe = max([safe, *map(int, lines)])
        if checkpoints(quick_disk):
            assert newest(quick_disk) >= safe
        else:
            assert safe == 0
        assert len(list(quick_disk.glob("*.tmp"))) <= 1  # the one that was being written
    os.close(reading)
    os.close(writing)
    assert told > KILLS / 10
    # Two that are kept, two of saves in flight; what a kill left was removed by the next run.
    assert len(checkpoints(quick_disk)) <= 4
    Checkpoint({"model": model()}, quick_disk)(engine_at(1))
    assert not list(quick_disk.glob("*.tmp"))


# --- the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"needs root, who may mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def save(checkpoint: Checkpoint, step: int) -> None:
    checkpoint(engine_at(step))
    checkpoint.wait()


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_a_full_disk_is_said_with_the_file_and_the_older_ones_stay(
    small_disk: Path, background: bool
) -> None:
    net = at_step(0)
    checkpoint = Checkpoint({"checkpoint": net}, small_disk, n_saved=2, background=background)
    for step in (1, 2, 3):
        nn.init.constant_(net.weight, step)
        save(checkpoint, step)
    kept = sorted(path.name for path in small_disk.iterdir())
    (small_disk / "of somebody else").write_bytes(bytes(150_000))
    with pytest.raises((OSError, RuntimeError), match=r"No space left on device.*checkpoint_4\.pt"):
        save(checkpoint, 4)
    assert sorted(path.name for path in small_disk.iterdir()) == sorted([*kept, "of somebody else"])
    assert newest(small_disk) == 3
    assert checkpoint.last_checkpoint == small_disk / "checkpoint_3.pt"
    (small_disk / "of somebody else").unlink()
    save(checkpoint, 5)
    assert checkpoints(small_disk) == ["checkpoint_3.pt", "checkpoint_5.pt"]


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_a_read_only_disk_is_said_with_the_file_and_loads(
    small_disk: Path, background: bool
) -> None:
    checkpoint = Checkpoint({"checkpoint": at_step(1)}, small_disk, background=background)
    save(checkpoint, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises((OSError, RuntimeError), match=r"Read-only file system.*checkpoint_2\.pt"):
        save(checkpoint, 2)
    assert newest(small_disk) == 1
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    save(checkpoint, 3)
    assert checkpoints(small_disk) == ["checkpoint_3.pt"]


def test_an_error_of_the_system_keeps_its_kind_and_number(small_disk: Path) -> None:
    checkpoint = Checkpoint({"model": nn.Linear(1000, 1000)}, small_disk)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is asserted
        checkpoint(engine_at(1))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(small_disk / "model_1.pt")


# --- damaged files


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 1 to 3."""
    folder = tmp_path_factory.mktemp("three")
    for step in (1, 2, 3):
        net = model(float(step))
        Checkpoint({"checkpoint": net}, folder, n_saved=None)(engine_at(step))
        os.utime(folder / f"checkpoint_{step}.pt", ns=(step, step))
    return folder


def step_of(folder: Path) -> int:
    net = model(-1.0)
    Checkpoint.load_newest(folder, {"model": net})
    return int(net.weight[0, 0])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    what=st.sampled_from(["flip", "flip", "cut", "zero"]),
    side=st.sampled_from(["kept", "kept", "lost", "hurt"]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_damage_anywhere_is_noticed_or_harmless_and_the_newest_intact_one_is_found(
    three: Path, caplog: Any, what: str, side: str, place: float, bit: int
) -> None:
    caplog.clear()
    path = three / "checkpoint_3.pt"
    sums = path.with_name(path.name + ".sha256")
    target = sums if side == "hurt" else path
    good = {file: file.read_bytes() for file in (path, sums)}
    content = bytearray(good[target])
    position = int(place * len(content))
    if what == "flip":
        content[position] ^= 1 << bit
    elif what == "cut":
        del content[position:]
    else:
        content[position : position + 512] = bytes(len(content[position : position + 512]))
    try:
        target.write_bytes(content)
        if side == "lost":
            sums.unlink()
        os.utime(path, ns=(3, 3))
        found = step_of(three)
        assert found in (2, 3)
        if found == 2:
            assert re.search(r"skipped \S*/checkpoint_3\.pt: \S+", caplog.text)
        elif side == "kept":
            assert bytes(content) == good[path]  # what was to be overwritten was so already
    finally:
        for file, was in good.items():
            file.write_bytes(was)
        os.utime(path, ns=(3, 3))


def test_a_wrong_sum_an_empty_file_and_a_lost_one_each_leave_the_next_intact_one(
    three: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(three, folder)
    shutil.copy(folder / "checkpoint_1.pt.sha256", folder / "checkpoint_3.pt.sha256")
    assert step_of(folder) == 2
    assert f"{folder}/checkpoint_3.pt: damaged: its sha256 is" in caplog.text
    (folder / "checkpoint_2.pt").write_bytes(b"")
    os.utime(folder / "checkpoint_2.pt", ns=(2, 2))
    assert step_of(folder) == 1
    (folder / "checkpoint_1.pt.sha256").unlink()
    assert step_of(folder) == 1
    (folder / "checkpoint_3.pt.sha256").unlink()
    assert step_of(folder) == 3


# --- hostile files


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(tmp_path: Path, kind: str) -> None:
    folder, ran = tmp_path / "saved", tmp_path / "ran"
    Checkpoint({"model": model(1.0)}, folder)(engine_at(1))
    bad = folder / "model_2.pt"
    write_hostile(kind, bad, ran)
    with pytest.raises(DamagedCheckpoint, match=r"model_2\.pt: (refused|no checkpoint|damaged)"):
        load_file(bad)
    assert step_of(folder) == 1
    # Its own sum beside it makes it no better, and the sum is only read, whatever it is.
    done = subprocess.run(["sha256sum", bad.name], cwd=folder, capture_output=True, check=True)
    bad.with_name("model_2.pt.sha256").write_bytes(done.stdout)
    with pytest.raises(DamagedCheckpoint, match=r"model_2\.pt: (refused|no checkpoint)"):
        load_file(bad)
    write_hostile(kind, folder / "model_1.pt.sha256", ran)
    with pytest.raises(DamagedCheckpoint, match=r"model_1\.pt: damaged: its sha256 is"):
        load_file(folder / "model_1.pt")
    with pytest.raises(DamagedCheckpoint, match="no intact checkpoint"):
        Checkpoint.load_newest(folder, {"model": model()})
    assert not ran.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_the_hostile_files_of_these_tests_are_hostile(tmp_path: Path, kind: str) -> None:
    write_hostile(kind, tmp_path / "a.pt", tmp_path / "ran")
    try:
        torch.load(tmp_path / "a.pt", weights_only=False)
    except Exception:  # what comes of it does not matter
        logging.getLogger(__name__).debug("raised")
    assert (tmp_path / "ran").exists()
