"""The rotating files of a run's state: the newest that is intact is the one to go on from."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from cookfire import distributed as idist
from cookfire.handlers._files import load_file, remove_file, save_file
from cookfire.handlers._reading import DamagedCheckpoint

KEPT = 2
"""Files kept: should the newest be damaged, the one before it is still there."""

logger = logging.getLogger("cookfire.handlers.recipe")


class StateFiles:
    """``state_<iteration>.pt`` in a folder; the first process writes them, all read them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, iteration: int, state: dict[str, Any]) -> None:
        """Save the state, then delete all but the newest files."""
        if idist.get_rank() == 0:
            save_file(state, self._path(iteration))
            for old in self._iterations()[KEPT:]:
                remove_file(self._path(old))

    def newest(self) -> dict[str, Any] | None:
        """Return the newest intact state, None if there is none.

        Damaged files are skipped aloud, and deleted, so that they don't count as kept ones.
        """
        iteration, state = self._newest_intact() if idist.get_rank() == 0 else (-1, None)
        iteration = int(idist.broadcast(iteration, src=0))
        if iteration >= 0 and state is None:
            state = self._load(iteration)
        return state

    def _newest_intact(self) -> tuple[int, dict[str, Any] | None]:
        for iteration in self._iterations():
            try:
                return iteration, self._load(iteration)
            except DamagedCheckpoint as error:
                logger.warning("skipped: %s", error)
                remove_file(self._path(iteration))
        return -1, None

    def _load(self, iteration: int) -> dict[str, Any]:
        state: Any = load_file(self._path(iteration), map_location="cpu")
        return dict(state)

    def _path(self, iteration: int) -> Path:
        return self.folder / f"state_{iteration}.pt"

    def _iterations(self) -> list[int]:
        """Return the iterations of the files, the newest first."""
        found = (re.fullmatch(r"state_(\d+)\.pt", path.name) for path in self.folder.glob("*.pt"))
        return sorted((int(match[1]) for match in found if match), reverse=True)
