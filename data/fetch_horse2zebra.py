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

import errno
import re
import shutil
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml
from tqdm import tqdm

from ._command import PATIENCE, REPLACE, answering, downloading, mirror_folder, parser
from ._folder import CHUNK, DATASETS, HERE, DataError, plain, replace_folder, write_sums

ADDRESS = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{name}.zip"
FOLDERS = ("trainA", "trainB", "testA", "testB")
SUFFIXES = (".jpg", ".jpeg", ".png")
LARGEST = 1 << 26  # bytes of a picture; more is an archive that is made to fill a disk
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


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
    archive = None if mirror is None else mirror / f"{name}.zip"

    def fill(folder: Path) -> None:
        if mirror is not None and (mirror / name).is_dir():
            _copy(mirror, name, folder)
            _finish(name, folder, str(mirror / name))
        elif archive is not None and archive.is_file():
            _unpack(archive, name, folder)
            _finish(name, folder, archive.name)
        else:
            address, packed = ADDRESS.format(name=name), folder / f"{name}.zip"
            with downloading(name, archive, address, packed.name, "smoke/cyclegan"):
                _download(address, packed)
            _unpack(packed, name, folder)
            packed.unlink()
            _finish(name, folder, packed.name)

    replace_folder(destination, fill)


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
                    if entry.flag_bits & 1 or entry.compress_type not in METHODS:
                        raise DataError(
                            f"{archive.name}: {entry.filename!r} is encrypted or packed in an "
                            "unusual way: refused"
                        )
                    if entry.file_size > LARGEST:
                        raise DataError(
                            f"{archive.name}: {path.name!r} would be {entry.file_size:,} bytes, "
                            f"expected a picture of at most {LARGEST:,}: refused"
                        )
                    target = folder / path.parent.name / path.name
                    target.parent.mkdir(exist_ok=True)
                    with packed.open(entry) as source, target.open("wb") as file:
                        shutil.copyfileobj(source, file)  # which compares the checksum
    # What zipfile raises for a flipped bit here or there; of the disk's errors, a seek to nowhere.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise DataError(
            f"{archive.name}: damaged or cut short, or no zip file ({error}); fetch {name} again"
        ) from error


def _copy(mirror: Path, name: str, folder: Path) -> None:
    source = mirror / name
    wanted = [path for path in sorted(source.glob("*/*")) if _is_wanted(path)]
    for path in tqdm(wanted, desc=str(source), leave=False):
        (folder / path.parent.name).mkdir(exist_ok=True)
        picture = plain(mirror, path.relative_to(mirror))
        shutil.copyfile(picture, folder / path.parent.name / path.name)


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
                f"authors' {name}; {REPLACE}"
            )
    write_sums(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    command = parser("fetch_horse2zebra", __doc__)
    command.add_argument("name", nargs="?", default="horse2zebra", help="of the set (horse2zebra)")
    name = command.parse_args(argv).name
    if not re.fullmatch(r"\w+", name):
        command.error(f"a set's name is letters, digits and _, got {name!r}")
    with answering(HERE / name):
        fetch(name, mirror_folder(), HERE / name)


if __name__ == "__main__":
    main()
