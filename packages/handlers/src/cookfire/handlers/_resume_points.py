"""The rotating files of a run's state: the newest that is intact is the one to go on from."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

from cookfire import distributed as idist
from cookfire.handlers._checks import check_whole
from cookfire.handlers._files import load_file, remove_file, save_file
from cookfire.handlers._reading import DamagedCheckpoint
from cookfire.handlers._savers import on_all_ranks

__all__ = ["ResumePoint", "ResumePoints"]


class ResumePoint(NamedTuple):
    """What a file holds, and where it is."""

    path: Path
    state: Any


class ResumePoints:
    """``state_<iteration>.pt`` in a folder; the first process writes them, all read them.

    Args:
        folder: made by the first save.
        n_saved: files that are kept; should the newest be damaged, the one before it is there.

    Raises:
        ValueError: ``folder`` is a file, or ``n_saved`` below 1.
    """

    def __init__(self, folder: str | Path, n_saved: int = 2) -> None:
        self.folder = Path(folder).expanduser()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: a file; resume points are kept in a folder")
        check_whole("n_saved", n_saved, "file")
        self.n_saved = n_saved

    def save(self, iteration: int, state: Any) -> None:
        """Save the state, then delete older files, and later ones: those of another attempt.

        All processes call it; what is raised in the one that writes is raised in all.
        """
        path = self._path(iteration)
        with on_all_ranks(f"{path} was not saved"):
            if idist.get_rank() != 0:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(state, path)
            # Later ones: damaged, so that the run went on from before them, or of a run that was
            # begun anew. They must not be taken for the newest.
            before = [other for other in self._iterations() if other < iteration]
            for other in self._iterations():
                if other > iteration or other in before[self.n_saved - 1 :]:
                    remove_file(self._path(other))

    def newest(self) -> ResumePoint | None:
        """Return the newest intact one, None if there is none; damaged ones are skipped aloud."""
        iteration, found = -1, None
        with on_all_ranks(f"{self.folder}: its states can't be read"):
            if idist.get_rank() == 0:
                iteration, found = self._newest_intact()
        iteration = int(idist.broadcast(iteration, src=0))
        return self._load(iteration) if iteration >= 0 and found is None else found

    def _newest_intact(self) -> tuple[int, ResumePoint | None]:
        for iteration in self._iterations():
            try:
                return iteration, self._load(iteration)
            except DamagedCheckpoint as error:
                logging.getLogger(__name__).warning("skipped: %s", error)
        return -1, None

    def _load(self, iteration: int) -> ResumePoint:
        path = self._path(iteration)
        return ResumePoint(path, load_file(path, map_location="cpu"))

    def _path(self, iteration: int) -> Path:
        return self.folder / f"state_{iteration}.pt"

    def _iterations(self) -> list[int]:
        """Return the iterations of the files, the newest first."""
        files = (path for path in self.folder.glob("*.pt") if path.is_file())
        found = (re.fullmatch(r"state_(\d+)\.pt", path.name) for path in files)
        return sorted((int(match[1]) for match in found if match), reverse=True)
