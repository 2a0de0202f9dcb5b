"""How the folder of a data set appears: whole, by one process at a time, or with one line said."""

from __future__ import annotations

import errno
import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data import _command, _folder, archive, fetch, imagenet, make_tiny_imdb
from recipes.__main__ import folders
from recipes._fork._source import Source

ROOT = Path(__file__).resolve().parent.parent.parent
FILLING = """
import sys, time
from pathlib import Path
from data import _folder

def fill(folder: Path) -> None:
    (folder / "half").write_text("")
    print("filling", flush=True)
    time.sleep(60)

_folder.replace_folder(Path(sys.argv[1]), fill)
"""


def whole(folder: Path) -> None:
    (folder / "whole").write_text("")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_second_process_is_told_and_the_death_of_the_first_makes_room(tmp_path: Path) -> None:
    _folder.replace_folder(tmp_path / "set", whole)
    first = subprocess.Popen(
        [sys.executable, "-c", FILLING, str(tmp_path / "set")],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "filling\n"
        for _ in range(2):
            with pytest.raises(
                _folder.DataError, match=rf"set: process {first.pid} is writing it already; wait"
            ):
                _folder.replace_folder(tmp_path / "set", whole)
        assert (tmp_path / ".set.partial/new/half").exists()
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert names(tmp_path / "set") == ["whole"]
    _folder.replace_folder(tmp_path / "set", whole)
    assert names(tmp_path) == ["set", "set/whole"]


def test_a_second_check_of_imagenet_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(imagenet, "HERE", tmp_path)
    with _folder.workshop(tmp_path / "imagenet"), pytest.raises(SystemExit, match="2"):
        imagenet.main([])
    assert f"imagenet: process {os.getpid()} is writing it already" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_what_is_no_folder_is_not_replaced(kind: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    if kind == "file":
        (tmp_path / "set").write_text("")
    else:
        (tmp_path / "set").symlink_to(tmp_path / ("disk" if kind == "link" else "nowhere"))
    before = names(tmp_path)
    for _ in range(2):
        with pytest.raises(_folder.DataError, match="set: a link or a file, expected a folder or"):
            _folder.replace_folder(tmp_path / "set", whole)
        assert names(tmp_path) == before


def test_a_full_disk_is_told_of_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_command, "HERE", tmp_path)
    monkeypatch.setattr(make_tiny_imdb, "review", full)
    with pytest.raises(SystemExit, match="2"):
        make_tiny_imdb.main([])
    said = f"error: {tmp_path}/tiny_imdb: No space left on device; mend that, and run it again\n"
    assert capsys.readouterr().err == said

    # Of a download too, where another source would not help.
    monkeypatch.setattr("torchvision.datasets.utils.download_url", full)
    monkeypatch.setattr(_command, "HERE", tmp_path)
    monkeypatch.delenv("COOKFIRE_MIRROR", raising=False)
    with pytest.raises(SystemExit, match="2"):
        archive.main(["imdb"])
    assert capsys.readouterr().err.splitlines()[1] == said.replace("tiny_", "").rstrip()
    assert not list(tmp_path.iterdir())


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mirror" / "MNIST/raw/x"
    path.parent.mkdir(parents=True)
    path.write_text("")

    def refuse(*_: object) -> None:  # root may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(fetch, "copy", refuse)
    monkeypatch.setattr(fetch, "files_of", lambda _: {"MNIST/raw/x": ""})
    monkeypatch.setattr(_command, "HERE", tmp_path)
    monkeypatch.setenv("COOKFIRE_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(SystemExit, match="2"):
        fetch.main(["mnist"])
    assert f"error: {path}: Permission denied; mend that" in capsys.readouterr().err


def test_a_server_that_breaks_off_is_told_of_by_every_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", broken)
    with pytest.raises(_folder.DataError, match=r"imdb can't be had: .* failed \(IncompleteRead"):
        archive.fetch("imdb", None, tmp_path / "imdb")


@pytest.mark.parametrize("recipe", folders())
def test_a_fork_has_every_module_that_its_data_stages_import(recipe: str) -> None:
    source = Source(ROOT, recipe, "my", "my", None)
    for path in source.data_files:
        imported = re.findall(r"(?m)^from \.(\w+) import", (ROOT / path).read_text())
        assert {f"data/{name}.py" for name in imported} <= set(source.data_files), path
