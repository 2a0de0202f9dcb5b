"""The data stages of images by class: ImageNet's check, archives, and the tiny set."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.io import savemat

from data import _images, archive, imagenet, make_tiny_imagenet
from data._folder import DataError

CLASSES = ["n01", "n02"]
EXPECTED = {"classes": 2, "images": {"train": 4, "val": 3}}


def jpeg(value: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (9, 7), value if mode == "L" else (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def pack(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def official(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder with the three archives, made small, and their md5s."""
    classes = {
        f"{name}.tar": pack({f"{name}_{number}.JPEG": jpeg(40 * number) for number in (1, 2)})
        for name in CLASSES
    }
    val = {f"ILSVRC2012_val_0000000{number}.JPEG": jpeg(number) for number in (1, 2, 3)}
    synsets = np.array([(2, "n02"), (1, "n01")], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n1\n",
    }
    folder, md5s = tmp_path / "ilsvrc", {}
    folder.mkdir()
    for name, content in (
        (imagenet.TRAIN, pack(classes)),
        (imagenet.VAL, pack(val)),
        (imagenet.KIT, pack(kit, "w:gz")),
    ):
        (folder / name).write_bytes(content)
        md5s[name] = hashlib.md5(content).hexdigest()
    return folder, md5s


def test_the_official_archives_are_unpacked_where_a_kill_left_them(
    official: tuple[Path, dict[str, str]],
) -> None:
    folder, md5s = official
    done = folder / ".train.partial" / "n01"
    done.mkdir(parents=True)
    (done / "n01_1.JPEG").write_bytes(b"was unpacked before")
    (folder / ".train.partial" / ".n02.partial").mkdir()
    imagenet.unpack(folder, md5s)
    assert (folder / "train/n01/n01_1.JPEG").read_bytes() == b"was unpacked before"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("[tv]*/*/*"))
    assert names == [
        "train/n01/n01_1.JPEG", "train/n02/n02_1.JPEG", "train/n02/n02_2.JPEG",
        "val/n01/ILSVRC2012_val_00000001.JPEG", "val/n01/ILSVRC2012_val_00000003.JPEG",
        "val/n02/ILSVRC2012_val_00000002.JPEG",
    ]  # fmt: skip
    assert not list(folder.glob(".*"))


def test_a_damaged_or_missing_archive_is_named(official: tuple[Path, dict[str, str]]) -> None:
    folder, md5s = official
    with pytest.raises(DataError, match=r"img_val.tar: md5 is .* expected 0; download it again"):
        imagenet.unpack(folder, {**md5s, imagenet.VAL: "0"})
    assert (folder / "train").is_dir()
    (folder / imagenet.KIT).unlink()
    with pytest.raises(DataError, match=r"neither val/ nor ILSVRC2012_devkit_t12.tar.gz is there"):
        imagenet.unpack(folder, md5s)


def test_a_manifest_has_each_image_and_names_what_is_odd(
    official: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, md5s = official
    imagenet.unpack(folder, md5s)
    (folder / "train/n01/n01_1.JPEG").write_bytes(jpeg(1)[:-30])
    (folder / "train/n01/n01_2.JPEG").write_bytes(jpeg(1, "L"))
    manifest = tmp_path / "imagenet.tsv"
    imagenet.write(folder, manifest, EXPECTED)
    rows = _images.read_manifest(manifest)
    assert [row.kind for row in rows] == ["unreadable", "grayscale", *["rgb"] * 5]
    for row in rows:
        content = (folder / row.path).read_bytes()
        assert (row.bytes, row.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    said = capsys.readouterr().err
    assert "train: 4 images of 2 classes" in said
    assert "unreadable: 1: train/n01/n01_1.JPEG" in said

    # What an interrupted check has seen is not looked at again, but for a line cut short.
    lines = manifest.read_text().splitlines(keepends=True)
    partial = manifest.with_name(f".{manifest.name}.partial")
    partial.write_text("".join(lines[:4]) + lines[4][:-3])
    looked = []
    look = _images.look
    monkeypatch.setattr(_images, "look", lambda at, path: looked.append(path) or look(at, path))
    imagenet.write(folder, manifest, EXPECTED)
    assert sorted(looked) == [row.path for row in rows[3:]]
    assert manifest.read_text() == "".join(lines)


def test_a_part_of_imagenet_is_not_taken_for_it(
    official: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, md5s = official
    imagenet.unpack(folder, md5s)
    with pytest.raises(DataError, match=r"train: 4 images, expected 5: not the whole ImageNet"):
        imagenet.write(folder, tmp_path / "m.tsv", {"classes": 2, "images": {"train": 5}})
    assert not (tmp_path / "m.tsv").exists()


def test_imagenet_s_folder_is_found_and_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COOKFIRE_MIRROR", raising=False)
    monkeypatch.delenv("COOKFIRE_IMAGENET", raising=False)
    with pytest.raises(DataError, match="imagenet can't be downloaded: .* set COOKFIRE_IMAGENET"):
        imagenet.find()
    monkeypatch.setenv("COOKFIRE_MIRROR", str(tmp_path))
    with pytest.raises(DataError, match="imagenet: no such folder; set COOKFIRE_IMAGENET"):
        imagenet.find()
    (tmp_path / "imagenet").mkdir()
    for _ in range(2):
        imagenet.link(imagenet.find(), tmp_path / "link")
    assert (tmp_path / "link").resolve() == (tmp_path / "imagenet").resolve()
    (tmp_path / "full").mkdir()
    with pytest.raises(DataError, match="full: is there already, and no link"):
        imagenet.link(imagenet.find(), tmp_path / "full")


@pytest.mark.parametrize("inside", ["set/train/a/1.JPEG", "train/a/1.JPEG"])
def test_an_archive_of_the_mirror_is_checked_and_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    content = pack({inside: b"1", inside.replace("train", "val"): b"2"}, "w:gz")
    (tmp_path / "set.tgz").write_bytes(content)
    described = {"set": {"url": "http://x/set.tgz", "md5": hashlib.md5(content).hexdigest()}}
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(described))
    monkeypatch.setattr(archive, "DATASETS", tmp_path / "datasets.yaml")
    archive.fetch("set", tmp_path, tmp_path / "data")
    assert (tmp_path / "data/train/a/1.JPEG").read_bytes() == b"1"
    assert (tmp_path / "data/val/a/1.JPEG").read_bytes() == b"2"
    (tmp_path / "set.tgz").write_bytes(content + b" ")
    with pytest.raises(DataError, match=r"set.tgz: md5 is .*; replace it, or unset"):
        archive.fetch("set", tmp_path, tmp_path / "data")


def test_an_archive_that_can_not_be_had_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    for mirror, tried in ((None, "is not set"), (tmp_path, "has no .*imagenette2-320.tgz")):
        with pytest.raises(
            DataError, match=f"COOKFIRE_MIRROR {tried}, and the download of .*no net"
        ):
            archive.fetch("imagenette", mirror, tmp_path / "imagenette")
    assert not list(tmp_path.iterdir())


def test_the_tiny_set_has_a_corrupt_image_and_a_grayscale_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny_imagenet.write(tmp_path)
    kinds = {row.path: row.kind for row in _images.read_manifest(tmp_path / _images.MANIFEST)}
    assert len(kinds) == 340
    odd = {path: kind for path, kind in kinds.items() if kind != "rgb"}
    assert odd == {
        make_tiny_imagenet.CUT_SHORT: "unreadable", make_tiny_imagenet.GRAYSCALE: "grayscale"
    }  # fmt: skip
    assert f"unreadable: 1: {make_tiny_imagenet.CUT_SHORT}" in capsys.readouterr().err
