"""Files that are there completely or not at all, and checkpoints that can be trusted."""

from __future__ import annotations

import collections
import hashlib
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cookfire.handlers import DamagedCheckpoint
from cookfire.handlers._files import load_file, remove_file, save_file, write_atomically
from tests.handlers.killing import kill_at_random_moments, kill_before_each_call

STATE = {"weight": torch.arange(2000.0), "step": 3, "names": ["a", "b"]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def same(first: Any, second: Any) -> bool:
    return torch.equal(first["weight"], second["weight"]) and first["names"] == second["names"]


def test_written_bytes_are_there_with_their_sum_and_nothing_else(tmp_path: Path) -> None:
    digest = write_atomically(tmp_path / "a", lambda file: file.write(b"hello"))
    assert (tmp_path / "a").read_bytes() == b"hello"
    assert digest == hashlib.sha256(b"hello").hexdigest()
    assert names(tmp_path) == ["a"]


def test_a_writer_may_seek(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"0123")
        file.seek(1)
        file.write(b"x")

    assert write_atomically(tmp_path / "a", write) == hashlib.sha256(b"0x23").hexdigest()


def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_files_obey_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", lambda file: file.write(b""))
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "cached").write_text("old")
    (tmp_path / "a").symlink_to("cached")
    write_atomically(tmp_path / "a", lambda file: file.write(b"new"))
    assert (tmp_path / "cached").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"


def test_leftovers_of_the_dead_are_removed_and_files_of_living_writers_are_not(
    tmp_path: Path,
) -> None:
    (tmp_path / ".cookfire-0123456789abcdef.tmp").write_text("of a killed writer")
    (tmp_path / ".cookfire-notes.tmp").write_text("of somebody else")
    inside, leave = threading.Event(), threading.Event()

    def slowly(file: BinaryIO) -> None:
        file.write(b"slow")
        inside.set()
        leave.wait(10)

    writer = threading.Thread(target=write_atomically, args=(tmp_path / "slow", slowly))
    writer.start()
    inside.wait(10)
    write_atomically(tmp_path / "fast", lambda file: file.write(b"fast"))
    leave.set()
    writer.join()
    assert names(tmp_path) == [".cookfire-notes.tmp", "fast", "slow"]


def test_a_missing_or_read_only_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_file(STATE, tmp_path / "nowhere" / "a.pt")
    save_file(STATE, tmp_path / "a.pt")
    with as_somebody_else(), pytest.raises(PermissionError):
        save_file({"step": 4}, tmp_path / "a.pt")
    assert same(load_file(tmp_path / "a.pt"), STATE)
    assert names(tmp_path) == ["a.pt", "a.pt.sha256"]


class as_somebody_else:
    """Be a user who may not write into root's folders, where the tests are run by root."""

    def __enter__(self) -> None:
        if os.getuid() == 0:
            os.seteuid(65534)

    def __exit__(self, *error: object) -> None:
        if os.getuid() == 0:
            os.seteuid(0)


def test_a_full_disk_is_an_os_error_and_the_old_file_stays(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.pt")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_file({"weight": torch.zeros(100_000)}, tmp_path / "a.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert same(load_file(tmp_path / "a.pt"), STATE)
    assert names(tmp_path) == ["a.pt", "a.pt.sha256"]


def test_the_side_file_is_what_sha256sum_checks(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.pt")
    command = ["sha256sum", "--check", "--strict", "a.pt.sha256"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert same(load_file(tmp_path / "a.pt"), STATE)


def test_bytes_do_not_depend_on_the_name(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.pt")
    save_file(STATE, tmp_path / "another.bin")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another.bin").read_bytes()


def test_overwriting_changes_file_and_sum_and_removing_removes_both(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    save_file({"step": 1}, path)
    save_file({"step": 2}, path)
    assert load_file(path) == {"step": 2}
    remove_file(path)
    assert names(tmp_path) == []
    remove_file(path)


@pytest.mark.parametrize("side", [True, False], ids=["with its sha256", "by the inner sums"])
def test_truncated_files_are_refused(tmp_path: Path, side: bool) -> None:
    path = saved(tmp_path, side)
    content = path.read_bytes()
    for length in [0, 1, 2, 30, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DamagedCheckpoint, match=r"a\.pt: "):
            load_file(path)


def saved(folder: Path, side: bool) -> Path:
    path = folder / "a.pt"
    save_file(STATE, path)
    if not side:
        (folder / "a.pt.sha256").unlink()
    return path


def test_any_flipped_bit_is_refused_by_the_sha256(tmp_path: Path) -> None:
    path = saved(tmp_path, side=True)
    content = bytearray(path.read_bytes())
    for position in range(0, len(content), 97):
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        with pytest.raises(DamagedCheckpoint, match=r"its sha256 is .*a\.pt\.sha256 says"):
            load_file(path)
        content[position] ^= 1 << position % 8


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 1_000_000), bit=st.integers(0, 7))
def test_without_a_sha256_a_flipped_bit_is_refused_or_harmless(
    tmp_path: Path, position: int, bit: int
) -> None:
    path = saved(tmp_path, side=False)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        state = load_file(path)
    except DamagedCheckpoint:
        return
    assert same(state, STATE)


def test_a_replaced_file_says_what_to_do_with_its_old_sum(tmp_path: Path) -> None:
    path = saved(tmp_path, side=True)
    torch.save({"step": 9}, path)
    with pytest.raises(DamagedCheckpoint, match=r"replaced on purpose, remove a\.pt\.sha256"):
        load_file(path)
    (tmp_path / "a.pt.sha256").unlink()
    assert load_file(path) == {"step": 9}


@pytest.mark.parametrize("content", [b"", b"hello world\n", b"PK", bytes(1000)])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DamagedCheckpoint):
        load_file(tmp_path / "a.pt")


def test_a_missing_file_is_no_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_file(tmp_path / "a.pt")


def test_files_of_torch_save_load_in_both_formats(tmp_path: Path) -> None:
    for new in (True, False):
        torch.save(STATE, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        assert same(load_file(tmp_path / "a.pt", map_location="cpu"), STATE)


def test_numpy_scalars_become_numbers_and_dicts_keep_their_kind(tmp_path: Path) -> None:
    module = torch.nn.BatchNorm1d(2)
    state = module.state_dict()
    groups = [{"lr": numpy.float64(0.1), "betas": (numpy.float32(0.5), 1)}]
    save_file({"model": state, "groups": groups, "n": numpy.int64(3)}, tmp_path / "a.pt")
    loaded: Any = load_file(tmp_path / "a.pt")
    assert loaded["groups"] == [{"lr": 0.1, "betas": (0.5, 1)}]
    assert (loaded["n"], type(loaded["n"])) == (3, int)
    assert loaded["model"]._metadata == state._metadata
    state["scale"] = numpy.float32(2)
    save_file(state, tmp_path / "a.pt")
    loaded = load_file(tmp_path / "a.pt")
    assert loaded["scale"] == 2.0
    assert loaded._metadata == state._metadata
    assert isinstance(state["scale"], numpy.float32)


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"opt": {"x": [1, numpy.zeros(2)]}}, r"opt\.x\[1\] is a numpy\.ndarray"),
        ({"m": (collections.deque(),)}, r"m\[0\] is a collections\.deque"),
        ({frozenset((1,)): 1}, r"the key frozenset\(\{1\}\) of the state is a builtins\.frozenset"),
        (Path("x"), r"the state is a pathlib\.PosixPath"),
    ],
)
def test_what_could_not_be_loaded_safely_is_not_saved(
    tmp_path: Path, state: object, where: str
) -> None:
    save_file(STATE, tmp_path / "a.pt")
    with pytest.raises(TypeError, match=where):
        save_file(state, tmp_path / "a.pt")
    assert same(load_file(tmp_path / "a.pt"), STATE)
    assert names(tmp_path) == ["a.pt", "a.pt.sha256"]


def test_a_reader_never_meets_damage_while_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    save_file({"step": 0}, path)
    end = time.monotonic() + 0.5
    problems: list[Exception] = []

    def read() -> None:
        while time.monotonic() < end:
            try:
                load_file(path)
            except Exception as error:  # whatever it is, the test shows it
                problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    step = 0
    while time.monotonic() < end:
        step += 1
        save_file({"step": step}, path)
    reader.join()
    assert not problems
    assert load_file(path) == {"step": step}


def write_step(path: Path, step: int) -> None:
    save_file({"step": step, "weight": torch.full((1000,), float(step))}, path)


def load_step(path: Path) -> int:
    state: Any = load_file(path)
    assert (state["weight"] == state["step"]).all()
    return int(state["step"])


def test_an_overwritten_file_survives_sigkill_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    write_step(path, 0)

    def overwrite() -> None:
        step = load_step(path)
        while True:
            write_step(path, step := step + 1)

    last = 0
    for _ in kill_at_random_moments(overwrite, 20):
        step = load_step(path)
        assert step >= last
        last = step
    assert last > 0
    save_file({"step": 0}, path)
    assert names(tmp_path) == ["best.pt", "best.pt.sha256"]


def test_an_overwritten_file_survives_a_kill_before_each_system_call(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    steps = []
    write_step(path, 1)
    for _ in kill_before_each_call(lambda: write_step(path, 2)):
        steps.append(load_step(path))
        write_step(path, 1)
        assert names(tmp_path) == ["best.pt", "best.pt.sha256"]
    assert sorted(steps) == steps
    assert set(steps) == {1, 2}
    assert load_step(path) == 2
