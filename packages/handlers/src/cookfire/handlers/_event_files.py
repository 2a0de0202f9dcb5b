"""Cutting TensorBoard's event files back to where they were when a checkpoint was saved.

A run that is killed has often logged past its last checkpoint; continued, it logs these steps
again. TensorBoard's own remedy, a purge step, is one number for all that a folder holds, so it
fails where some points are plotted over epochs and others over iterations. Event files only grow
at their end: the remedy here is to cut each of them back to its length at the time, and to remove
those begun later. Files of other runs in the folder are left alone: those of one run, over all
the processes that continue it, end in its mark.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cut_back", "lengths"]


def lengths(folder: Path, mark: str) -> dict[str, int]:
    """Return the lengths in bytes of a run's event files, by name."""
    return {path.name: path.stat().st_size for path in _event_files(folder, mark)}


def cut_back(folder: Path, mark: str, lengths: Mapping[str, int]) -> None:
    """Make a run's event files what they were when ``lengths`` was taken."""
    for path in _event_files(folder, mark):
        length = lengths.get(path.name)
        if length is None:
            path.unlink()
        elif path.stat().st_size > length:
            os.truncate(path, length)


def _event_files(folder: Path, mark: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.startswith("events.out.tfevents.") and path.name.endswith(mark)
    )
