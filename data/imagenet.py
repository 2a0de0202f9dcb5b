"""Check your own copy of ImageNet: ``python -m data.imagenet``.

The copy is in the folder that ``$COOKFIRE_IMAGENET`` names, or in ``imagenet/`` of the folder that
``$COOKFIRE_MIRROR`` names: either ``train/<class>/*.JPEG`` and ``val/<class>/*.JPEG``, or the three
official archives, which are unpacked there (``train/`` and ``val/`` appear beside them). It is
counted, and each image decoded and hashed, into ``data/imagenet.tsv``: what DVC tracks in place of
150 GB. ``data/imagenet`` becomes a link to the folder.

What is interrupted goes on where it was: classes that are unpacked stay, and so do the lines of the
manifest's beginning, ``data/.imagenet.tsv.partial``. Images that can't be decoded are counted and
named; the recipe's parameter ``corrupt`` says what becomes of them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from ._folder import DATASETS, HERE, DataError, extract, reading
from ._images import HEAD, describe, line, read_manifest, scan
from .archive import MIRROR, check_md5

VARIABLE = "COOKFIRE_IMAGENET"
TRAIN, VAL, KIT = (
    "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz",
)  # fmt: skip


def find() -> Path:
    """Return the user's folder.

    Raises:
        DataError: no variable names one.
    """
    if own := os.environ.get(VARIABLE):
        folder = Path(own).expanduser()
    elif mirror := os.environ.get(MIRROR):
        folder = Path(mirror).expanduser() / "imagenet"
    else:
        raise DataError(
            "imagenet can't be downloaded: nobody may pass it on. Get it from image-net.org and "
            f"set {VARIABLE} to its folder, with train/ and val/ or the archives {TRAIN}, {VAL} "
            f"and {KIT}; or run smoke/imagenet, which needs none of it"
        )
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; set {VARIABLE} to that of your ImageNet")
    return folder.resolve()


def unpack(folder: Path, archives: dict[str, str]) -> None:
    """Unpack the official archives in their folder; what is there already stays.

    Raises:
        DataError: one is missing or damaged.
    """
    for split, needed in (("train", [TRAIN]), ("val", [VAL, KIT])):
        if (folder / split).is_dir():
            continue
        for name in needed:
            if not (folder / name).is_file():
                raise DataError(f"{folder}: neither {split}/ nor {name} is there")
            check_md5(folder / name, archives[name], "download it again")
        partial = folder / f".{split}.partial"
        partial.mkdir(exist_ok=True)
        with reading(folder / needed[0]):
            if split == "train":
                _unpack_training(folder / TRAIN, partial)
            else:
                _unpack_validation(folder / VAL, folder / KIT, partial)
        partial.rename(folder / split)


def _unpack_training(archive: Path, folder: Path) -> None:
    """An archive of an archive a class."""
    with (
        tarfile.open(archive) as classes,
        tqdm(total=archive.stat().st_size, unit="B", unit_scale=True, desc="train") as bar,
    ):
        for member in classes:
            if not re.fullmatch(r"\w+\.tar", member.name) or not member.isfile():
                raise DataError(f"{archive}: {member.name!r} is no archive of a class: refused")
            name = Path(member.name).stem
            done, begun = folder / name, folder / f".{name}.partial"
            if not done.is_dir():
                begun.mkdir(exist_ok=True)
                with tarfile.open(member.name, fileobj=classes.extractfile(member)) as images:
                    for image in images:
                        extract(images, image, begun)
                begun.rename(done)
            bar.update(member.size)


def _unpack_validation(archive: Path, kit: Path, folder: Path) -> None:
    """An archive of images, whose labels are in the kit, by their number."""
    labels = _validation_classes(kit)
    with tarfile.open(archive) as images, tqdm(total=len(labels), desc="val") as bar:
        for member in images:
            numbered = re.fullmatch(r"\w+_(\d+)\.JPEG", member.name)
            number = int(numbered[1]) if numbered and member.isfile() else 0
            if not 1 <= number <= len(labels):
                raise DataError(f"{archive}: {member.name!r} is no validation image: refused")
            target = folder / labels[number - 1] / member.name
            if not target.is_file() or target.stat().st_size != member.size:
                target.parent.mkdir(exist_ok=True)
                content = images.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
            bar.update()


def _validation_classes(kit: Path) -> list[str]:
    """Return the class (``n01440764``) of each validation image."""
    from scipy.io import loadmat

    with tarfile.open(kit) as tar:

        def member(ending: str) -> Any:
            return tar.extractfile(next(name for name in tar.getnames() if name.endswith(ending)))

        synsets = loadmat(member("data/meta.mat"), squeeze_me=True)["synsets"]
        classes = {int(synset[0]): str(synset[1]) for synset in synsets}
        truth = member("data/ILSVRC2012_validation_ground_truth.txt").read().split()
    if odd := sorted(name for name in classes.values() if not re.fullmatch(r"\w+", name)):
        raise DataError(f"{kit}: {odd[0]!r} can't name a class: refused")
    return [classes[int(number)] for number in truth]


def write(folder: Path, manifest: Path, expected: dict[str, Any]) -> None:
    """Write the manifest of an unpacked folder, and say what there is.

    Raises:
        DataError: there are not as many classes and images as in the whole.
    """
    partial = manifest.with_name(f".{manifest.name}.partial")
    known = [
        entry
        for entry in read_manifest(partial)
        if (folder / entry.path).is_file() and (folder / entry.path).stat().st_size == entry.bytes
    ]
    entries = []
    with partial.open("w") as file:
        file.write(HEAD)
        # What is known comes first in the order, so a kill here loses nothing that can't be redone.
        for entry in scan(folder, known):
            file.write(line(entry))
            entries.append(entry)
    print(describe(entries), file=sys.stderr)
    for split, count in expected["images"].items():
        mine = [entry.path.split("/")[1] for entry in entries if entry.path.startswith(f"{split}/")]
        for what, found, wanted in (
            ("classes", len(set(mine)), expected["classes"]), ("images", len(mine), count),
        ):  # fmt: skip
            if found != wanted:
                raise DataError(
                    f"{folder / split}: {found:,} {what}, expected {wanted:,}: not the whole "
                    "ImageNet; to train on it as it is, give the recipe --data and --out"
                )
    partial.replace(manifest)


def link(folder: Path, place: Path) -> None:
    """Let ``place`` be a link to ``folder``.

    Raises:
        DataError: something else is there.
    """
    if place.exists() and not place.is_symlink():
        if place.resolve() == folder:
            return
        raise DataError(f"{place}: is there already, and no link; move it away")
    place.unlink(missing_ok=True)
    place.symlink_to(folder, target_is_directory=True)


def main() -> None:
    """Parse the command line; an error is one line and exit code 2."""
    argparse.ArgumentParser(
        prog="python -m data.imagenet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    expected = yaml.safe_load(DATASETS.read_text())["imagenet"]
    try:
        folder = find()
        unpack(folder, expected["archives"])
        write(folder, HERE / "imagenet.tsv", expected)
        link(folder, HERE / "imagenet")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
