"""Check your own copy of ImageNet: ``python -m data.imagenet``.

The copy is in the folder that ``$COOKFIRE_IMAGENET`` names, or in ``imagenet/`` of the folder that
``$COOKFIRE_MIRROR`` names: either ``train/<class>/*.JPEG`` and ``val/<class>/*.JPEG``, or the three
official archives, which are unpacked there (``train/`` and ``val/`` appear beside them). It is
counted, and each image decoded and hashed, into ``data/imagenet.tsv``: what DVC tracks in place of
150 GB. ``data/imagenet`` becomes a link to the folder.

What is interrupted goes on where it was: classes that are unpacked stay, and images that were
looked at are not looked at again unless they have changed (``data/.imagenet.tsv.partial``). Images
that can't be decoded are counted and named; the recipe's parameter ``corrupt`` says what becomes of
them.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from ._command import answering, mirror_folder, parser
from ._folder import DATASETS, HERE, DataError, check_md5, extract, reading, workshop
from ._images import Entry, describe, images_of, line, scan, write_manifest

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
    elif mirror := mirror_folder():
        folder = mirror / "imagenet"
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
    paths = images_of(folder)
    try:
        check_counts(folder, paths, expected)
    except DataError:
        partial.unlink(missing_ok=True)
        raise
    journal = Journal(partial, folder)
    known = journal.known()
    entries = list(journal.follow(scan(folder, paths, known), known))
    print(describe(entries), file=sys.stderr)
    write_manifest(manifest, entries)
    partial.unlink()


def check_counts(folder: Path, paths: Sequence[str], expected: dict[str, Any]) -> None:
    """Raise DataError unless there are as many classes and images as in the whole."""
    for split, count in expected["images"].items():
        mine = [path.split("/")[1] for path in paths if path.startswith(f"{split}/")]
        for what, found, wanted in (
            ("classes", len(set(mine)), expected["classes"]), ("images", len(mine), count),
        ):  # fmt: skip
            if found != wanted:
                raise DataError(
                    f"{folder / split}: {found:,} {what}, expected {wanted:,}: not the whole "
                    "ImageNet; to train on it as it is, give the recipe --data and --out"
                )


class Journal:
    """What a check of a folder has seen: a line an image, and when that was last changed.

    It is only ever appended to, so that no kill loses what is in it, and it starts anew for another
    folder.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._folder = path, folder
        head = f"{str(folder)!r}\n".encode()
        content = path.read_bytes() if path.is_file() else b""
        if content.startswith(head):
            os.truncate(path, content.rindex(b"\n") + 1)  # less a line that was cut short
        else:
            path.write_bytes(head)

    def known(self) -> dict[str, Entry]:
        """Return what was seen of images that are as they were, by path."""
        found = {}
        for row in self._path.read_text(errors="replace").splitlines()[1:]:
            with suppress(OSError, ValueError):  # the image is gone; or a power cut spoilt the line
                path, size, sha256, kind, modified = row.split("\t")
                status = (self._folder / path).stat()
                if (status.st_size, status.st_mtime_ns) == (int(size), int(modified)):
                    found[path] = Entry(path, int(size), sha256, kind, int(modified))
        return found

    def follow(self, entries: Iterable[Entry], known: Container[str]) -> Iterator[Entry]:
        """Iterate over entries, and append those that are not ``known``."""
        with self._path.open("a") as file:
            for entry in entries:
                if entry.path not in known:
                    file.write(f"{line(entry)[:-1]}\t{entry.modified}\n")
                yield entry


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


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and check the folder."""
    parser("imagenet", __doc__).parse_args(argv)
    expected = yaml.safe_load(DATASETS.read_text())["imagenet"]
    place = HERE / "imagenet"
    with answering(place), workshop(place):  # for being alone in the user's folder
        folder = find()
        unpack(folder, expected["archives"])
        write(folder, HERE / "imagenet.tsv", expected)
        link(folder, place)


if __name__ == "__main__":
    main()
