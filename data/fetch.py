"""Put a real dataset into this folder: ``python -m data.fetch mnist`` writes ``data/mnist``.

The files come from the folder that ``$COOKFIRE_MIRROR`` names, if they are there, else from the
addresses that torchvision knows. Either way they must have the hashes in ``datasets.yaml``, and
the dataset's folder appears whole or not at all. Nothing ever stands in for data that can't be
had: the error says what was tried and what to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from ._command import REPLACE, downloading, put
from ._folder import CHUNK, DataError, check, files_of, replace_folder


def copy(source: Path, files: Mapping[str, str], folder: Path) -> None:
    """Copy ``files`` from ``source`` into ``folder``, with a bar, and check their hashes."""
    total = sum((source / path).stat().st_size for path in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc=str(source)) as bar:
        for path, expected in files.items():
            found = hashlib.sha256()
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (source / path).open("rb") as file, (folder / path).open("wb") as target:
                while chunk := file.read(CHUNK):
                    found.update(chunk)
                    target.write(chunk)
                    bar.update(len(chunk))
            if found.hexdigest() != expected:
                raise DataError(
                    f"{source / path}: sha256 is {found.hexdigest()}, expected {expected}: not "
                    f"the published file; {REPLACE}"
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

    def download(folder: Path) -> None:
        tried = None if mirror is None else mirror / absent[0]
        with downloading(name, tried, "torchvision's addresses", ", ".join(files), f"smoke/{name}"):
            DOWNLOADS[name](folder)
        for archive in folder.rglob("*.gz"):
            archive.unlink()
        check(folder, files, "upstream has changed the file: tell the maintainers")

    replace_folder(destination, download)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    put("fetch", DOWNLOADS, fetch, __doc__, argv)


if __name__ == "__main__":
    main()
