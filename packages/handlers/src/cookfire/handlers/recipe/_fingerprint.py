"""What a run depends on, as named values: with equal ones, a run may continue another."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from cookfire.handlers.recipe._errors import RecipeError

CONTENT_LIMIT = 10**9
"""Bytes of data up to which content is hashed; above it, names and sizes must do (seconds a GB)."""

HASH = "sha256:"

CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")
"""How DVC names a file in its cache."""

NOT_CODE = ("data", "world size", "torch")
"""Entries that are neither code nor parameters."""


def fingerprint(
    block: object, recipe: Path, data: Path | None = None, world_size: int | None = None
) -> dict[str, str]:
    """Return the parameters, the code's hashes, and where given the data's, world size and torch.

    Args:
        block: the profile's block of params.yaml.
        recipe: the recipe's folder; its *.py files count, but for tests.
        data: the data set's folder or file.
        world_size: processes that share each batch.
    """
    entries = {f"parameter {name}": value for name, value in flatten("", block)}
    for path in _sources(recipe):
        entries[f"file {recipe.name}/{path.relative_to(recipe).as_posix()}"] = hash_file(path)
    for root in core_folders():
        for path in _sources(root):
            entries[f"file cookfire/{path.relative_to(root).as_posix()}"] = hash_file(path)
    if data is not None:
        entries["data"] = hash_data(data)
    if world_size is not None:
        entries["world size"] = str(world_size)
        entries["torch"] = torch.__version__
    return entries


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return what changed, a phrase each: ``parameter lr: 0.01 -> 0.02``, ``file x.py changed``."""
    phrases = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if before is None:
            phrases.append(f"{name} added")
        elif after is None:
            phrases.append(f"{name} removed")
        elif after.startswith(HASH):
            phrases.append(f"{name} changed")
        else:
            phrases.append(f"{name}: {before} -> {after}")
    return phrases


def hash_file(path: Path) -> str:
    """Return ``sha256:`` and the hex digest of the file's bytes."""
    with path.open("rb") as file:
        return HASH + hashlib.file_digest(file, "sha256").hexdigest()


def hash_data(data: Path) -> str:
    """Return one hash of a file or of a folder's files: names, sizes, and content up to 1 GB."""
    digest = hashlib.sha256()
    try:
        files = sorted(_files(data)) if data.is_dir() else [data]
        sizes = [path.stat().st_size for path in files]
        with_content = sum(sizes) <= CONTENT_LIMIT
        for path, size in zip(files, sizes, strict=True):
            content = hash_file(path) if with_content else ""
            digest.update(os.fsencode(path.relative_to(data)))
            digest.update(f"\0{size}\0{content}\n".encode())
    except OSError as error:
        raise RecipeError(f"{error.filename}: can't be read: {error.strerror}") from error
    return HASH + digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """Walk the files of a data set, which may come from a stranger: it must keep to its folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.is_symlink() and not _is_in_a_cache(path):
                raise RecipeError(
                    f"{path}: a link to {path.readlink()}; a data set must hold its files itself "
                    "(only DVC's links into its cache are followed): put the file there"
                )
            if entry.is_dir(follow_symlinks=False):
                yield from _files(path)
            elif entry.is_file():
                yield path
            else:
                raise RecipeError(f"{path}: neither a file nor a folder; take it away")


def _is_in_a_cache(link: Path) -> bool:
    """Tell whether a link leads to a file that DVC keeps: ``files/md5/<2 digits>/<30 digits>``."""
    target = link.parent / link.readlink()
    return bool(CACHED.search(target.as_posix())) and target.is_file() and not target.is_symlink()


def _sources(folder: Path) -> list[Path]:
    """Return the folder's Python files, but for tests, hidden folders and what runs wrote."""
    return sorted(
        path
        for path in folder.rglob("*.py")
        if not path.name.startswith("test_")
        and not any(part.startswith(".") or part in ("runs", "logs")
                    for part in path.relative_to(folder).parts)
    )  # fmt: skip


def core_folders() -> Iterator[Path]:
    """Return the folders of the ``cookfire`` packages."""
    import cookfire  # a namespace: its path has one folder a package

    yield from (Path(root) for root in cookfire.__path__)


def flatten(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    """Return each value of nested mappings as JSON, under its names joined by dots."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from flatten(f"{prefix}.{name}" if prefix else str(name), item)
    else:
        yield prefix, json.dumps(value)
