"""The stages of the Cycle-GAN's data: an archive without a published hash, and the tiny set."""

from __future__ import annotations

import contextlib
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import fetch_horse2zebra as fetch
from data import make_tiny_horse2zebra
from data._folder import DataError

COUNTS = {"trainA": 2, "trainB": 3, "testA": 1, "testB": 1}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let ``horse2zebra`` be a few files, and the authors' address a folder."""
    monkeypatch.setattr(fetch, "numbers_of", lambda name: COUNTS if name == "horse2zebra" else {})
    upstream = (tmp_path / "upstream" / "{name}.zip").as_uri().replace("%7B", "{")
    monkeypatch.setattr(fetch, "ADDRESS", upstream.replace("%7D", "}"))


def archive(path: Path, counts: dict[str, int], name: str = "horse2zebra") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{name}/", "")
        packed.writestr(f"{name}/../../../outside.jpg", b"not one of the four folders")
        packed.writestr(f"{name}/trainA/wörter.txt", b"no picture")
        for kind, count in counts.items():
            for number in range(count):
                packed.writestr(f"{name}/{kind}/{number}.jpg", f"{kind} {number}" * 50)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


EXPECTED = sorted(f"{kind}/{n}.jpg" for kind, count in COUNTS.items() for n in range(count))


def test_a_mirror_s_archive_or_folder_is_taken_and_each_picture_s_hash_noted(
    tmp_path: Path,
) -> None:
    archive(tmp_path / "mirror" / "horse2zebra.zip", COUNTS)
    fetch.fetch("horse2zebra", tmp_path / "mirror", tmp_path / "one")
    assert names(tmp_path / "one") == EXPECTED
    (tmp_path / "one").rename(tmp_path / "horse2zebra")
    fetch.fetch("horse2zebra", tmp_path, tmp_path / "two")
    sums = [tmp_path / folder / "SHA256SUMS" for folder in ("horse2zebra", "two")]
    assert sums[0].read_text() == sums[1].read_text()
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", sums[1]], cwd=sums[1].parent, check=True
    )
    assert not (tmp_path / "outside.jpg").exists()


@pytest.mark.parametrize("mirror", [None, "empty"])
def test_else_it_is_downloaded(
    tmp_path: Path, mirror: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    archive(tmp_path / "upstream" / "horse2zebra.zip", COUNTS)
    folder = None if mirror is None else tmp_path / mirror
    fetch.fetch("horse2zebra", folder, tmp_path / "out")
    assert names(tmp_path / "out") == EXPECTED
    sums = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    assert [line.split()[1] for line in sums] == EXPECTED  # the archive itself is not one of them
    assert "downloading" in capsys.readouterr().err


def test_other_sets_of_the_family_are_had_by_name_whatever_their_numbers(tmp_path: Path) -> None:
    counts = COUNTS | {"trainA": 7}
    archive(tmp_path / "upstream" / "apple2orange.zip", counts, "apple2orange")
    fetch.fetch("apple2orange", None, tmp_path / "out")
    assert len(names(tmp_path / "out" / "trainA")) == 7


def test_what_can_t_be_had_says_what_was_tried_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"horse2zebra can't be had: COOKFIRE_MIRROR is not set, an"
    ):
        fetch.fetch("horse2zebra", None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"trainB": 2}, r"horse2zebra\.zip: 2 pictures in trainB, expected 3: not the authors'"),
        ({"testB": 0}, r"horse2zebra\.zip: no pictures in testB"),
    ],
)
def test_an_archive_with_other_pictures_is_refused(
    tmp_path: Path, counts: dict[str, int], message: str
) -> None:
    archive(tmp_path / "horse2zebra.zip", COUNTS | counts)
    with pytest.raises(DataError, match=message):
        fetch.fetch("horse2zebra", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut short", "changed", "no archive", "no name"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: str) -> None:
    path = archive(tmp_path / "horse2zebra.zip", COUNTS)
    content = path.read_bytes()
    damaged = {
        "cut short": content[:-300],
        "changed": content.replace(b"trainB 1" * 5, b"trainB 2" * 5),
        "no archive": b"<html>moved</html>",
        "no name": content.replace("ö".encode(), b"\xff\xff"),
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"horse2zebra\.zip: damaged or cut short"):
        fetch.fetch("horse2zebra", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_whatever_byte_of_an_archive_is_damaged_it_is_refused_or_whole(tmp_path: Path) -> None:
    path = archive(tmp_path / "set.zip", COUNTS, "set")
    content = path.read_bytes()
    fetch.fetch("set", tmp_path, tmp_path / "whole")
    pictures = {name: (tmp_path / "whole" / name).read_bytes() for name in EXPECTED}
    # The head of the first picture in the directory, and the archive's end.
    picture = content.rindex(b"set/trainA/0") - 46
    end = content.index(b"PK\5\6")
    for place in (*range(picture, picture + 46), *range(end, len(content))):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            fetch.fetch("set", tmp_path, tmp_path / "out")
            assert {name: (tmp_path / "out" / name).read_bytes() for name in EXPECTED} == pictures


def test_the_command_answers_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch, "HERE", tmp_path / "data")
    monkeypatch.setenv("COOKFIRE_MIRROR", str(tmp_path))
    archive(tmp_path / "horse2zebra.zip", COUNTS | {"testA": 2})
    with pytest.raises(SystemExit) as left:
        fetch.main([])
    assert left.value.code == 2
    assert capsys.readouterr().err.endswith("replace it, or unset COOKFIRE_MIRROR to download\n")
    with pytest.raises(SystemExit):
        fetch.main(["../etc"])
    assert "a set's name is letters" in capsys.readouterr().err


# The tiny set


def test_tiny_horse2zebra_has_known_answers_for_test_pictures_and_none_for_training(
    tmp_path: Path,
) -> None:
    make_tiny_horse2zebra.write(tmp_path)
    read = {
        kind: [np.array(Image.open(path)) for path in sorted((tmp_path / kind).iterdir())]
        for kind in COUNTS
    }
    assert {kind: len(pictures) for kind, pictures in read.items()} == {
        "trainA": 64, "trainB": 64, "testA": 16, "testB": 16
    }  # fmt: skip
    for a, b in zip(read["testA"], read["testB"], strict=True):
        np.testing.assert_array_equal(make_tiny_horse2zebra.translate(a), b)
    answers = {make_tiny_horse2zebra.translate(a).tobytes() for a in read["trainA"]}
    assert not answers & {b.tobytes() for b in read["trainB"]}
