"""Folders that appear whole or not at all, of files that are known by their sha256."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
DATASETS = HERE / "datasets.yaml"


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


def replace_folder(destination: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a new folder and name it ``destination`` when it is complete.

    Whatever ``fill`` raises, and whenever the process dies, ``destination`` holds no half of
    anything; what a killed call left behind is removed by the next one.
    """
    partial = destination.with_name(f".{destination.name}.partial")
    old = destination.with_name(f".{destination.name}.old.partial")
    for remains in (partial, old):
        shutil.rmtree(remains, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        fill(partial)
        if destination.exists():
            destination.rename(old)  # a folder half deleted must not pass for the dataset
        partial.rename(destination)
    finally:
        for remains in (partial, old):
            shutil.rmtree(remains, ignore_errors=True)


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn whatever a damaged tar raises into a DataError that names it."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: damaged, or no archive: {error}") from error


def extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Unpack a file or a folder, below ``folder`` and nowhere else.

    Raises:
        DataError: it would leave the folder, or is a link, a device or a pipe, which no data set
            needs.
    """
    archive = os.fsdecode(tar.name or "")
    if not (member.isdir() or (member.isfile() and not member.issparse())):
        raise DataError(f"{archive}: {member.name!r} is neither a file nor a folder: refused")
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise DataError(f"{archive}: {member.name!r} leads out of the archive's folder: refused")
    tar.extract(member, folder, filter="data")


def plain(path: Path) -> Path:
    """Return the path of a file; DataError if it is a link, which may lead anywhere."""
    if path.is_symlink() or not path.is_file():
        raise DataError(f"{path}: {'a link' if path.is_symlink() else 'no file'}, expected a file")
    return path


def make(
    name: str, write: Callable[[Path], None], doc: str | None, argv: Sequence[str] | None
) -> None:
    """Be the command ``python -m data.make_<name>``: an error is one line and exit code 2."""
    argparse.ArgumentParser(
        prog=f"python -m data.make_{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)  # it has nothing to say, but --help and wrong arguments are answered
    try:
        replace_folder(HERE / name, write)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
