"""Put Pascal VOC's segmentation into this folder: ``python -m data.fetch_voc voc2012`` (or sbd).

``voc2012`` is the official set: 1,464 images to train on and 1,449 to measure, with their masks.
It comes from the folder that ``$COOKFIRE_MIRROR`` names, if ``VOCtrainval_11-May-2012.tar`` or
``VOCdevkit/VOC2012`` is in it, else from the upstream address. ``sbd`` is the same with the list
``trainaug``: also the images of ``train_noval`` of the Semantic Boundaries Dataset, which has none
of those to measure; of the mirror it takes ``sbd/benchmark.tgz`` and ``sbd/train_noval.txt``.

Archives must have the md5s in ``datasets.yaml``, a folder's lists the numbers of images there, none
of them twice, and every mask must fit its image. A smaller set is never taken for the official one.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from tqdm import tqdm

from ._command import REPLACE, answering, downloading, mirror_folder, parser
from ._folder import (
    DATASETS,
    HERE,
    DataError,
    check_md5,
    extract,
    plain,
    reading,
    replace_folder,
)

FOLDER = "VOCdevkit/VOC2012"
IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
CLASSES, VOID = 21, 255
PUBLISHED = f"not the published file; {REPLACE}"
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
        check_md5(archive, str(facts["md5"]), PUBLISHED)
        replace_folder(destination, lambda folder: unpack_voc(archive, folder, facts))
        return
    if mirror is not None and (mirror / FOLDER).is_dir():
        check_lists(mirror, facts, SUBSET.format(mirror))
        replace_folder(destination, lambda folder: copy_voc(mirror, folder))
        return

    def fill(folder: Path) -> None:
        path = download("voc2012", facts, "url", "archive", "md5", folder, mirror)
        unpack_voc(path, folder, facts)
        path.unlink()

    replace_folder(destination, fill)


def check_lists(source: Path, facts: Mapping[str, str | int], advice: str) -> None:
    """Raise DataError, with ``advice``, unless the lists name as many images as the official.

    Nor may they name one twice: a few images could be as many as the official set then.
    """
    listed: set[str] = set()
    for split in ("train", "val"):
        path = plain(source, _list(Path(FOLDER), split))
        names = read_list(path)
        if len(names) != facts[split]:
            raise DataError(
                f"{path}: names {len(names):,} images, the official list {facts[split]:,}: these "
                f"are not VOC2012, but some of its images; {advice}"
            )
        for name in names:
            if name in listed:
                raise DataError(
                    f"{path}: {name} is on the lists twice, on the official ones nothing is: these "
                    f"are not VOC2012; {advice}"
                )
            listed.add(name)


def unpack_voc(archive: Path, folder: Path, facts: Mapping[str, str | int]) -> None:
    """Unpack what segmentation needs of the official archive, and check every pair."""
    root = folder / FOLDER
    with reading(archive), tarfile.open(archive) as tar:
        for member in tar:
            if f"/{LISTS}/" in f"/{member.name}" or f"/{MASKS}/" in f"/{member.name}":
                extract(tar, member, folder)
    check_lists(folder, facts, "fetch the archive again")
    names = {name for split in ("train", "val") for name in read_list(_list(root, split))}
    with reading(archive), tarfile.open(archive) as tar:
        for member in tar:
            path = Path(member.name)
            if path.parent.name == IMAGES and path.stem in names:
                extract(tar, member, folder)
    check_pairs(root, sorted(names))


def copy_voc(source: Path, folder: Path) -> None:
    """Copy lists, and the images and masks that they name; check every pair.

    Args:
        source: holds ``VOCdevkit/VOC2012``; below it, links are refused.
        folder: gets the same.
    """
    root = folder / FOLDER
    for part in (IMAGES, MASKS, LISTS):
        (root / part).mkdir(parents=True)
    names: list[str] = []
    for split in ("train", "val"):
        shutil.copy(plain(source, _list(Path(FOLDER), split)), _list(root, split))
        names += read_list(_list(root, split))
    for name in names:
        for path in (f"{IMAGES}/{name}.jpg", f"{MASKS}/{name}.png"):
            shutil.copy(plain(source, Path(FOLDER, path)), root / path)
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
        copy_voc(voc2012, folder)
        found = {}
        for kind, md5 in (("archive", "md5"), ("list", "list_md5")):
            beside = None if mirror is None else mirror / "sbd" / str(facts[kind])
            if beside is not None and beside.is_file():
                check_md5(beside, str(facts[md5]), PUBLISHED)
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

    place = str(facts[file]) if name == "voc2012" else f"{name}/{facts[file]}"
    tried = None if mirror is None else mirror / place
    with downloading(name, tried, str(facts[url]), place, "smoke/voc_segmentation"):
        download_url(str(facts[url]), folder, str(facts[file]), str(facts[md5]))
    return folder / str(facts[file])


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    command = parser("fetch_voc", __doc__)
    command.add_argument("name", choices=["sbd", "voc2012"])
    name = command.parse_args(argv).name
    with answering(HERE / name):
        if name == "voc2012":
            fetch_voc2012(mirror_folder(), HERE / name)
        else:
            fetch_sbd(mirror_folder(), HERE / "voc2012", HERE / name)


if __name__ == "__main__":
    main()
