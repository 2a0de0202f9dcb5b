"""Folders that appear whole or not at all, of files that are known by their sha256."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
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
