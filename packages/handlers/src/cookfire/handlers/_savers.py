"""Where checkpoints go: the disk, a function, and what a user means by a place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cookfire.distributed as idist
from cookfire.handlers._base_saver import BaseSaveHandler, refuse_used
from cookfire.handlers._files import load_file, remove_file, save_file, save_file_at_once
from cookfire.handlers._fsspec_saver import FsspecSaver
from cookfire.handlers._object_store import is_url

__all__ = [
    "BaseSaveHandler",
    "DiskSaver",
    "SaveFunction",
    "as_saver",
    "check_rank",
    "on_all_ranks",
    "stores_here",
]

SaveFunction = Callable[..., None]


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

    keeps_nothing = True

    def __init__(
        self,
        dirname: str | Path,
        atomic: bool = True,
        create_dir: bool = True,
        require_empty: bool = True,
        save_on_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        if is_url(dirname):
            raise ValueError(f"{dirname}: not a folder of the disk; use FsspecSaver({dirname!r})")
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
        save_file_at_once(checkpoint, path, **self._options)

    def remove(self, filename: str) -> None:
        """Remove ``dirname/filename`` and its sha256; a missing one is no error."""
        if idist.get_rank() == self.save_on_rank:
            remove_file(self.dirname / filename)

    def address(self, filename: str) -> Path:
        """Return the path."""
        return self.dirname / filename

    def load(self, filename: str) -> object:
        """Load ``dirname/filename`` into main memory; see :meth:`Checkpoint.load_objects`."""
        return load_file(self.dirname / filename, map_location="cpu")


class FunctionSaver(BaseSaveHandler):
    """A function as a saver: it is called on one rank, and never removes anything."""

    def __init__(self, function: SaveFunction, save_on_rank: int) -> None:
        self.function = function
        self.save_on_rank = save_on_rank
        self._takes_metadata = _takes_metadata(function)

    def __call__(
        self,
        checkpoint: Mapping[str, Any],
        filename: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if idist.get_rank() != self.save_on_rank:
            return
        if self._takes_metadata:
            self.function(checkpoint, filename, metadata)
        else:
            self.function(checkpoint, filename)

    def remove(self, filename: str) -> None:
        pass


def _prepare(folder: Path, create: bool, require_empty: bool) -> None:
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; make it, or pass create_dir=True")
    if require_empty:
        refuse_used(folder, [path.name for path in folder.glob("*.pt")])


def _takes_metadata(function: SaveFunction) -> bool:
    """Tell by its signature how to call a function, so that its own errors stay its own."""
    try:
        signature = inspect.signature(function)
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


def as_saver(
    place: str | Path | SaveFunction | BaseSaveHandler, save_on_rank: int
) -> BaseSaveHandler:
    """Return the saver that a user means by a folder, an address, a function, or a saver.

    Raises:
        TypeError: it is none of these, or the function takes other arguments.
    """
    if isinstance(place, BaseSaveHandler):
        return place
    if isinstance(place, str) and is_url(place):
        return FsspecSaver(place, require_empty=False, save_on_rank=save_on_rank)
    if isinstance(place, str | Path):
        return DiskSaver(place, require_empty=False, save_on_rank=save_on_rank)
    if not callable(place):
        raise TypeError(
            f"save_handler must be a folder, a function or a BaseSaveHandler, "
            f"got {type(place).__name__}"
        )
    return FunctionSaver(place, save_on_rank)


def check_rank(save_on_rank: int | None) -> None:
    """Check that there is a process that saves.

    Raises:
        ValueError: no process has that rank: nothing would be saved, and nobody told.
    """
    size = idist.get_world_size()
    if save_on_rank is not None and save_on_rank not in range(size):
        raise ValueError(
            f"save_on_rank={save_on_rank!r}, but there are {size} processes, the first is 0"
        )


def stores_here(saver: BaseSaveHandler) -> bool:
    """Tell whether this is the rank on which ``saver`` stores.

    Raises:
        ValueError: there are several, and the saver does not say which.
    """
    if idist.get_world_size() > 1 and saver.save_on_rank is None:
        raise ValueError(
            "background=True among several processes needs a saver that says which of them "
            f"stores: give {type(saver).__name__} the attribute save_on_rank"
        )
    return saver.save_on_rank in (None, idist.get_rank())


@contextmanager
def on_all_ranks(trouble: str) -> Iterator[None]:
    """Wait for all ranks, and raise on all of them what is raised on one, as ``trouble``."""
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
            raise RuntimeError(f"{trouble}: rank {rank} raised {report}")
