"""Where checkpoints go: the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["BaseSaveHandler", "refuse_used"]


class BaseSaveHandler(ABC):
    """A place for checkpoints that can also remove them, so that a number of them rotates.

    :class:`Checkpoint` calls it on every rank; it decides itself which of them store. With
    ``background=True`` it is called in a thread, in which ranks can't exchange anything.

    Attributes:
        save_on_rank: the only rank that stores; None if there are several, or if it is not known.
            Saving in the background needs it where there are several processes.
        keeps_nothing: whether the checkpoint is stored when the call returns, so that its memory
            can hold the next one. With ``background=True`` that saves time; False is always safe.
    """

    save_on_rank: int | None = None
    keeps_nothing = False

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

    def address(self, filename: str) -> str | Path:
        """Return where the checkpoint of that name is, for users; its name if there is no more."""
        return filename

    def load(self, filename: str) -> object:
        """Load the checkpoint of that name, for :meth:`Checkpoint.reload_objects`.

        Raises:
            TypeError: this place only stores.
        """
        raise TypeError(
            f"{filename}: reload_objects needs checkpoints on the disk or in an object store: "
            f"save_handler=DiskSaver or FsspecSaver, not {type(self).__name__}"
        )


def refuse_used(folder: str | Path, found: list[str]) -> None:
    """Raise ValueError if checkpoints were found in ``folder``."""
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(
            f"{folder}: has checkpoints already: {', '.join(sorted(found)[:3])}{more}; give "
            f"another folder, or pass require_empty=False"
        )
