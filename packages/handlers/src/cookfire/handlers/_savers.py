"""Where checkpoints go: the interface, and the disk."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import cookfire.distributed as idist
from cookfire.handlers._contents import to_host
from cookfire.handlers._files import remove_file, save_file

__all__ = ["BaseSaveHandler", "DiskSaver", "SaveFunction", "on_all_ranks", "takes_metadata"]

SaveFunction = Callable[..., None]


class BaseSaveHandler(ABC):
    """A place for checkpoints that can also remove them, so that a number of them rotates.

    :class:`Checkpoint` calls it on every rank; it decides itself which of them store.
    """

    @abstractmethod
    def __call__(
        self,
        checkpoint: Mapping[str, Any],
        filename: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a checkpoint.

        Args:
            checkpoint: the state to store.
            filename: under which name.
            metadata: ``basename`` (the prefix and the object's name), ``score_name``, and
                ``priority`` (the score; without a score the step).
        """

    @abstractmethod
    def remove(self, filename: str) -> None:
        """Remove the checkpoint of that name."""


class DiskSaver(BaseSaveHandler):
    """Stores checkpoints in a folder, each completely or not at all, its sha256 beside it.

    A file is written beside its place, synced to the disk and renamed, so that a kill, a full disk
    or a power failure leaves the old file or the new one. What a killed save left behind is removed
    by the next.

    Args:
        dirname: the folder.
        atomic: False writes into the file itself, without a sha256: for a file system that can't
            rename. A kill then leaves half a file.
        create_dir: make the folder if it is not there.
        require_empty: refuse a folder that has ``.pt`` files, lest two runs mix.
        save_on_rank: the rank that writes; the others do nothing.
        kwargs: for ``torch.save``.

    Raises:
        ValueError: the folder is missing, or not empty.
        OSError: it can't be made or written.

    Example:
        >>> saver = DiskSaver(folder, require_empty=False)
        >>> saver(model.state_dict(), "model.pt")
    """

    def __init__(
        self,
        dirname: str | Path,
        atomic: bool = True,
        create_dir: bool = True,
        require_empty: bool = True,
        save_on_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        self.dirname = Path(dirname).expanduser()
        self.save_on_rank = save_on_rank
        self._atomic = atomic
        self._options = kwargs
        if idist.get_rank() == save_on_rank:
            _prepare(self.dirname, create_dir, require_empty)

    def __call__(
        self,
        checkpoint: Mapping[str, Any],
        filename: str,
        metadata: Mapping[str, Any] | None = None,  # noqa: ARG002 - the interface's
    ) -> None:
        """Write ``checkpoint`` to ``dirname/filename``, over an older file of that name.

        Raises:
            TypeError: the checkpoint holds what ``weights_only`` loading refuses.
            OSError: the folder can't be written, or the disk is full.
        """
        if idist.get_rank() != self.save_on_rank:
            return
        path = self.dirname / filename
        if self._atomic:
            save_file(checkpoint, path, **self._options)
            return
        remove_file(path)
        with path.open("wb") as file:
            torch.save(to_host(checkpoint), file, **self._options)

    def remove(self, filename: str) -> None:
        """Remove ``dirname/filename`` and its sha256; a missing one is no error."""
        if idist.get_rank() == self.save_on_rank:
            remove_file(self.dirname / filename)


def _prepare(folder: Path, create: bool, require_empty: bool) -> None:
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; make it, or pass create_dir=True")
    if require_empty and (found := sorted(path.name for path in folder.glob("*.pt"))):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(
            f"{folder}: has checkpoints already: {', '.join(found[:3])}{more}; give another "
            f"folder, or pass require_empty=False"
        )


def takes_metadata(handler: SaveFunction | BaseSaveHandler) -> bool:
    """Tell by its signature how to call a saver, so that its own errors stay its own."""
    if isinstance(handler, BaseSaveHandler):
        return True
    if not callable(handler):
        raise TypeError(
            f"save_handler must be a folder, a function or a BaseSaveHandler, "
            f"got {type(handler).__name__}"
        )
    try:
        signature = inspect.signature(handler)
    except ValueError:  # some built-in functions have none
        return False
    for count in (3, 2):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count == 3
    raise TypeError(
        f"save_handler takes {signature}, but would be called with (checkpoint, filename) or "
        f"(checkpoint, filename, metadata)"
    )


@contextmanager
def on_all_ranks(filename: str) -> Iterator[None]:
    """Wait for all ranks, and raise on all of them what is raised on one."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # raised again when the other ranks know
        failure = error
    reports = idist.all_gather("" if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    for rank, report in enumerate(reports):
        if report:
            raise RuntimeError(f"{filename} was not saved: rank {rank} raised {report}")
