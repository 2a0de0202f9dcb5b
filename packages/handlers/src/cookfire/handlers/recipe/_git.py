"""The commit a run belongs to, and what in the tree is not in it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

WRITTEN_BY_RUNS = ("dvc.lock", "baseline.yaml")
"""Files that a run or its acceptance writes; so does everything below a folder named ``runs``."""


def commit(folder: Path) -> str | None:
    """Return the full hash of the commit that is checked out, None outside git or before one."""
    found = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    return found.strip() if found else None


def changes(folder: Path) -> list[str] | None:
    """Return the paths that differ from the commit or are untracked, less what runs write.

    None outside git. Locks, metrics, plots and baselines are what a reproduction rewrites, so they
    don't count.
    """
    found = _git(
        folder, "--no-optional-locks", "status", "--porcelain", "-z", "--no-renames",
        "--untracked-files=all",
    )  # fmt: skip
    if found is None:
        return None
    paths = [entry[3:] for entry in found.split("\0") if entry]
    return [path for path in paths if not _written_by_runs(PurePosixPath(path))]


def changed_code(folder: Path, commit: str, paths: Sequence[Path]) -> list[str] | None:
    """Return the tracked Python files below the paths that differ from the commit, but for tests.

    None where git can't tell: outside it, or without that commit.
    """
    found = _git(
        folder, "diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", commit, "--",
        *map(str, paths),
    )  # fmt: skip
    if found is None:
        return None
    names = (PurePosixPath(name) for name in found.split("\0") if name.endswith(".py"))
    return [str(name) for name in names if not name.name.startswith("test_")]


def _written_by_runs(path: PurePosixPath) -> bool:
    return path.name in WRITTEN_BY_RUNS or "runs" in path.parts[:-1]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:  # git is not installed
        return None
    return done.stdout if done.returncode == 0 else None
