"""Put a set of the Cycle-GAN authors into this folder: ``python -m data.fetch_horse2zebra``.

    python -m data.fetch_horse2zebra              # writes data/horse2zebra
    python -m data.fetch_horse2zebra apple2orange # another set of the same family, by its name

It comes from the folder that ``$COOKFIRE_MIRROR`` names, as ``NAME.zip`` or as the folder ``NAME``,
else from the authors' address. Nobody publishes hashes of these archives. What is checked instead:
the archive's own checksums of each file, that there are pictures in ``trainA``, ``trainB``,
``testA`` and ``testB``, and their numbers, as far as ``datasets.yaml`` knows them. The sha256 of
every picture is written to ``SHA256SUMS`` beside them, which ``dvc.lock`` holds with all the rest
once the stage has run: from then on another archive is noticed.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import re
import shutil
import sys
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import yaml
from tqdm import tqdm

from ._folder import DATASETS, HERE, DataError, plain, replace_folder

MIRROR = "COOKFIRE_MIRROR"
ADDRESS = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{name}.zip"
FOLDERS = ("trainA", "trainB", "testA", "testB")
SUFFIXES = (".jpg", ".jpeg", ".png")
SUMS = "SHA256SUMS"
CHUNK = 1 << 20  # bytes read between two updates of the bar
LARGEST = 1 << 26  # bytes of a picture; more is an archive that is made to fill a disk
PATIENCE = 30.0  # seconds that a silent server is waited for


def numbers_of(name: str) -> dict[str, int]:
    """How many pictures each folder of a set has; nothing for sets whose numbers are unknown."""
    datasets = yaml.safe_load(DATASETS.read_text())
    return dict(datasets.get(name, {}).get("pictures", {}))


def fetch(name: str, mirror: Path | None, destination: Path) -> None:
    """Write the set ``name`` to the folder ``destination``, from ``mirror`` or by download.

    Raises:
        DataError: the archive is damaged or has other pictures, or the set can't be had: what was
            tried, and the two ways on.
    """
    if mirror is not None and (mirror / name).is_dir():
        replace_folder(destination, lambda folder: _copy(mirror / name, name, folder))
        return
    if mirror is not None and (mirror / f"{name}.zip").is_file():
        archive = mirror / f"{name}.zip"
        replace_folder(destination, lambda folder: _unpack(archive, name, folder))
        return
    tried = f"{MIRROR} is not set" if mirror is None else f"{MIRROR} has no {mirror / name}.zip"
    print(f"{name}: {tried}; downloading", file=sys.stderr)

    def download(folder: Path) -> None:
        archive = folder / "archive.zip"
        _download(ADDRESS.format(name=name), archive)
        _unpack(archive, name, folder)
        archive.unlink()

    try:
        replace_folder(destination, download)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{name} can't be had: {tried}, and the download failed "
            f"({' '.join(str(error).split())}). Either put {name}.zip into a folder and set "
            f"{MIRROR} to that folder, or run smoke/cyclegan, which needs no download"
        ) from error


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` of all pictures, in the form that ``sha256sum --check`` reads."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    (folder / SUMS).write_text("".join(lines))


def _download(address: str, archive: Path) -> None:
    with (
        urllib.request.urlopen(address, timeout=PATIENCE) as source,
        archive.open("wb") as target,
        tqdm(unit="B", unit_scale=True, desc=address) as bar,
    ):
        length = source.headers.get("Content-Length")
        bar.reset(None if length is None else int(length))
        while chunk := source.read(CHUNK):
            target.write(chunk)
            bar.update(len(chunk))
    if length is not None and archive.stat().st_size != int(length):
        raise OSError(f"{archive.stat().st_size} of {length} bytes came")


def _unpack(archive: Path, name: str, folder: Path) -> None:
    """Unpack the pictures alone, by their last two names: nothing can be written elsewhere."""
    try:
        with zipfile.ZipFile(archive) as packed:
            for entry in tqdm(packed.infolist(), desc=str(archive), leave=False):
                path = PurePosixPath(entry.filename)
                if _is_wanted(path):
                    if entry.file_size > LARGEST:
                        raise DataError(
                            f"{archive.name}: {path.name} would be {entry.file_size:,} bytes, "
                            f"expected a picture of at most {LARGEST:,}: refused"
                        )
                    target = folder / path.parent.name / path.name
                    target.parent.mkdir(exist_ok=True)
                    with packed.open(entry) as source, target.open("wb") as file:
                        shutil.copyfileobj(source, file)  # which compares the checksum
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{archive.name}: damaged or cut short, or no zip file ({error}); fetch {name} again"
        ) from error
    _finish(name, folder, archive.name)


def _copy(source: Path, name: str, folder: Path) -> None:
    wanted = [path for path in sorted(source.glob("*/*")) if _is_wanted(path)]
    for path in tqdm(wanted, desc=str(source), leave=False):
        (folder / path.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(plain(path), folder / path.parent.name / path.name)
    _finish(name, folder, str(source))


def _is_wanted(path: PurePosixPath | Path) -> bool:
    return path.parent.name in FOLDERS and path.suffix.lower() in SUFFIXES


def _finish(name: str, folder: Path, where: str) -> None:
    expected = numbers_of(name)
    for kind in FOLDERS:
        found = len(list((folder / kind).glob("*")))
        if not found:
            raise DataError(f"{where}: no pictures in {kind}, which each set of this family has")
        if found != expected.get(kind, found):
            raise DataError(
                f"{where}: {found} pictures in {kind}, expected {expected[kind]}: not the "
                f"authors' {name}; replace it, or unset {MIRROR} to download"
            )
    write_sums(folder)


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Parse the command line; an error is one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m data.fetch_horse2zebra",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", default="horse2zebra", help="of the set (horse2zebra)")
    name = parser.parse_args(argv).name
    if not re.fullmatch(r"\w+", name):
        parser.error(f"a set's name is letters, digits and _, got {name!r}")
    mirror = environ.get(MIRROR)
    try:
        fetch(name, Path(mirror).expanduser() if mirror else None, HERE / name)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
