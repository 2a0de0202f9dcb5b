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


def huge_jpeg() -> bytes:
    """A JPEG of 65,000 x 65,000 pixels, as large as its head can say, of a few bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7)).save(buffer, "JPEG")
    content = bytearray(buffer.getvalue())
    size = content.index(b"\xff\xc0") + 5  # after the marker, a length and the bits of a sample
    content[size : size + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(content)


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
    with pytest.raises(DataError, match=r"'1.jpg' would be 1,001 bytes, expected .*: refused"):
        fetch_horse2zebra.fetch("horse2zebra", tmp_path, tmp_path / "out")
    assert everything(tmp_path) == ["horse2zebra.zip"]


@pytest.mark.parametrize("damage", ["encrypted", "unusual"])
def test_a_zip_that_can_not_be_read_without_more_is_refused_by_a_picture_s_name(
    damage: str, tmp_path: Path
) -> None:
    method = zipfile.ZIP_LZMA if damage == "unusual" else zipfile.ZIP_STORED
    path = tmp_path / "horse2zebra.zip"
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("horse2zebra/trainA/1.jpg", b"any")
    if damage == "encrypted":
        content = bytearray(path.read_bytes())
        for head, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            content[content.index(head) + flags] |= 1
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"'horse2zebra/trainA/1.jpg' is encrypted or .*: refused"):
        fetch_horse2zebra.fetch("horse2zebra", tmp_path, tmp_path / "out")
    assert everything(tmp_path) == ["horse2zebra.zip"]


@pytest.mark.parametrize("odd", ["horse2zebra", "horse2zebra/trainA", "horse2zebra/trainA/1.jpg"])
def test_a_link_in_a_mirror_is_not_followed(odd: str, tmp_path: Path) -> None:
    picture = tmp_path / "mirror/horse2zebra/trainA/1.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"mine")
    (tmp_path / "mirror" / odd).rename(tmp_path / "elsewhere")
    (tmp_path / "mirror" / odd).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"mirror/{odd}: a link, which may lead anywhere: refused"):
        fetch_horse2zebra.fetch("horse2zebra", tmp_path / "mirror", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_not_a_file_in_a_mirror_is_not_copied(kind: str, tmp_path: Path) -> None:
    picture = tmp_path / "mirror/horse2zebra/trainA/1.jpg"
    picture.parent.mkdir(parents=True)
    os.mkfifo(picture) if kind == "pipe" else picture.mkdir()
    with pytest.raises(DataError, match=r"1.jpg: not a file, expected a file"):
        fetch_horse2zebra.fetch("horse2zebra", tmp_path / "mirror", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("odd", ["", "ImageSets", f"{fetch_voc.LISTS}/val.txt", "JPEGImages/a.jpg"])
def test_a_link_in_a_copy_of_voc_is_not_followed(
    odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"archive": "voc.tar", "train": 1, "val": 1}
    monkeypatch.setattr(fetch_voc, "known", lambda _: facts)
    root = tmp_path / "mirror" / fetch_voc.FOLDER
    for path in (fetch_voc.LISTS, fetch_voc.IMAGES, fetch_voc.MASKS):
        (root / path).mkdir(parents=True)
    for split, name in (("train", "a"), ("val", "b")):
        (root / fetch_voc.LISTS / f"{split}.txt").write_text(name)
        Image.new("L", (9, 7)).save(root / fetch_voc.IMAGES / f"{name}.jpg")
        Image.new("L", (9, 7)).save(root / fetch_voc.MASKS / f"{name}.png")
    fetch_voc.fetch_voc2012(tmp_path / "mirror", tmp_path / "out")
    (root / odd).rename(tmp_path / "elsewhere")
    (root / odd).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"2012/?{odd}: a link, which may lead anywhere: refused"):
        fetch_voc.fetch_voc2012(tmp_path / "mirror", tmp_path / "out")


@pytest.mark.parametrize("link", ["train/a/2.jpg", "train/b"])
def test_a_link_among_images_by_class_is_named(link: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a/1.jpg").write_bytes(b"")
    (tmp_path / link).symlink_to(tmp_path / "val" / "a")
    with pytest.raises(DataError, match=f"{link}: a link, expected the images themselves"):
        _images.images_of(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_named_like_an_image_but_is_no_file_is_not_read(kind: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a/1.jpg").write_bytes(b"")
    odd = tmp_path / "train/a/2.JPEG"
    os.mkfifo(odd) if kind == "pipe" else odd.mkdir()
    with pytest.raises(DataError, match=r"train/a/2.JPEG: not a file, expected an image"):
        _images.images_of(tmp_path)


@pytest.mark.parametrize("name", ["a\tb.jpg", "a\nb.jpg", os.fsdecode(b"\xff.jpg")])
def test_a_name_that_would_spoil_the_manifest_is_refused(name: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / name).write_bytes(b"")
    with pytest.raises(DataError, match="no name for an image or a class") as caught:
        _images.images_of(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["huge.png", "huge.jpg"])
def test_a_picture_of_gigapixels_is_not_decoded(name: str, tmp_path: Path) -> None:
    content = huge_png() if name.endswith("png") else huge_jpeg()
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / name).write_bytes(content)
    seen = list(_images.scan(tmp_path, _images.images_of(tmp_path)))
    assert {entry.kind for entry in seen} == {_images.UNREADABLE}
    assert f"unreadable: 2: train/a/{name}, val/a/{name}" in _images.describe(seen)

    small = Image.new("L", (9, 7))
    small.save(tmp_path / "small.png")
    (tmp_path / name).write_bytes(content)
    for image, mask in (("small.png", name), (name, "small.png")):
        with pytest.raises(DataError, match=r"or its image: damaged .*decompression bomb") as told:
            fetch_voc.check_pair(tmp_path / image, tmp_path / mask)
        assert str(told.value).startswith(str(tmp_path / mask))
