"""Files that are there completely or not at all, and checkpoints that can be trusted.

A file is written beside its place, synced to the disk, and renamed: a kill or a full disk at any
moment leaves the old file or the new one, never half of one. A checkpoint gets a second file,
``<name>.sha256`` in the format of ``sha256sum``, by which damage is noticed when it is loaded
(``torch.load`` itself does not notice a flipped bit).
"""

from __future__ import annotations

import fcntl
import io
import os
import pickle
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cookfire.handlers._contents import plain, refused
from cookfire.handlers._reading import DamagedCheckpoint, MapLocation, damage, digest, read

__all__ = [
    "DamagedCheckpoint",
    "load_file",
    "remove_file",
    "save_file",
    "save_file_at_once",
    "side_line",
    "side_name",
    "write_atomically",
]

_File = io.BufferedRandom | io.BufferedReader
_TEMPORARY = re.compile(r"\.cookfire-[0-9a-f]{16}\.tmp")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> str:
    """Write a file so that it is there completely or not at all; return its sha256 in hex.

    Whatever ``write`` raises goes on, and a file that was at ``path`` stays untouched.
    Temporary files that killed writers left in the folder are removed.

    Args:
        path: where the file shall be; its folder must exist.
        write: is given an open binary file, seekable, and writes the content into it. The bytes
            must not depend on the file's name.

    Raises:
        OSError: the folder is missing or can't be written, or the disk is full.

    Example:
        >>> digest = write_atomically(folder / "notes.txt", lambda file: file.write(b"done"))
        >>> (folder / "notes.txt").read_text()
        'done'
    """
    with _beside(path) as (temporary, file):
        write(file)
        sha256 = _sync_and_digest(file)
        _replace(temporary, path)
    return sha256


def save_file(state: object, path: Path, **options: Any) -> None:
    """Save a checkpoint safely, with its sha256 beside it.

    Before the file takes its place it is checked that ``torch.load(weights_only=True)`` takes it.
    NumPy's scalars become Python's, for those it would refuse.

    Args:
        state: tensors, numbers, strings, and lists, tuples, sets and dicts of such.
        path: where the file shall be; its folder must exist.
        options: for ``torch.save``.

    Raises:
        TypeError: the state holds something else; says where.
        OSError: the folder is missing or can't be written, or the disk is full.

    Example:
        >>> save_file(model.state_dict(), folder / "model.pt")
    """
    state = plain(state)
    side = _side_file(path)
    with _beside(path) as (temporary, file):
        _save(state, file, options)
        sha256 = _sync_and_digest(file)
        _check_that_it_loads(temporary, state, path)
        # While the file changes there is no side file, so that at no moment a good file
        # stands beside the sum of another.
        if side.exists():
            side.unlink()
            _sync_folder(path.parent)
        _replace(temporary, path)
    write_atomically(side, lambda file: file.write(side_line(sha256, path.name).encode()))


def save_file_at_once(state: object, path: Path, **options: Any) -> None:
    """Save a checkpoint where it belongs: no copy, no sum, and half a file after a kill.

    Args and errors are those of :func:`save_file`.
    """
    state = plain(state)
    remove_file(path)
    try:
        with path.open("wb") as file:
            torch.save(state, file, **options)
        _check_that_it_loads(path, state, path)
    except BaseException:  # what can't be loaded is no checkpoint
        remove_file(path)
        raise


def load_file(path: Path, map_location: MapLocation = None) -> object:
    """Load a checkpoint; run no code of its own, and refuse a damaged one.

    The content is compared with ``<path>.sha256`` if that is there, else with the sums inside
    the file.

    Args:
        path: a file written by :func:`save_file`, or by ``torch.save``.
        map_location: as for ``torch.load``; ``"cpu"`` reads everything into main memory.

    Raises:
        DamagedCheckpoint: the file is not what was written, no checkpoint at all, or asks for
            more than tensors and plain values; says which, and what to do.
        OSError: the file is missing or can't be read.

    Example:
        >>> state = load_file(folder / "model.pt", map_location="cpu")
    """
    while True:
        with _naming(path), path.open("rb") as file:
            problem = damage(file, _expected(path), side_name(path.name))
            if problem is None:
                return read(file, str(path), map_location)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise DamagedCheckpoint(f"{path}: damaged: {problem}")
        # It was being replaced: what was compared is the old file with the sum of the new one.


def _expected(path: Path) -> str | None:
    try:
        with _side_file(path).open(errors="replace") as side:
            return side.read(1000)
    except FileNotFoundError:
        return None


def remove_file(path: Path) -> None:
    """Remove a checkpoint and its sha256; a missing one is no error."""
    path.unlink(missing_ok=True)
    _side_file(path).unlink(missing_ok=True)


def side_name(name: str) -> str:
    """Return the name of the file that holds the sha256 of the checkpoint called ``name``."""
    return f"{name}.sha256"


def side_line(digest: str, name: str) -> str:
    """Return what that file holds, in the format of ``sha256sum``."""
    return f"{digest}  {name}\n"


def _side_file(path: Path) -> Path:
    return path.with_name(side_name(path.name))


# --- writing


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error name ``path``, where the system names no file or a temporary one."""
    try:
        yield
    except OSError as error:
        named = error.filename
        if named is None or (isinstance(named, str) and _TEMPORARY.fullmatch(Path(named).name)):
            error.filename = str(path)
            del error.filename2  # where it is None, the text ends in "-> None"
        raise


@contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, io.BufferedRandom]]:
    """Open a temporary file in the folder of ``path``; it is gone afterwards unless renamed."""
    _remove_leftovers(path.parent)
    with _naming(path):
        temporary, file = _open_temporary(path.parent)
        try:
            with file:
                yield temporary, file
        finally:
            temporary.unlink(missing_ok=True)


def _open_temporary(folder: Path) -> tuple[Path, io.BufferedRandom]:
    """Create a temporary file and lock it: the lock tells it from what a killed writer left."""
    while True:
        path = folder / f".cookfire-{secrets.token_hex(8)}.tmp"
        # Not tempfile.mkstemp: its files are private, a checkpoint obeys the umask.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "w+b")
        _lock(file, fcntl.LOCK_EX)
        # Somebody who cleaned up between the two calls took it for a leftover: once more.
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def _lock(file: _File, how: int) -> bool:
    try:
        fcntl.flock(file.fileno(), how)
    except OSError:  # held by its writer, or a file system without locks
        return False
    return True


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files whose writers are dead: those that nobody has locked."""
    for name in os.listdir(folder):  # noqa: PTH208 - names are enough, and there may be many
        if not _TEMPORARY.fullmatch(name):
            continue
        with suppress(OSError), (folder / name).open("rb") as file:
            if _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                (folder / name).unlink(missing_ok=True)


def _save(state: object, file: io.BufferedRandom, options: Mapping[str, Any]) -> None:
    try:
        torch.save(state, file, **options)
    except RuntimeError as error:
        # When writing fails, torch may complain of an unexpected position instead.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _sync_and_digest(file: io.BufferedRandom) -> str:
    file.flush()
    os.fsync(file.fileno())
    return digest(file)


def _replace(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_that_it_loads(temporary: Path, state: object, path: Path) -> None:
    mapped = zipfile.is_zipfile(temporary)  # then nothing but the structure is read
    try:
        torch.load(temporary, map_location="cpu", mmap=mapped, weights_only=True)
    except pickle.UnpicklingError as error:
        where, kind = refused(state)
        raise TypeError(
            f"{path}: not saved, for it could not be loaded safely: {where or 'the state'} is a "
            f"{kind.__module__}.{kind.__qualname__}. A checkpoint holds tensors, numbers, strings, "
            f"and lists, tuples, sets and dicts of such; have state_dict return these."
        ) from error
