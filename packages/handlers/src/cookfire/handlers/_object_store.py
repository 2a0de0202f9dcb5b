"""Checkpoints in a folder that fsspec reaches: S3 and other object stores, FTP, SFTP, memory."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from cookfire.handlers._delivery import require
from cookfire.handlers._file_names import newest_first
from cookfire.handlers._files import save_file, side_name
from cookfire.handlers._reading import DamagedCheckpoint, damage, read

__all__ = ["PAUSES", "ObjectStore", "is_url"]

T = TypeVar("T")

PAUSES = (1.0, 2.0, 4.0)
"""Seconds before what failed is tried again; after the last one it is an error."""

# Of fsspec's protocols, those whose objects are there when they are whole. Elsewhere a file is
# written under another name and moved.
_OBJECT_STORES = {
    "abfs",
    "abfss",
    "adl",
    "az",
    "gcs",
    "gs",
    "hf",
    "memory",
    "oci",
    "oss",
    "s3",
    "s3a",
}
# Those whose paths begin with a bucket.
_BUCKETS = {"gcs", "gs", "oss", "s3", "s3a"}
# What trying again does not change.
_FINAL = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError,
    ImportError, TypeError, ValueError, LookupError, AttributeError, NotImplementedError,
)  # fmt: skip


def is_url(place: object) -> bool:
    """Tell whether a place of checkpoints is an address such as ``s3://bucket/folder``."""
    return isinstance(place, str) and "://" in place


class ObjectStore:
    """A folder at an address; every access is tried again a few times if that may help.

    Args:
        url: the folder's address.
        options: for the file system of fsspec: keys, endpoints, ...

    Raises:
        ModuleNotFoundError: fsspec, or the package of the address's protocol, is not installed.
        ValueError: the address has an unknown protocol, or names no folder.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        require("fsspec", "FsspecSaver")
        import fsspec.core

        self.url = url.rstrip("/") if url.rstrip("/")[-1:] != ":" else url
        try:
            self._fs, root = fsspec.core.url_to_fs(url, **(options or {}))
        except ImportError as error:
            raise ModuleNotFoundError(f"{url}: {_line(error)}") from error
        except Exception as error:  # whatever the protocol's package raises
            raise _explained(url, "making the file system", error) from error
        self._root: str = root.rstrip("/")
        protocol = self._fs.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._whole = not self._protocols.isdisjoint(_OBJECT_STORES)

    def address(self, name: str) -> str:
        """Return the address of the checkpoint called ``name``."""
        return f"{self.url}/{name}"

    def prepare(self) -> list[str]:
        """Check that the folder can be used; return the names of the checkpoints in it.

        Raises:
            OSError: it can't be reached; one line says why.
        """
        bucket = self._root.split("/")[0]
        has_buckets = not self._protocols.isdisjoint(_BUCKETS)
        if has_buckets and not bucket:
            raise ValueError(f"{self.url}: expected a bucket after ://")
        if not self._whole:
            self._attempt("making the folder", "", self._make_folder)
        names = self.newest_first("*.pt")
        # Not asked before: an error of the listing says more.
        if has_buckets and not names and not self._fs.exists(bucket):
            raise FileNotFoundError(f"{self.url}: there is no bucket {bucket!r}; make it first")
        return names

    def save(self, state: object, name: str) -> None:
        """Store a checkpoint and its sha256, the former completely or not at all.

        Raises:
            TypeError: the state holds what ``weights_only`` loading refuses.
            OSError: it could not be stored; says where and why.
        """
        with TemporaryDirectory(prefix="cookfire-") as folder:
            path = Path(folder) / name
            save_file(state, path)
            # No sum while the object changes: at no moment a good one is beside another's sum.
            self._attempt("removing the old sum", name, lambda: self._remove(side_name(name)))
            for file in (path, path.with_name(side_name(name))):
                self._attempt("storing it", name, partial(self._put, file))

    def remove(self, name: str) -> None:
        """Remove a checkpoint and its sha256; a missing one is no error."""
        for part in (name, side_name(name)):
            self._attempt("removing it", part, partial(self._remove, part))

    def load(self, name: str) -> object:
        """Load a checkpoint into main memory, with the checks of a file on the disk.

        Raises:
            DamagedCheckpoint: it is not what was stored, no checkpoint at all, or asks for more
                than tensors and plain values.
            OSError: it is missing, or can't be reached.
        """
        address, side = self.address(name), side_name(name)
        with TemporaryDirectory(prefix="cookfire-") as folder:
            path = Path(folder) / "checkpoint"
            while True:
                expected = self._attempt("reading its sum", name, lambda: self._text(side))
                self._attempt("reading it", name, lambda: self._get(name, path))
                with path.open("rb") as file:
                    problem = damage(file, expected, side)
                    if problem is None:
                        return read(file, address, "cpu")
                if self._attempt("reading its sum", name, lambda: self._text(side)) == expected:
                    raise DamagedCheckpoint(f"{address}: damaged: {problem}")
                # It was being replaced: what was compared is one object with the sum of another.

    def newest_first(self, pattern: str) -> list[str]:
        """Return the names of the checkpoints that fit ``pattern``, the one stored last first."""
        return self._attempt("listing", "", lambda: self._names(pattern))

    # What is tried again

    def _names(self, pattern: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        files = [item["name"] for item in found if item["type"] == "file"]
        ages = [(self._age(path), path.rsplit("/", 1)[-1]) for path in files]
        return newest_first([item for item in ages if fnmatchcase(item[1], pattern)])

    def _age(self, path: str) -> float:
        try:
            modified = self._fs.modified(path)
        except NotImplementedError:  # then the numbers in the names decide
            return 0.0
        return modified.timestamp() if isinstance(modified, datetime) else float(modified)

    def _text(self, name: str) -> str | None:
        try:
            content: bytes = self._fs.cat_file(self._path(name), start=0, end=1000)
        except FileNotFoundError:
            return None
        return content.decode(errors="replace")

    def _get(self, name: str, path: Path) -> None:
        self._fs.get_file(self._path(name), str(path))

    def _put(self, file: Path) -> None:
        target = self._path(file.name)
        if self._whole:
            self._fs.put_file(str(file), target)
        else:
            temporary = self._path(f".cookfire-{secrets.token_hex(8)}.tmp")
            try:
                self._fs.put_file(str(file), temporary)
                self._fs.mv(temporary, target)
            except BaseException:  # to clean up, also at Ctrl-C
                with suppress(Exception):  # the first error is the one to tell
                    self._fs.rm_file(temporary)
                raise
        self._fs.invalidate_cache()
        stored, size = self._fs.info(target)["size"], file.stat().st_size
        if stored is not None and stored != size:
            raise OSError(f"{stored} bytes were stored of {size}")

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def _make_folder(self) -> None:
        self._fs.makedirs(self._root, exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _attempt(self, what: str, name: str, action: Callable[[], T]) -> T:
        """Do it, again after a pause if it fails for a reason that may pass."""
        address = self.address(name) if name else self.url
        for pause in PAUSES:
            try:
                return action()
            except Exception as error:  # of any package; told apart below
                if not _may_pass(error):
                    raise _explained(address, what, error) from error
                logging.getLogger(__name__).warning(
                    "%s: %s failed, tried again in %g s: %s", address, what, pause, _line(error)
                )
                time.sleep(pause)
        try:
            return action()
        except Exception as error:  # the same, the last time
            raise _explained(address, what, error) from error


def _may_pass(error: Exception) -> bool:
    return not (isinstance(error, _FINAL) or _lacks_credentials(error))


def _lacks_credentials(error: Exception) -> bool:
    return "Credential" in type(error).__name__


def _explained(address: str, what: str, error: Exception) -> Exception:
    """Return an error of the same kind in one line that says where and what to do."""
    if isinstance(error, PermissionError) or _lacks_credentials(error):
        return PermissionError(
            f"{address}: {what} is not allowed ({_line(error)}). Give credentials as the file "
            f"system's package documents, in the environment or as arguments of FsspecSaver"
        )
    kind = type(error) if isinstance(error, _FINAL) else OSError
    if not issubclass(kind, OSError | ValueError | TypeError):
        kind = OSError
    return kind(f"{address}: {what} failed: {_line(error)}")


def _line(error: Exception) -> str:
    """Return what an error says, in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
