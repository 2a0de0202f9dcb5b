"""Put a real dataset into this folder: ``python -m data.fetch mnist`` writes ``data/mnist``.

The files come from the folder that ``$COOKFIRE_MIRROR`` names, if they are there, else from the
addresses that torchvision knows. Either way they must have the hashes in ``datasets.yaml``, and
the dataset's folder appears whole or not at all. Nothing ever stands in for data that can't be
had: the error says what was tried and what to do.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tqdm import tqdm

from ._folder import HERE, DataError, check, files_of, replace_folder

MIRROR = "COOKFIRE_MIRROR"
CHUNK = 1 << 20  # bytes copied between two updates of the bar
PATIENCE = 30.0  # seconds that a silent server is waited for; torchvision would wait for ever


def copy(mirror: Path, files: Mapping[str, str], folder: Path) -> None:
    """Copy ``files`` from ``mirror`` into ``folder``, with a bar, and check their hashes."""
    total = sum((mirror / path).stat().st_size for path in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc=str(mirror)) as bar:
        for path, expected in files.items():
            found = hashlib.sha256()
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (mirror / path).open("rb") as source, (folder / path).open("wb") as target:
                while chunk := source.read(CHUNK):
                    found.update(chunk)
                    target.write(chunk)
                    bar.update(len(chunk))
            if found.hexdigest() != expected:
                raise DataError(
                    f"{mirror / path}: sha256 is {found.hexdigest()}, expected {expected}: not "
                    f"the published file; replace it, or unset {MIRROR} to download"
                )


def download_mnist(folder: Path) -> None:
    """Download and unpack MNIST, with torchvision's bar and its check of the archives."""
    from torchvision.datasets import MNIST  # seconds to import: only where it is needed

    MNIST(folder, download=True)


def download_cifar10(folder: Path) -> None:
    """Download and unpack CIFAR-10, likewise."""
    from torchvision.datasets import CIFAR10

    CIFAR10(folder, download=True)


DOWNLOADS: Mapping[str, Callable[[Path], None]] = {
    "cifar10": download_cifar10,
    "mnist": download_mnist,
}


def fetch(name: str, mirror: Path | None, destination: Path) -> None:
    """Write the dataset ``name`` to the folder ``destination``, from ``mirror`` or by download.

    Raises:
        DataError: a file is not the published one, or the dataset can't be had: what was tried,
            and the two ways on.
    """
    files = files_of(name)
    absent = [] if mirror is None else [path for path in files if not (mirror / path).is_file()]
    if mirror is not None and not absent:
        replace_folder(destination, lambda folder: copy(mirror, files, folder))
        return

    tried = f"{MIRROR} is not set" if mirror is None else f"{MIRROR} has no {mirror / absent[0]}"
    print(f"{name}: {tried}; downloading", file=sys.stderr)

    def download(folder: Path) -> None:
        DOWNLOADS[name](folder)
        for archive in folder.rglob("*.gz"):
            archive.unlink()
        check(folder, files, "upstream has changed the file: tell the maintainers")

    try:
        replace_folder(destination, download)
    # torchvision raises RuntimeError, the network OSError, a server that breaks off HTTPException.
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{name} can't be had: {tried}, and the download failed "
            f"({' '.join(str(error).split())}). Either put {', '.join(files)} into a folder and "
            f"set {MIRROR} to that folder, or run smoke/{name}, which needs no download"
        ) from error


def main() -> None:
    """Parse the command line; an error is one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m data.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(DOWNLOADS))
    name = parser.parse_args().name
    socket.setdefaulttimeout(PATIENCE)
    mirror = os.environ.get(MIRROR)
    try:
        fetch(name, Path(mirror).expanduser() if mirror else None, HERE / name)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
