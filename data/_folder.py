"""Folders that appear whole or not at all, of files that are known by their sha256."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
DATASETS = HERE / "datasets.yaml"
SUMS = "SHA256SUMS"
CHUNK = 1 << 20  # bytes between two updates of a bar


class DataError(Exception):
    """A dataset that can't be had; its text is one line for the person at the terminal."""


def files_of(name: str) -> dict[str, str]:
    """The files that dataset ``name`` consists of: path in its folder -> sha256."""
    datasets = yaml.safe_load(DATASETS.read_text())
    return dict(datasets[name]["files"])


def check(folder: Path, files: Mapping[str, str], advice: str) -> None:
    """Raise DataError, with ``advice``, unless all of ``files`` are in ``folder`` and unchanged."""
    for path, expected in files.items():
        with (folder / path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise DataError(f"{path}: sha256 is {found}, expected {expected}; {advice}")


def check_md5(path: Path, expected: str, advice: str) -> None:
    """Raise DataError, with ``advice``, unless a file has an md5; it shows a bar."""
    found = hashlib.md5(usedforsecurity=False)
    total = path.stat().st_size
    with (
        path.open("rb") as file,
        tqdm(total=total, unit="B", unit_scale=True, desc=f"checking {path.name}") as bar,
    ):
        while chunk := file.read(CHUNK):
            found.update(chunk)
            bar.update(len(chunk))
    if found.hexdigest() != expected:
        raise DataError(f"{path}: md5 is {found.hexdigest()}, expected {expected}; {advice}")


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` of all files, in the form that ``sha256sum --check`` reads."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    (folder / SUMS).write_text("".join(lines))


def replace_folder(destination: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a new folder and name it ``destination`` when it is complete.

    Whatever ``fill`` raises, and whenever the process dies, ``destination`` holds no half of
    anything; what a killed call left behind is removed by the next one.

    Raises:
        DataError: another process is at it, or something else than a folder is there.
    """
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        raise DataError(f"{destination}: a link or a file, expected a folder or nothing; remove it")
    with workshop(destination) as folder:
        new, old = folder / "new", folder / "old"
        new.mkdir()
        fill(new)
        if destination.exists():
            destination.rename(old)  # a folder half deleted must not pass for the dataset
        new.rename(destination)


@contextmanager
def workshop(destination: Path) -> Iterator[Path]:
    """Have the empty folder ``.NAME.partial`` beside ``destination``, alone; it is removed again.

    The folder itself is locked, so that it is free as soon as its process has died.

    Raises:
        DataError: another process has it, for instance one that outlived a killed DVC.
    """
    folder = destination.with_name(f".{destination.name}.partial")
    descriptor = _lock(folder, destination)
    try:
        _remove_all(folder)  # of a process that was killed
        (folder / "process").write_text(str(os.getpid()))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _lock(folder: Path, destination: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # whoever had it may remove it at any moment
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), folder.stat()):
                    return os.dup(descriptor)  # which has the lock too
            except BlockingIOError:
                who = (folder / "process").read_text()
                raise DataError(
                    f"{destination}: process {who} is writing it already; wait for it or end it"
                ) from None
            finally:
                os.close(descriptor)
        time.sleep(0.05)


def _remove_all(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn whatever a damaged tar or gzip file raises into a DataError that names it."""
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: damaged, or no archive: {error}") from error


def extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Unpack a file or a folder, below ``folder`` and nowhere else.

    Raises:
        DataError: it would leave the folder, or is a link, a device or a pipe, which no data set
            needs.
    """
    archive = os.fsdecode(tar.name or "a tar")
    if not (member.isdir() or (member.isfile() and not member.issparse())):
        raise DataError(f"{archive}: {member.name!r} is neither a file nor a folder: refused")
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise DataError(f"{archive}: {member.name!r} leads out of the archive's folder: refused")
    tar.extract(member, folder, filter="data")


def plain(root: Path, path: Path) -> Path:
    """Return the path of a file below ``root``, which itself may be a link.

    Raises:
        DataError: it, or a folder on the way, is a link, which may lead anywhere; or it is no file.
    """
    place = root
    for part in path.parts:
        place /= part
        if place.is_symlink():
            raise DataError(f"{place}: a link, which may lead anywhere: refused")
    if not place.is_file():
        found = "not a file" if place.exists() else "no such file"
        raise DataError(f"{place}: {found}, expected a file")
    return place
