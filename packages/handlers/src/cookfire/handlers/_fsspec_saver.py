"""Checkpoints in object stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cookfire.distributed as idist
from cookfire.handlers._base_saver import BaseSaveHandler, refuse_used
from cookfire.handlers._object_store import ObjectStore

__all__ = ["FsspecSaver"]


class FsspecSaver(BaseSaveHandler):
    """Stores checkpoints in S3 or wherever else fsspec reaches, each with its sha256 beside it.

    A checkpoint is written into a temporary file on the local disk first, and checked there. Then
    it is stored completely or not at all: as a whole object, or, where there are files (FTP, SFTP,
    ``file://``), under another name that is changed at the end. What fails for a reason that may
    pass is tried again after 1, 2 and 4 seconds, and logged.

    :meth:`Checkpoint.load_objects` and :meth:`Checkpoint.load_newest` take such addresses too.

    Args:
        url: the folder: ``s3://bucket/folder`` (with s3fs installed), ``gs://...`` (gcsfs), or
            another one of fsspec's. The bucket must exist.
        require_empty: refuse a folder that has ``.pt`` objects, lest two runs mix.
        save_on_rank: the rank that stores; the others do nothing.
        storage_options: for fsspec's file system: ``key``, ``secret``, ``endpoint_url``, ... By
            default it looks into the environment, as the provider's own tools do.

    Raises:
        ModuleNotFoundError: fsspec, or the package for this kind of address, is not installed.
        ValueError: fsspec does not know the kind of address, or the folder is not empty.
        FileNotFoundError: there is no such bucket.
        PermissionError: credentials are missing or not accepted.
        OSError: the store can't be reached.

    Example:
        >>> saver = FsspecSaver("memory://runs/first")
        >>> checkpoint = Checkpoint({"model": model}, saver, n_saved=2, background=True)
        >>> checkpoint(engine)
        >>> checkpoint.wait()
        >>> Checkpoint.load_newest("memory://runs/first", {"model": model})
        'memory://runs/first/model_5.pt'
    """

    keeps_nothing = True

    def __init__(
        self,
        url: str,
        *,
        require_empty: bool = True,
        save_on_rank: int = 0,
        **storage_options: Any,
    ) -> None:
        self.url = url
        self.save_on_rank = save_on_rank
        self._store = ObjectStore(url, storage_options)
        if idist.get_rank() == save_on_rank:
            found = self._store.prepare()
            if require_empty:
                refuse_used(url, found)

    def __call__(
        self,
        checkpoint: Mapping[str, Any],
        filename: str,
        metadata: Mapping[str, Any] | None = None,  # noqa: ARG002 - the interface's
    ) -> None:
        """Store ``checkpoint`` as ``url/filename``, in place of an older one of that name.

        Raises:
            TypeError: the checkpoint holds what ``weights_only`` loading refuses.
            OSError: it could not be stored; says where and why.
        """
        if idist.get_rank() == self.save_on_rank:
            self._store.save(checkpoint, filename)

    def remove(self, filename: str) -> None:
        """Remove ``url/filename`` and its sha256; a missing one is no error."""
        if idist.get_rank() == self.save_on_rank:
            self._store.remove(filename)

    def address(self, filename: str) -> str:
        """Return the address, ``url/filename``."""
        return self._store.address(filename)

    def load(self, filename: str) -> object:
        """Load ``url/filename`` into main memory; see :meth:`Checkpoint.load_objects`."""
        return self._store.load(filename)
