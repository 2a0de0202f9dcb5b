"""What a folder of images by class holds: each file's size, hash and kind, in a manifest.

A manifest is a table (``manifest.tsv``): path, bytes, sha256, kind. The kind is ``rgb``,
``grayscale``, ``cmyk``, another mode of Pillow's in small letters, or ``unreadable`` for what can't
be decoded.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from ._folder import DataError

MANIFEST = "manifest.tsv"
SPLITS = ("train", "val")
SUFFIXES = (".jpeg", ".jpg", ".png")
KINDS = {"RGB": "rgb", "L": "grayscale", "CMYK": "cmyk"}
UNREADABLE = "unreadable"


class Entry(NamedTuple):
    """A row of a manifest."""

    path: str
    """In the data set's folder, with slashes."""

    bytes: int
    sha256: str
    kind: str

    modified: int = 0
    """When the file was last changed, in ns; not in a manifest: a copy has another time."""


COLUMNS = Entry._fields[:4]


def images_of(folder: Path) -> list[str]:
    """Return the paths of the images in ``folder/{train,val}/<class>/``, sorted.

    Raises:
        DataError: a split is not there, has no classes or an empty one, the classes differ, or
            there is a link, which may lead anywhere, or something else than a file for an image.
    """
    found, classes = [], {}
    for split in SPLITS:
        if not (folder / split).is_dir():
            raise DataError(f"{folder / split}: no such folder; expected train/ and val/ there")
        entries = [entry for entry in os.scandir(folder / split) if entry.is_dir()]
        _refuse_odd(entries)
        names = {entry.name for entry in entries}
        classes[split] = {name for name in names if not name.startswith(".")}
        if not classes[split]:
            raise DataError(f"{folder / split}: no folder in it; expected one a class")
        for name in classes[split]:
            files = list(os.scandir(folder / split / name))
            _refuse_odd(files)
            images = [file.name for file in files if file.name.lower().endswith(SUFFIXES)]
            for file in files:
                if file.name in images and not file.is_file():
                    raise DataError(f"{file.path}: not a file, expected an image")
            if not images:
                raise DataError(f"{folder / split / name}: no image (.JPEG, .jpg, .png) in it")
            found += [f"{split}/{name}/{file}" for file in images]
    if odd := sorted(classes["train"] ^ classes["val"]):
        raise DataError(f"{folder}: class {odd[0]} is not in both train/ and val/")
    return sorted(found)


def _refuse_odd(entries: Sequence[os.DirEntry[str]]) -> None:
    for entry in entries:
        if entry.is_symlink():
            raise DataError(f"{entry.path}: a link, expected the images themselves")
        if not entry.name.isprintable():  # a manifest has a line an image, and tabs in it
            raise DataError(f"{entry.path!r}: no name for an image or a class; rename it")


def look(folder: Path, path: str) -> Entry:
    """Read and decode an image."""
    with (folder / path).open("rb") as file:
        modified = os.fstat(file.fileno()).st_mtime_ns
        content = file.read()
    try:
        with Image.open(BytesIO(content)) as image:
            kind = KINDS.get(image.mode, image.mode.lower())
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        kind = UNREADABLE
    return Entry(path, len(content), hashlib.sha256(content).hexdigest(), kind, modified)


def scan(
    folder: Path, paths: Sequence[str], known: Mapping[str, Entry] | None = None
) -> Iterator[Entry]:
    """Iterate over the entries of images, with a bar; those ``known`` are not looked at again."""
    done = {} if known is None else known
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), unit=" images", desc="reading") as bar,
    ):
        # In parts: all at once would be a million of futures.
        for start in range(0, len(paths), 1024):
            part = paths[start : start + 1024]
            for entry in pool.map(lambda path: done.get(path) or look(folder, path), part):
                bar.update()
                yield entry


def line(entry: Entry) -> str:
    """Return an entry's line in a manifest."""
    return "\t".join(str(value) for value in entry[: len(COLUMNS)]) + "\n"


HEAD = "\t".join(COLUMNS) + "\n"


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Write a manifest, whole or not at all."""
    partial = path.with_name(f".{path.name}.new.partial")
    partial.write_text(HEAD + "".join(line(entry) for entry in entries))
    partial.replace(path)


def describe(entries: Sequence[Entry]) -> str:
    """Say how many images and classes there are, and which are odd."""
    lines = []
    for split in SPLITS:
        mine = [entry for entry in entries if entry.path.startswith(f"{split}/")]
        classes = {entry.path.split("/")[1] for entry in mine}
        total = sum(entry.bytes for entry in mine)
        lines.append(f"{split}: {len(mine):,} images of {len(classes):,} classes, {total:,} bytes")
    counts = Counter(entry.kind for entry in entries)
    for kind, count in sorted(counts.items()):
        if kind != "rgb":
            named = [entry.path for entry in entries if entry.kind == kind]
            more = f" and {count - 5} more" if count > 5 else ""
            lines.append(f"{kind}: {count:,}: {', '.join(named[:5])}{more}")
    return "\n".join(lines)
