"""The data stages of images by class: ImageNet's check, archives, and the tiny set."""

from __future__ import annotations

import hashlib
import io
import shutil
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


def rows(manifest: Path) -> dict[str, list[str]]:
    """Size, hash and kind by path."""
    head, *lines = [line.split("\t") for line in manifest.read_text().splitlines()]
    assert head == ["path", "bytes", "sha256", "kind"]
    return {path: values for path, *values in lines}


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
    official: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    folder, md5s = official
    imagenet.unpack(folder, md5s)
    (folder / "train/n01/n01_1.JPEG").write_bytes(jpeg(1)[:-30])
    (folder / "train/n01/n01_2.JPEG").write_bytes(jpeg(1, "L"))
    manifest = tmp_path / "imagenet.tsv"
    imagenet.write(folder, manifest, EXPECTED)
    found = rows(manifest)
    assert [kind for _, _, kind in found.values()] == ["unreadable", "grayscale", *["rgb"] * 5]
    for path, (size, digest, _) in found.items():
        content = (folder / path).read_bytes()
        assert (int(size), digest) == (len(content), hashlib.sha256(content).hexdigest())
    said = capsys.readouterr().err
    assert "train: 4 images of 2 classes" in said
    assert "unreadable: 1: train/n01/n01_1.JPEG" in said
    assert {path.name for path in tmp_path.iterdir()} == {"ilsvrc", "imagenet.tsv"}


class Interrupted:
    """A check of an unpacked folder that is killed after three images; what is looked at then."""

    def __init__(self, folder: Path, manifest: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.manifest = folder, manifest
        self.partial = manifest.with_name(f".{manifest.name}.partial")
        self.looked: list[str] = []
        self.look = _images.look
        patch.setattr(_images, "look", self._look)
        self.stop = 3
        with pytest.raises(KeyboardInterrupt):
            imagenet.write(folder, manifest, EXPECTED)
        self.paths = _images.images_of(folder)

    def _look(self, folder: Path, path: str) -> _images.Entry:
        if len(self.looked) == self.stop:
            raise KeyboardInterrupt
        self.looked.append(path)
        return self.look(folder, path)

    def go_on(self, folder: Path | None = None, stop: int = 99) -> list[str]:
        self.looked, self.stop = [], stop
        if stop < 99:
            with pytest.raises(KeyboardInterrupt):
                imagenet.write(folder or self.folder, self.manifest, EXPECTED)
        else:
            imagenet.write(folder or self.folder, self.manifest, EXPECTED)
        return sorted(self.looked)


@pytest.fixture
def interrupted(
    official: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Interrupted:
    folder, md5s = official
    imagenet.unpack(folder, md5s)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # one after the other
    return Interrupted(folder, tmp_path / "imagenet.tsv", monkeypatch)


def test_what_an_interrupted_check_has_seen_is_not_looked_at_again(
    interrupted: Interrupted,
) -> None:
    assert interrupted.go_on() == interrupted.paths[3:]
    resumed = interrupted.manifest.read_text()
    assert interrupted.go_on() == interrupted.paths
    assert interrupted.manifest.read_text() == resumed


def test_a_second_kill_loses_nothing_and_a_line_cut_short_is_looked_at_again(
    interrupted: Interrupted,
) -> None:
    assert interrupted.go_on(stop=0) == []
    content = interrupted.partial.read_bytes()
    interrupted.partial.write_bytes(content[:-3])
    assert interrupted.go_on(stop=2) == interrupted.paths[2:4]
    assert interrupted.go_on() == interrupted.paths[4:]


def test_an_image_that_has_changed_since_is_looked_at_again(interrupted: Interrupted) -> None:
    first, second, third, *others = interrupted.paths
    image = interrupted.folder / first
    image.write_bytes(bytes(image.stat().st_size))  # as many bytes, but no image
    (interrupted.folder / second).write_bytes(jpeg(9))
    assert interrupted.go_on() == [first, second, *others]
    kinds = [kind for _, _, kind in rows(interrupted.manifest).values()]
    assert kinds == ["unreadable", *["rgb"] * 6]
    assert third not in interrupted.looked


def test_another_folder_is_looked_at_as_a_whole(interrupted: Interrupted, tmp_path: Path) -> None:
    shutil.copytree(interrupted.folder, tmp_path / "other")  # with the same times
    assert interrupted.go_on(tmp_path / "other") == interrupted.paths


def test_what_a_power_cut_spoilt_is_passed_over(interrupted: Interrupted) -> None:
    with interrupted.partial.open("ab") as file:
        file.write(bytes(99) + b"\n")
    assert interrupted.go_on() == interrupted.paths[3:]
    assert len(rows(interrupted.manifest)) == 7


def test_a_part_of_imagenet_is_not_taken_for_it_and_nothing_of_it_is_kept(
    interrupted: Interrupted,
) -> None:
    assert interrupted.partial.exists()
    interrupted.looked = []
    expected = {"classes": 2, "images": {"train": 5}}
    with pytest.raises(DataError, match=r"train: 4 images, expected 5: not the whole ImageNet"):
        imagenet.write(interrupted.folder, interrupted.manifest, expected)
    assert interrupted.looked == []  # which would take hours
    assert not interrupted.partial.exists()
    assert not interrupted.manifest.exists()


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
            DataError, match=f"COOKFIRE_MIRROR {tried}, and the download from .*no net"
        ):
            archive.fetch("imagenette", mirror, tmp_path / "imagenette")
    assert not list(tmp_path.iterdir())


def test_the_tiny_set_has_a_corrupt_image_and_a_grayscale_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny_imagenet.write(tmp_path)
    kinds = {path: row[-1] for path, row in rows(tmp_path / _images.MANIFEST).items()}
    assert len(kinds) == 340
    odd = {path: kind for path, kind in kinds.items() if kind != "rgb"}
    assert odd == {
        make_tiny_imagenet.CUT_SHORT: "unreadable", make_tiny_imagenet.GRAYSCALE: "grayscale"
    }  # fmt: skip
    assert f"unreadable: 1: {make_tiny_imagenet.CUT_SHORT}" in capsys.readouterr().err
