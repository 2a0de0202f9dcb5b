"""The folder of an unfinished run: locked, keyed by a fingerprint, removed when its outs are out.

::

    .resume/<profile>/
        lock               held while a process trains; holds its id
        started.json       the fingerprint, and the environment that the run began in
        state_<n>.pt       what the run needs to go on after iteration n
        outputs/           the outs written so far
        finished.json      the run is complete, and its outs only need to be published
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cookfire.handlers.recipe import _lock
from cookfire.handlers.recipe._errors import name_some
from cookfire.handlers.recipe._fingerprint import differences
from cookfire.handlers.recipe._records import read_record, write_record

logger = logging.getLogger("cookfire.handlers.recipe")


class ResumeFolder:
    """An unfinished run's folder; use it inside ``with folder.locked():``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outputs = path / "outputs"

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder's lock; RecipeError names the process that has it already."""
        return _lock.locked(self.path)

    def begin(self, fingerprint: Mapping[str, str], environment: Mapping[str, str | int]) -> bool:
        """Keep what an interrupted run with the same fingerprint left, or clear the folder.

        Returns:
            Whether the run starts afresh.
        """
        started = read_record(self.path / "started.json")
        if started is not None and not {"fingerprint", "environment"} <= started.keys():
            started = None
        if started is not None and (changed := differences(started["fingerprint"], fingerprint)):
            logger.info("starting afresh: since the interrupted run, %s", name_some(changed))
            started = None
        if started is None:
            (self.path / "started.json").unlink(missing_ok=True)
            _lock.clear(self.path)
            self.outputs.mkdir(parents=True)
            record = {"fingerprint": dict(fingerprint), "environment": dict(environment)}
            write_record(self.path / "started.json", record)
        elif changed := [
            f"{name} {before} -> {environment[name]}"
            for name, before in started["environment"].items()
            if environment.get(name) != before
        ]:
            logger.warning(
                "this run began in another environment (%s): its bits may differ from those of an "
                "uninterrupted run", ", ".join(changed),
            )  # fmt: skip
        return started is None

    def finish(self, outcome: Mapping[str, object]) -> None:
        """Mark the run as complete: from here on, only publishing is left to do."""
        write_record(self.path / "finished.json", outcome)

    def finished(self) -> dict[str, Any] | None:
        """Return what ``finish`` was given, None if the run is not complete."""
        return read_record(self.path / "finished.json")

    def kept(self) -> int | None:
        """Return the iteration of the newest file of a state; None if there is none."""
        names = [path.stem.removeprefix("state_") for path in self.path.glob("state_*.pt")]
        return max((int(name) for name in names if name.isdecimal()), default=None)

    def publish(self, destination: Path) -> list[Path]:
        """Put every out into the destination, each whole; return where they are.

        The staged files stay until ``remove``: a run killed in between publishes them all again.
        """
        published = []
        for source in sorted(path for path in self.outputs.rglob("*") if path.is_file()):
            if source.name.startswith("."):
                continue  # the half-written file of a run that was killed
            if source.suffix == ".sha256" and source.with_suffix("").exists():
                continue  # DVC checks outs itself, and would leave this behind to go stale
            target = destination / source.relative_to(self.outputs)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.publishing")
            temporary.unlink(missing_ok=True)
            try:
                os.link(source, temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, temporary)
            temporary.replace(target)
            # Renaming one link of a file onto another of the same file does nothing at all.
            temporary.unlink(missing_ok=True)
            published.append(target)
        return published

    def remove_if_useless(self) -> None:
        """Delete the folder of a run that failed before it kept anything to go on with."""
        if self.finished() is None and self.kept() is None:
            self.remove()

    def remove(self) -> None:
        """Delete the folder, and ``.resume`` if nothing else is in it."""
        # This first: a folder without it holds nothing to go on with, whatever is left of it.
        (self.path / "started.json").unlink(missing_ok=True)
        _lock.remove(self.path)
