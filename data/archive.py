"""Put a dataset that is one archive, or a few, into this folder: ``python -m data.archive imdb``.

An archive comes from the folder that ``$COOKFIRE_MIRROR`` names, if it is there, else from its
address in ``datasets.yaml``. Either way it must have the md5 that stands there too, and the
dataset's folder appears whole or not at all. The archive's one folder is left out where it holds
``train/`` and ``val/``: what is in it is in the dataset's folder then.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from ._command import REPLACE, downloading, put
from ._folder import DATASETS, check_md5, extract, reading, replace_folder

# What needs no download, for those who can't have the dataset.
INSTEAD = {
    "cifar100": "smoke/imagenet",
    "fashion_mnist": "examples/fashion_mnist.py --tiny",
    "imagenette": "smoke/imagenet",
    "imdb": "examples/text_classification.py --tiny",
}


def archives_of(described: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return where a dataset's archives are, and each one's md5 by its path in a mirror."""
    if "archives" in described:
        return described["url"], described["archives"]
    address, _, file = described["url"].rpartition("/")
    return address, {file: described["md5"]}


def unpack(archive: Path, folder: Path, without: str | None = None) -> None:
    """Unpack an archive, with a bar, but for the folder ``without``; nothing leaves ``folder``."""
    total = archive.stat().st_size
    if archive.suffix == ".gz" and not archive.stem.endswith(".tar"):  # of a single file
        with (
            reading(archive),
            gzip.open(archive) as packed,
            (folder / archive.stem).open("wb") as target,
        ):
            shutil.copyfileobj(packed, target)
        return
    with (
        reading(archive),
        archive.open("rb") as file,
        tarfile.open(archive, fileobj=file) as tar,
        tqdm(total=total, unit="B", unit_scale=True, desc=f"unpacking {archive.name}") as bar,
    ):
        for member in tar:
            if without is None or not member.name.startswith(without):
                extract(tar, member, folder)
            bar.update(file.tell() - bar.n)
    for inner in [path for path in folder.iterdir() if (path / "val").is_dir()]:
        for path in inner.iterdir():
            path.rename(folder / path.name)
        inner.rmdir()


def fetch(name: str, mirror: Path | None, destination: Path) -> None:
    """Write the dataset ``name`` to the folder ``destination``, from ``mirror`` or by download.

    Raises:
        DataError: the archive is not the published one, or can't be had: what was tried, and the
            two ways on.
    """
    described = yaml.safe_load(DATASETS.read_text())[name]
    address, md5s = archives_of(described)
    absent = [] if mirror is None else [path for path in md5s if not (mirror / path).is_file()]

    def unpack_all(source: Path, folder: Path) -> None:
        for path in md5s:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            unpack(source / path, (folder / path).parent, described.get("without"))

    if mirror is not None and not absent:
        for path, md5 in md5s.items():
            check_md5(mirror / path, md5, REPLACE)
        replace_folder(destination, lambda folder: unpack_all(mirror, folder))
        return

    def download(folder: Path) -> None:
        from torchvision.datasets.utils import download_url  # seconds to import

        tried = None if mirror is None else mirror / absent[0]
        with downloading(name, tried, described["url"], ", ".join(md5s), INSTEAD[name]):
            for path, md5 in md5s.items():
                file = folder / path
                download_url(f"{address}/{file.name}", file.parent, file.name, md5)
        unpack_all(folder, folder)
        for path in md5s:
            (folder / path).unlink()

    replace_folder(destination, download)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    put("archive", INSTEAD, fetch, __doc__, argv)


if __name__ == "__main__":
    main()
