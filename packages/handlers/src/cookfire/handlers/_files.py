"""Files that are there completely or not at all, and checkpoints that can be trusted.

A file is written beside its place, synced to the disk, and renamed: a kill or a full disk at any
moment leaves the old file or the new one, never half of one. A checkpoint gets a second file,
``<name>.sha256`` in the format of ``sha256sum``, by which damage is noticed when it is loaded
(``torch.load`` itself does not notice a flipped bit).
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import io
import os
import pickle
import re
import secrets
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import torch

from cookfire.distributed import xla

__all__ = [
    "DamagedCheckpoint",
    "load_file",
    "remove_file",
    "save_file",
    "to_host",
    "write_atomically",
]

_File = io.BufferedRandom | io.BufferedReader
MapLocation = torch.device | str | dict[str, str] | Callable[[Any, str], Any] | None

# How torch.load names what it will not build, and how it says that a device is not there.
_REFUSED = re.compile(r"[Uu]nsupported (?:global|GLOBAL|class)[: ]+(?:GLOBAL )?(\S+)")
_NO_DEVICE = re.compile(r"deserialize object on|data location of|out of memory")
_TEMPORARY = re.compile(r"\.cookfire-[0-9a-f]{16}\.tmp")


class DamagedCheckpoint(ValueError):  # noqa: N818 - the file is the subject, as in FileNotFound
    """A file is no checkpoint, or not the one that was written, or would run code when loaded."""


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
        digest = _sync_and_digest(file)
        _replace(temporary, path)
    return digest


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
    state = _replace_in(to_host(state), _plain_number)
    side = _side_file(path)
    with _beside(path) as (temporary, file):
        _save(state, file, options)
        digest = _sync_and_digest(file)
        _check_that_it_loads(temporary, state, path)
        # While the file changes there is no side file, so that at no moment a good file
        # stands beside the sum of another.
        if side.exists():
            side.unlink()
            _sync_folder(path.parent)
        _replace(temporary, path)
    write_atomically(side, lambda file: file.write(f"{digest}  {path.name}\n".encode()))


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
        with path.open("rb") as file:
            damage = _damage(file, path)
            if damage is None:
                return _load(file, path, map_location)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise DamagedCheckpoint(f"{path}: damaged: {damage}")
        # It was being replaced: what was compared is the old file with the sum of the new one.


def remove_file(path: Path) -> None:
    """Remove a checkpoint and its sha256; a missing one is no error."""
    path.unlink(missing_ok=True)
    _side_file(path).unlink(missing_ok=True)


# --- writing


@contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, io.BufferedRandom]]:
    """Open a temporary file in the folder of ``path``; it is gone afterwards unless renamed."""
    _remove_leftovers(path.parent)
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
    return _digest(file)


def _digest(file: _File) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


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


# --- what may be in a checkpoint


def to_host(state: Any) -> Any:
    """Return ``state`` with XLA's tensors in main memory, so that it loads where there is no XLA.

    Other devices' tensors stay: ``map_location`` finds them a place.
    """
    if not xla.in_use():
        return state
    xla.sync()  # one graph for all, in place of one for each
    moved: dict[int, torch.Tensor] = {}

    def move(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.device.type != "xla":
            return value
        if id(value) not in moved:  # one that occurs twice is kept once
            moved[id(value)] = value.detach().cpu()
        return moved[id(value)]

    return _replace_in(state, move)


def _plain_number(value: Any) -> Any:
    return value.item() if isinstance(value, numpy.generic) else value


def _replace_in(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Return ``value`` with other leaves; what needs no other is returned as it is."""
    if isinstance(value, dict):
        changed = {
            key: new for key, old in value.items() if (new := _replace_in(old, replace)) is not old
        }
        if changed:
            value = copy.copy(value)  # keeps the kind of dict, and with it the file's bytes
            value.update(changed)
        return value
    if type(value) in (list, tuple):
        items = [_replace_in(item, replace) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)
    return replace(value)


def _check_that_it_loads(temporary: Path, state: object, path: Path) -> None:
    mapped = zipfile.is_zipfile(temporary)  # then nothing but the structure is read
    try:
        torch.load(temporary, map_location="cpu", mmap=mapped, weights_only=True)
    except pickle.UnpicklingError as error:
        where, kind = next(_not_plain(state, ""), ("", type(state)))
        raise TypeError(
            f"{path}: not saved, for it could not be loaded safely: {where or 'the state'} is a "
            f"{kind.__module__}.{kind.__qualname__}. A checkpoint holds tensors, numbers, strings, "
            f"and lists, tuples, sets and dicts of such; have state_dict return these."
        ) from error


_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, bytearray,
    torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device,
)  # fmt: skip


def _not_plain(value: Any, where: str) -> Iterator[tuple[str, type]]:
    """Find where ``value`` holds what weights-only loading refuses."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_plain(key, f"the key {key!r} of {where or 'the state'}")
            yield from _not_plain(item, f"{where}.{key}" if where else str(key))
    elif type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            yield from _not_plain(item, f"{where}[{index}]")
    elif type(value) not in _PLAIN:
        yield where, type(value)


# --- reading


def _side_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _damage(file: _File, path: Path) -> str | None:
    """Say what is wrong with the content and what to do; None if it is what was written."""
    side = _side_file(path)
    try:
        expected = side.read_text(errors="replace").split()[:1]
    except FileNotFoundError:
        return _damage_by_inner_sums(file)
    found = _digest(file)
    if [found] == expected:
        return None
    return (
        f"its sha256 is {found[:12]}..., but {side.name} says {''.join(expected)[:12]}... "
        f"Use an older checkpoint; if the file was replaced on purpose, remove {side.name}."
    )


def _damage_by_inner_sums(file: _File) -> str | None:
    """Look for damage by the sums that a file of ``torch.save`` holds for each of its parts."""
    file.seek(0)
    if file.read(2) != b"PK":
        return None  # an old format without sums, or no checkpoint: torch.load will tell
    try:
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except Exception as error:  # whatever a flipped bit makes of it
        return f"it is truncated or overwritten ({error}). Use an older checkpoint."
    return f"its part {bad} is not what was written. Use an older checkpoint." if bad else None


def _load(file: _File, path: Path, map_location: MapLocation) -> object:
    file.seek(0)
    try:
        with warnings.catch_warnings():
            # Of files in old formats torch warns that it may not know them; it raises then.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(file, map_location=map_location, weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever nonsense in the file leads to
        text = str(error)
        if isinstance(error, RuntimeError) and _NO_DEVICE.search(text):
            raise  # not the file's fault; torch says that map_location helps
        if found := _REFUSED.search(text):
            raise DamagedCheckpoint(
                f"{path}: refused, and nothing in it was run: it holds more than tensors and plain "
                f"values ({found[1]}). Load it by hand only if you trust where it is from."
            ) from error
        raise DamagedCheckpoint(
            f"{path}: no checkpoint, or a damaged one ({type(error).__name__}). Use a file that "
            f"was written by torch.save."
        ) from error
