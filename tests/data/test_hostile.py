"""Archives, folders and lists that would have a data stage write or read somewhere else."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
import yaml
from PIL import Image

from data import _images, archive, fetch_horse2zebra, fetch_voc, imagenet
from data._folder import DataError

MEMBERS = {
    "../outside.jpg": tarfile.REGTYPE,
    "set/../../outside.jpg": tarfile.REGTYPE,
    "/outside.jpg": tarfile.REGTYPE,
    "set/link": tarfile.SYMTYPE,
    "set/hard": tarfile.LNKTYPE,
    "set/device": tarfile.CHRTYPE,
    "set/pipe": tarfile.FIFOTYPE,
}


def pack(members: dict[str, bytes]) -> bytes:
    """A tar of members of these kinds; links lead to a file outside."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../../secret"
            info.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"any" if info.size else b""))
    return buffer.getvalue()


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def huge_png() -> bytes:
    """The head of a PNG of 100,000 x 100,000 pixels, and a few of them."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    size = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", size), (b"IDAT", zlib.compress(bytes(1000)))):
        parts += [struct.pack(">I", len(content)), kind, content]
        parts.append(struct.pack(">I", zlib.crc32(kind + content)))
    return b"".join(parts)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_leaves_the_folder_or_is_no_file_is_refused_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    content = pack({"set/train/a/1.jpg": tarfile.REGTYPE, name: MEMBERS[name]})
    (mirror / "set.tgz").write_bytes(content)
    described = {"set": {"url": "http://x/set.tgz", "md5": hashlib.md5(content).hexdigest()}}
    (mirror / "datasets.yaml").write_text(yaml.safe_dump(described))
    monkeypatch.setattr(archive, "DATASETS", mirror / "datasets.yaml")
    before = everything(tmp_path)
    with pytest.raises(DataError, match=rf"set.tgz: '{name}' .*: refused") as caught:
        archive.fetch("set", mirror, tmp_path / "deep" / "set")
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == [*before, "deep"] or everything(tmp_path) == ["deep", *before]


@pytest.mark.parametrize("name", ["../{}/x", "{}/link"])
def test_the_archive_of_voc_is_not_trusted_either(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = name.format(f"{fetch_voc.FOLDER}/{fetch_voc.LISTS}")
    content = pack({path: tarfile.SYMTYPE if "link" in name else tarfile.REGTYPE})
    (tmp_path / "voc.tar").write_bytes(content)
    facts = {"archive": "voc.tar", "md5": hashlib.md5(content).hexdigest()}
    monkeypatch.setattr(fetch_voc, "known", lambda _: facts)
    with pytest.raises(DataError, match=rf"voc.tar: '{path}' .*: refused"):
        fetch_voc.fetch_voc2012(tmp_path, tmp_path / "voc2012")
    assert everything(tmp_path) == ["voc.tar"]


def test_a_list_can_not_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\n../../../secret\n")
    with pytest.raises(DataError, match=r"train.txt: '../../../secret' can't name an image"):
        fetch_voc.read_list(tmp_path / "train.txt")


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("../n01.tar", "1.JPEG"), ("....tar", "1.JPEG"), ("n01.tar", "../1.JPEG"), ("n01.tar", "/1")],
)
def test_the_archive_of_imagenet_s_archives_is_not_trusted(
    outer: str, inner: str, tmp_path: Path
) -> None:
    content = pack({inner: tarfile.REGTYPE})
    folder = tmp_path / "imagenet"
    folder.mkdir()
    with tarfile.open(folder / imagenet.TRAIN, "w") as tar:
        info = tarfile.TarInfo(outer)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    md5 = hashlib.md5((folder / imagenet.TRAIN).read_bytes()).hexdigest()
    with pytest.raises(DataError, match=rf"'({outer}|{inner})' .*: refused"):
        imagenet.unpack(folder, {imagenet.TRAIN: md5})
    assert everything(tmp_path)[0] == "imagenet"
    assert not list(tmp_path.rglob("*.JPEG"))


def test_a_zip_that_would_fill_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_horse2zebra, "LARGEST", 1000)
    with zipfile.ZipFile(tmp_path / "horse2zebra.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("horse2zebra/trainA/1.jpg", bytes(1001))
    with pytest.raises(DataError, match=r"1.jpg would be 1,001 bytes, expected .*: refused"):
        fetch_horse2zebra.fetch("horse2zebra", tmp_path, tmp_path / "out")
    assert everything(tmp_path) == ["horse2zebra.zip"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_a_pipe_in_a_mirror_is_not_copied(kind: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    picture = tmp_path / "mirror/horse2zebra/trainA/1.jpg"
    picture.parent.mkdir(parents=True)
    if kind == "link":
        picture.symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(picture)
    with pytest.raises(DataError, match=r"1.jpg: (a link|no file), expected a file"):
        fetch_horse2zebra.fetch("horse2zebra", tmp_path / "mirror", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("link", ["train/a/2.jpg", "train/b"])
def test_a_link_among_images_by_class_is_named(link: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a/1.jpg").write_bytes(b"")
    (tmp_path / link).symlink_to(tmp_path / "val" / "a")
    with pytest.raises(DataError, match=f"{link}: a link, expected the images themselves"):
        _images.images_of(tmp_path)


def test_a_picture_of_ten_gigapixels_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(huge_png())
    assert _images.look(tmp_path, "huge.png").kind == _images.UNREADABLE
    Image.new("RGB", (9, 7)).save(tmp_path / "image.jpg")
    with pytest.raises(DataError, match=r"huge.png or its image: damaged .*decompression bomb"):
        fetch_voc.check_pair(tmp_path / "image.jpg", tmp_path / "huge.png")
