"""What a folder of images by class holds: each file's size, hash and kind, in a manifest.

A manifest is a table (``manifest.tsv``): path, bytes, sha256, kind. The kind is ``rgb``,
``grayscale``, ``cmyk``, another mode of Pillow's in small letters, or ``unreadable`` for what can't
be decoded.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
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


def images_of(folder: Path) -> list[str]:
    """Return the paths of the images in ``folder/{train,val}/<class>/``, sorted.

    Raises:
        DataError: a split is not there, has no classes or an empty one, the classes differ, or
            there is a link, which may lead anywhere.
    """
    found, classes = [], {}
    for split in SPLITS:
        if not (folder / split).is_dir():
            raise DataError(f"{folder / split}: no such folder; expected train/ and val/ there")
        entries = [entry for entry in os.scandir(folder / split) if entry.is_dir()]
        _refuse_links(entries)
        names = {entry.name for entry in entries}
        classes[split] = {name for name in names if not name.startswith(".")}
        if not classes[split]:
            raise DataError(f"{folder / split}: no folder in it; expected one a class")
        for name in classes[split]:
            files = list(os.scandir(folder / split / name))
            _refuse_links(files)
            images = [file.name for file in files if file.name.lower().endswith(SUFFIXES)]
            if not images:
                raise DataError(f"{folder / split / name}: no image (.JPEG, .jpg, .png) in it")
            found += [f"{split}/{name}/{file}" for file in images]
    if odd := sorted(classes["train"] ^ classes["val"]):
        raise DataError(f"{folder}: class {odd[0]} is not in both train/ and val/")
    return sorted(found)


def _refuse_links(entries: Sequence[os.DirEntry[str]]) -> None:
    for entry in entries:
        if entry.is_symlink():
            raise DataError(f"{entry.path}: a link, expected the images themselves")


def look(folder: Path, path: str) -> Entry:
    """Read and decode an image."""
    content = (folder / path).read_bytes()
    try:
        with Image.open(BytesIO(content)) as image:
            kind = KINDS.get(image.mode, image.mode.lower())
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        kind = UNREADABLE
    return Entry(path, len(content), hashlib.sha256(content).hexdigest(), kind)


def scan(folder: Path, known: Sequence[Entry] = ()) -> Iterator[Entry]:
    """Iterate over the entries of all images, with a bar; those ``known`` are not looked at again.

    Raises:
        DataError: as :func:`images_of`.
    """
    done = {entry.path: entry for entry in known}
    paths = images_of(folder)
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
    """Return an entry's line."""
    return "\t".join(str(value) for value in entry) + "\n"


HEAD = "\t".join(Entry._fields) + "\n"


def read_manifest(path: Path) -> list[Entry]:
    """Return the rows of a manifest, less one that was cut short; none where there is no file."""
    if not path.is_file():
        return []
    rows = []
    for row in path.read_text().splitlines(keepends=True)[1:]:
        parts = row.rstrip("\n").split("\t")
        if row.endswith("\n") and len(parts) == len(Entry._fields):
            rows.append(Entry(parts[0], int(parts[1]), parts[2], parts[3]))
    return rows


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
