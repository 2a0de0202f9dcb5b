"""Pascal VOC's stages: the official set, the SBD beside it, and what is not taken for either."""

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
from torchvision.datasets import SBDataset, VOCSegmentation
from torchvision.datasets.voc import DATASET_YEAR_DICT

from data import _folder, fetch_voc, make_tiny_voc

NAMES = {"train": ["a", "b", "c"], "val": ["d", "e"]}


def write_voc(mirror: Path) -> Path:
    root = mirror / fetch_voc.FOLDER
    for part in (fetch_voc.IMAGES, fetch_voc.MASKS, fetch_voc.LISTS):
        (root / part).mkdir(parents=True)
    for split, names in NAMES.items():
        (root / fetch_voc.LISTS / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            write_pair(root, name)
    write_pair(root, "not_segmented")
    (root / fetch_voc.MASKS / "not_segmented.png").unlink()
    return root


def write_pair(root: Path, name: str) -> None:
    Image.new("RGB", (9, 7)).save(root / fetch_voc.IMAGES / f"{name}.jpg")
    Image.new("L", (9, 7), 5).save(root / fetch_voc.MASKS / f"{name}.png")


def pack(root: Path, archive: Path, name: str) -> Path:
    with tarfile.open(archive, "w:gz" if archive.suffix == ".tgz" else "w") as tar:
        tar.add(root, name)
    return archive


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def facts(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, object]]:
    """Let the official set be three and two pairs; nothing is downloaded."""
    known = {name: dict(fetch_voc.known(name)) for name in ("voc2012", "sbd")}
    for values in known.values():
        for key in values:
            if key.endswith("url"):
                values[key] = "http://127.0.0.1:9/nothing"
    known["voc2012"] |= {split: len(names) for split, names in NAMES.items()}
    monkeypatch.setattr(fetch_voc, "known", known.__getitem__)
    return known


def names_in(folder: Path) -> set[str]:
    return {path.stem for path in (folder / fetch_voc.FOLDER / fetch_voc.IMAGES).iterdir()}


@pytest.mark.parametrize("packed", [True, False])
def test_of_a_mirror_the_segmented_images_are_taken(
    tmp_path: Path, facts: dict[str, dict[str, object]], packed: bool
) -> None:
    mirror = tmp_path / "mirror"
    root = write_voc(mirror)
    if packed:
        archive = pack(root, mirror / str(facts["voc2012"]["archive"]), fetch_voc.FOLDER)
        facts["voc2012"]["md5"] = md5(archive)
    fetch_voc.fetch_voc2012(mirror, tmp_path / "voc2012")
    assert names_in(tmp_path / "voc2012") == {*NAMES["train"], *NAMES["val"]}
    assert len(VOCSegmentation(tmp_path / "voc2012", year="2012", image_set="train")) == 3


def test_an_archive_that_is_not_the_published_one_is_refused(
    tmp_path: Path, facts: dict[str, dict[str, object]]
) -> None:
    root = write_voc(tmp_path)
    pack(root, tmp_path / str(facts["voc2012"]["archive"]), fetch_voc.FOLDER)
    with pytest.raises(_folder.DataError, match=r"2012\.tar: md5 is \w+, expected 6cd6e1"):
        fetch_voc.fetch_voc2012(tmp_path, tmp_path / "voc2012")


def test_some_of_its_images_are_not_the_official_set_and_the_way_to_use_them_is_named(
    tmp_path: Path,
) -> None:
    root = write_voc(tmp_path)
    (root / fetch_voc.LISTS / "val.txt").write_text("d\n")
    with pytest.raises(_folder.DataError, match=r"val\.txt: names 1 images, .* list 2") as caught:
        fetch_voc.fetch_voc2012(tmp_path, tmp_path / "voc2012")
    assert f"--profile small --data {tmp_path} --out DIR" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "voc2012").exists()


@pytest.mark.parametrize(
    "lists", [{"train": ["a", "a", "a"]}, {"val": ["d", "d"]}, {"val": ["d", "a"]}]
)
def test_as_many_names_of_fewer_images_are_not_the_official_set(
    tmp_path: Path, lists: dict[str, list[str]]
) -> None:
    root = write_voc(tmp_path)
    for split, names in lists.items():
        (root / fetch_voc.LISTS / f"{split}.txt").write_text("\n".join(names))
    with pytest.raises(_folder.DataError, match=r"\.txt: [ad] is on the lists twice, .* not VOC2"):
        fetch_voc.fetch_voc2012(tmp_path, tmp_path / "voc2012")
    assert not (tmp_path / "voc2012").exists()


@pytest.mark.parametrize(
    ("value", "mode", "size", "message"),
    [
        (5, "L", (7, 9), r"b\.png: 7x9 pixels, but its image has 9x7"),
        (21, "L", (9, 7), r"b\.png: class 21, expected 0 to 20, or 255"),
        (0, "RGB", (9, 7), r"b\.png: a mask of mode RGB"),
        (None, "", (9, 7), r"b\.png: no such file"),
    ],
)
def test_a_mask_that_does_not_fit_is_named_by_the_stage(
    tmp_path: Path, value: int | None, mode: str, size: tuple[int, int], message: str
) -> None:
    mask = write_voc(tmp_path) / fetch_voc.MASKS / "b.png"
    mask.unlink()
    if value is not None:
        Image.new(mode, size, value).save(mask)
    with pytest.raises(_folder.DataError, match=message):
        fetch_voc.fetch_voc2012(tmp_path, tmp_path / "voc2012")
    assert not (tmp_path / "voc2012").exists()


def test_data_that_can_not_be_had_names_what_was_tried_and_both_ways_on(tmp_path: Path) -> None:
    with pytest.raises(_folder.DataError) as caught:
        fetch_voc.fetch_voc2012(tmp_path, tmp_path / "voc2012")
    text = str(caught.value)
    assert f"COOKFIRE_MIRROR has no {tmp_path}/VOCtrainval_11-May-2012.tar" in text
    assert "Either put VOCtrainval_11-May-2012.tar into a folder and set COOKFIRE_MIRROR" in text
    assert "smoke/voc_segmentation" in text
    assert "\n" not in text


def write_sbd(folder: Path, names: list[str]) -> None:
    for part in ("img", "cls"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (9, 7)).save(folder / "img" / f"{name}.jpg")
        content = io.BytesIO()
        mask = np.full((7, 9), 3, np.uint8)
        savemat(content, {"GTcls": {"Segmentation": mask}})
        (folder / "cls" / f"{name}.mat").write_bytes(content.getvalue())


def test_the_sbd_adds_images_and_keeps_voc_s_own_masks(
    tmp_path: Path, facts: dict[str, dict[str, object]]
) -> None:
    write_voc(tmp_path / "mirror")
    fetch_voc.fetch_voc2012(tmp_path / "mirror", tmp_path / "voc2012")
    write_sbd(tmp_path / "dataset", ["a", "x", "y", "other"])
    beside = tmp_path / "mirror" / "sbd"
    beside.mkdir()
    archive = pack(tmp_path / "dataset", beside / "benchmark.tgz", "benchmark_RELEASE/dataset")
    (beside / "train_noval.txt").write_text("a\nx\ny\n")
    facts["sbd"] |= {"md5": md5(archive), "list_md5": md5(beside / "train_noval.txt")}
    fetch_voc.fetch_sbd(tmp_path / "mirror", tmp_path / "voc2012", tmp_path / "sbd")
    assert names_in(tmp_path / "sbd") == {"a", "b", "c", "d", "e", "x", "y"}
    root = tmp_path / "sbd" / fetch_voc.FOLDER
    assert fetch_voc.read_list(root / fetch_voc.LISTS / "trainaug.txt") == ["a", "b", "c", "x", "y"]
    for name, value in (("a", 5), ("x", 3)):
        with Image.open(root / fetch_voc.MASKS / f"{name}.png") as mask:
            assert (np.asarray(mask) == value).all()

    (beside / "train_noval.txt").write_text("d\n")
    facts["sbd"]["list_md5"] = md5(beside / "train_noval.txt")
    with pytest.raises(_folder.DataError, match="d: among the SBD's images to train on and VOC's"):
        fetch_voc.fetch_sbd(tmp_path / "mirror", tmp_path / "voc2012", tmp_path / "sbd")


def test_addresses_and_md5s_are_those_that_torchvision_publishes() -> None:
    stated = yaml.safe_load(_folder.DATASETS.read_text())
    theirs = DATASET_YEAR_DICT["2012"]
    ours = stated["voc2012"]
    assert (ours["url"], ours["archive"], ours["md5"]) == (
        theirs["url"], theirs["filename"], theirs["md5"],
    )  # fmt: skip
    ours = stated["sbd"]
    assert (ours["url"], ours["archive"], ours["md5"]) == (
        SBDataset.url, SBDataset.filename, SBDataset.md5,
    )  # fmt: skip
    assert (ours["list_url"], ours["list"], ours["list_md5"]) == (
        SBDataset.voc_train_url, SBDataset.voc_split_filename, SBDataset.voc_split_md5,
    )  # fmt: skip


def test_tiny_voc_has_every_class_in_both_lists_void_and_odd_sizes(tmp_path: Path) -> None:
    make_tiny_voc.write(tmp_path)
    sizes = set()
    for split, count in make_tiny_voc.COUNTS.items():
        data = VOCSegmentation(tmp_path, year="2012", image_set=split)
        assert len(data) == count
        seen: set[int] = set()
        for image, mask in (data[place] for place in range(count)):
            assert mask.mode == "P"
            assert image.size == mask.size
            sizes.add(image.size)
            seen |= set(np.unique(np.asarray(mask)).tolist())
        assert seen == {*range(21), 255}
    assert len(sizes) > 50
    root = tmp_path / fetch_voc.FOLDER
    fetch_voc.check_pairs(root, fetch_voc.read_list(root / fetch_voc.LISTS / "train.txt"))
