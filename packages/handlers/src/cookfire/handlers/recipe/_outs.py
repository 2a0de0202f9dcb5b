"""The outs that ``dvc.lock`` names for a profile, and whether the files that lie here are these."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import yaml

NAME = "dvc.lock"

# Hashes are text, also those of digits alone; the C parser reads a long lock ten times faster.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def locked_outs(folder: Path, profile: str) -> dict[str, str]:
    """Return the md5 of each file below ``runs/<profile>`` that the recipe's lock names.

    Args:
        folder: the recipe's folder.
        profile: the cells are those stages whose names end with ``@<profile>``.

    Returns:
        By path relative to ``runs/<profile>``; empty without a lock, or with one that can't be
        read (of which DVC itself complains), or where DVC has not run the profile.
    """
    try:
        lock = yaml.load((folder / NAME).read_text(encoding="utf-8"), Loader=_LOADER)
        stages = dict(lock["stages"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, RecursionError):
        return {}
    below = f"runs/{profile}/"
    found = {}
    for name, stage in stages.items():
        if not name.endswith(f"@{profile}") or not isinstance(stage, dict):
            continue
        for out in stage.get("outs") or []:
            before, here, path = str(out.get("path", "")).rpartition(below)
            if here and (not before or before.endswith("/")) and out.get("hash") == "md5":
                found[path] = str(out.get("md5"))
    return found


def with_stages(now: str | None, before: str | None, profile: str) -> str | None:
    """Return the text of a lock as it is now, but with the profile's stages as they were before.

    Where nothing else has changed, or what is there now can't be read, it is the text of before.
    """
    mine, theirs = _stages(before), _stages(now)
    kept = {name: stage for name, stage in mine.items() if name.endswith(f"@{profile}")}
    others = {name: stage for name, stage in theirs.items() if not name.endswith(f"@{profile}")}
    if not others or {**others, **kept} == mine:
        return before
    return yaml.safe_dump({"schema": "2.0", "stages": {**others, **kept}}, sort_keys=False)


def _stages(lock: str | None) -> dict[str, object]:
    try:
        content = yaml.safe_load(lock or "")
    except yaml.YAMLError:
        return {}
    stages = content.get("stages") if isinstance(content, dict) else None
    return stages if isinstance(stages, dict) else {}


def others(outputs: Path, locked: Mapping[str, str]) -> list[str]:
    """Return which of the files, as far as they are there, are not those of the lock."""
    return sorted(
        name
        for name, md5 in locked.items()
        if (outputs / name).is_file() and _md5(outputs / name) != md5
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
