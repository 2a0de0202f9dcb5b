"""Reading a checkpoint from an open file: damage is noticed, and nothing in it is run."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

__all__ = ["DamagedCheckpoint", "MapLocation", "damage", "digest", "read"]

File = io.BufferedRandom | io.BufferedReader | BinaryIO
MapLocation = torch.device | str | dict[str, str] | Callable[[Any, str], Any] | None

# How torch.load names what it will not build, and how it says that a device is not there.
_REFUSED = re.compile(r"[Uu]nsupported (?:global|GLOBAL|class)[: ]+(?:GLOBAL )?(\S+)")
_NO_DEVICE = re.compile(r"deserialize object on|data location of|out of memory")


class DamagedCheckpoint(ValueError):  # noqa: N818 - the file is the subject, as in FileNotFound
    """A file is no checkpoint, or not the one that was written, or would run code when loaded."""


def digest(file: File) -> str:
    """Return the sha256 of a whole file in hex."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it asks for more than it uses


def damage(file: File, expected: str | None, side: str) -> str | None:
    """Say what is wrong with the content and what to do; None if it is what was written.

    Args:
        file: the open file.
        expected: what the file with its sum holds; None if there is none, then the sums inside
            the file are compared.
        side: the name of the file with the sum, to be told.
    """
    if expected is None:
        return _damage_by_inner_sums(file)
    found, sums = digest(file), expected.split()[:1]
    if [found] == sums:
        return None
    return (
        f"its sha256 is {found[:12]}..., but {side} says {''.join(sums)[:12]}... "
        f"Use an older checkpoint; if the file was replaced on purpose, remove {side}."
    )


def _damage_by_inner_sums(file: File) -> str | None:
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


def _is_compressed(file: File) -> bool:
    file.seek(0)
    if file.read(2) != b"PK":
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
    except Exception:  # whatever a flipped bit makes of it: torch.load will tell
        return False


def read(file: File, name: str, map_location: MapLocation = None) -> object:
    """Load a checkpoint from an open file, without running anything that is in it.

    Args:
        file: the open file.
        name: what it is called in errors: its path or address.
        map_location: as for ``torch.load``.

    Raises:
        DamagedCheckpoint: it is no checkpoint, or asks for more than tensors and plain values.
        OSError: it can't be read.
    """
    if _is_compressed(file):
        raise DamagedCheckpoint(
            f"{name}: refused: its parts are compressed, which torch.save never does, and could "
            f"fill the memory. Use a file that was written by torch.save."
        )
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
                f"{name}: refused, and nothing in it was run: it holds more than tensors and plain "
                f"values ({found[1]}). Load it by hand only if you trust where it is from."
            ) from error
        raise DamagedCheckpoint(
            f"{name}: no checkpoint, or a damaged one ({type(error).__name__}). Use a file that "
            f"was written by torch.save."
        ) from error
