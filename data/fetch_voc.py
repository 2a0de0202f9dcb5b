"""Put Pascal VOC's segmentation into this folder: ``python -m data.fetch_voc voc2012`` (or sbd).

``voc2012`` is the official set: 1,464 images to train on and 1,449 to measure, with their masks.
It comes from the folder that ``$COOKFIRE_MIRROR`` names, if ``VOCtrainval_11-May-2012.tar`` or
``VOCdevkit/VOC2012`` is in it, else from the upstream address. ``sbd`` is the same with the list
``trainaug``: also the images of ``train_noval`` of the Semantic Boundaries Dataset, which has none
of those to measure; of the mirror it takes ``sbd/benchmark.tgz`` and ``sbd/train_noval.txt``.

Archives must have the md5s in ``datasets.yaml``, a folder's lists the numbers of images there, and
every mask must fit its image. A smaller set is never taken for the official one.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import shutil
import socket
import sys
import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from tqdm import tqdm

from ._folder import DATASETS, HERE, DataError, extract, plain, reading, replace_folder

FOLDER = "VOCdevkit/VOC2012"
IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
CLASSES, VOID = 21, 255
MIRROR = "COOKFIRE_MIRROR"
PATIENCE = 30.0  # seconds that a silent server is waited for; torchvision would wait for ever
SUBSET = (
    "train on them by `python -m recipes.voc_segmentation.train --profile small --data {} --out "
    "DIR`, and call the result what it is"
)


def known(name: str) -> dict[str, str | int]:
    """Return what ``datasets.yaml`` says of a data set: addresses, md5s, numbers of images."""
    return dict(yaml.safe_load(DATASETS.read_text())[name])


def fetch_voc2012(mirror: Path | None, destination: Path) -> None:
    """Write the official set to the folder ``destination``.

    Raises:
        DataError: it can't be had, or what is there is not the official set.
    """
    facts = known("voc2012")
    archive = None if mirror is None else mirror / str(facts["archive"])
    if archive is not None and archive.is_file():
        check_md5(archive, str(facts["md5"]))
        replace_folder(destination, lambda folder: unpack_voc(archive, folder, facts))
        return
    unpacked = None if mirror is None else mirror / FOLDER
    if mirror is not None and unpacked is not None and unpacked.is_dir():
        check_counts(unpacked, facts, SUBSET.format(mirror))
        replace_folder(destination, lambda folder: copy_voc(unpacked, folder))
        return

    def fill(folder: Path) -> None:
        path = download("voc2012", facts, "url", "archive", "md5", folder, mirror)
        unpack_voc(path, folder, facts)
        path.unlink()

    replace_folder(destination, fill)


def check_counts(root: Path, facts: Mapping[str, str | int], advice: str) -> None:
    """Raise DataError, with ``advice``, unless the lists name as many images as the official."""
    for split in ("train", "val"):
        found = len(read_list(root / LISTS / f"{split}.txt"))
        if found != facts[split]:
            raise DataError(
                f"{root / LISTS / split}.txt: names {found:,} images, the official list "
                f"{facts[split]:,}: these are not VOC2012, but some of its images; {advice}"
            )


def unpack_voc(archive: Path, folder: Path, facts: Mapping[str, str | int]) -> None:
    """Unpack what segmentation needs of the official archive, and check every pair."""
    root = folder / FOLDER
    with reading(archive), tarfile.open(archive) as tar:
        for member in tar:
            if f"/{LISTS}/" in f"/{member.name}" or f"/{MASKS}/" in f"/{member.name}":
                extract(tar, member, folder)
    check_counts(root, facts, "fetch the archive again")
    names = {name for split in ("train", "val") for name in read_list(_list(root, split))}
    with reading(archive), tarfile.open(archive) as tar:
        for member in tar:
            path = Path(member.name)
            if path.parent.name == IMAGES and path.stem in names:
                extract(tar, member, folder)
    check_pairs(root, sorted(names))


def copy_voc(source: Path, folder: Path) -> None:
    """Copy lists, and the images and masks that they name; check every pair."""
    root = folder / FOLDER
    for part in (IMAGES, MASKS, LISTS):
        (root / part).mkdir(parents=True)
    names: list[str] = []
    for split in ("train", "val"):
        shutil.copy(plain(_list(source, split)), _list(root, split))
        names += read_list(_list(source, split))
    for name in names:
        for part, ending in ((IMAGES, "jpg"), (MASKS, "png")):
            path = source / part / f"{name}.{ending}"
            if not path.is_file():
                raise DataError(f"{path}: no such file, but a list names it")
            shutil.copy(plain(path), root / part)
    check_pairs(root, names)


def fetch_sbd(mirror: Path | None, voc2012: Path, destination: Path) -> None:
    """Write VOC2012 with the SBD's images and masks, and the list ``trainaug``, to a folder.

    Args:
        mirror: may hold ``sbd/benchmark.tgz`` and ``sbd/train_noval.txt``.
        voc2012: the official set.
        destination: the folder.
    """
    facts = known("sbd")

    def fill(folder: Path) -> None:
        copy_voc(voc2012 / FOLDER, folder)
        found = {}
        for kind, md5 in (("archive", "md5"), ("list", "list_md5")):
            beside = None if mirror is None else mirror / "sbd" / str(facts[kind])
            if beside is not None and beside.is_file():
                check_md5(beside, str(facts[md5]))
                found[kind] = beside
            else:
                url = "url" if kind == "archive" else "list_url"
                found[kind] = download("sbd", facts, url, kind, md5, folder, mirror)
        add_sbd(found["archive"], read_list(found["list"]), folder / FOLDER)
        for path in found.values():
            if path.is_relative_to(folder):
                path.unlink()

    replace_folder(destination, fill)


def add_sbd(archive: Path, names: list[str], root: Path) -> None:
    """Add the SBD's images of these names, and their masks as PNGs; write ``trainaug.txt``."""
    from scipy.io import loadmat  # comes with scikit-learn

    official = {split: read_list(_list(root, split)) for split in ("train", "val")}
    if leaked := sorted(set(names) & set(official["val"])):
        raise DataError(f"{leaked[0]}: among the SBD's images to train on and VOC's to measure")
    added = set(names) - set(official["train"])  # where both have a mask, VOC's is the finer one
    with reading(archive), tarfile.open(archive) as tar:
        for member in tar:
            path = Path(member.name)
            if not member.isfile() or path.stem not in added:
                continue
            file = tar.extractfile(member)
            content = b"" if file is None else file.read()
            if path.parent.name == "img":
                (root / IMAGES / path.name).write_bytes(content)
            elif path.parent.name == "cls":
                mask = loadmat(BytesIO(content))["GTcls"][0]["Segmentation"][0]
                Image.fromarray(mask).save(root / MASKS / f"{path.stem}.png")
    check_pairs(root, sorted(added))
    lines = sorted({*official["train"], *added})
    _list(root, "trainaug").write_text("".join(f"{name}\n" for name in lines))


def read_list(path: Path) -> list[str]:
    """Return the names on a list of images.

    Raises:
        DataError: there is no such file, or something else than names on it.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    names = path.read_text(errors="replace").split()
    for name in names:
        if "/" in name or not name.isprintable():
            raise DataError(f"{path}: {name[:60]!r} can't name an image")
    return names


def check_pairs(root: Path, names: Sequence[str]) -> None:
    """Raise DataError for the first image or mask that can't be learned from, with its name.

    Args:
        root: ``VOCdevkit/VOC2012``.
        names: of the pairs, without their endings.
    """
    for name in tqdm(names, unit=" pairs", desc=f"checking {root.name}"):
        check_pair(root / IMAGES / f"{name}.jpg", root / MASKS / f"{name}.png")


def check_pair(image: Path, mask: Path) -> None:
    """Raise DataError unless both are there, of one size, and the mask has classes and void."""
    for path in (image, mask):
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    try:
        with Image.open(image) as opened:
            size = opened.size
        with Image.open(mask) as opened:
            mode, values = opened.mode, np.asarray(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{mask} or its image: damaged or cut short ({error})") from error
    if mode not in ("P", "L"):
        raise DataError(f"{mask}: a mask of mode {mode}, expected a class index a pixel (P or L)")
    if values.shape[::-1] != size:
        width, height = size
        raise DataError(
            f"{mask}: {values.shape[1]}x{values.shape[0]} pixels, but its image has "
            f"{width}x{height}"
        )
    wrong = values[(values >= CLASSES) & (values != VOID)]
    if wrong.size:
        raise DataError(f"{mask}: class {wrong[0]}, expected 0 to {CLASSES - 1}, or {VOID}")


def _list(root: Path, split: str) -> Path:
    return root / LISTS / f"{split}.txt"


def check_md5(path: Path, expected: str) -> None:
    """Raise DataError unless the file has this md5."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: md5 is {found}, expected {expected}: not the published file; replace it, or "
            f"unset {MIRROR} to download"
        )


def download(
    name: str,
    facts: Mapping[str, str | int],
    url: str,
    file: str,
    md5: str,
    folder: Path,
    mirror: Path | None,
) -> Path:
    """Download a file with torchvision's bar and check of its md5; return where it is."""
    from torchvision.datasets.utils import download_url  # seconds to import

    tried = f"{MIRROR} is not set" if mirror is None else f"{mirror} has no {facts[file]}"
    print(f"{name}: {tried}; downloading", file=sys.stderr)
    try:
        download_url(str(facts[url]), folder, str(facts[file]), str(facts[md5]))
    # torchvision raises RuntimeError, the network OSError, a server that breaks off HTTPException.
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{name} can't be had: {tried}, and the download of {facts[url]} failed "
            f"({' '.join(str(error).split())}). Either put {facts[file]} into a folder and set "
            f"{MIRROR} to that folder{'' if name == 'voc2012' else ' (in sbd/)'}, or run "
            "smoke/voc_segmentation, which needs no download"
        ) from error
    return folder / str(facts[file])


def main() -> None:
    """Parse the command line; an error is one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m data.fetch_voc",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=["sbd", "voc2012"])
    name = parser.parse_args().name
    socket.setdefaulttimeout(PATIENCE)
    given = os.environ.get(MIRROR)
    mirror = Path(given).expanduser() if given else None
    try:
        if name == "voc2012":
            fetch_voc2012(mirror, HERE / name)
        else:
            fetch_sbd(mirror, HERE / "voc2012", HERE / name)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
