"""``logs/<profile>/manifest.json``: how the outs came about, beside them and not among them."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cookfire.handlers.recipe import _git
from cookfire.handlers.recipe._fingerprint import hash_file
from cookfire.handlers.recipe._hardware import describe_hardware, versions_of
from cookfire.handlers.recipe._records import read_record, write_record

NAME = "manifest.json"
KEYS = ("environment", "fingerprint", "outputs", "parameters")
"""Without which notes say nothing of a run."""


def record(
    logs: Path,
    entry: str,
    *,
    recipe: Path,
    data: Path,
    outputs: Path,
    environment: Mapping[str, str | int],
    fingerprint: Mapping[str, str],
    parameters: object,
    result: Mapping[str, float],
) -> None:
    """Note how an entry point's run went; other entry points' notes stay.

    Args:
        logs: the folder of the manifest.
        entry: ``train`` or ``evaluate``: the name of the file that ran.
        recipe: the recipe's folder.
        data: the data set that was used.
        outputs: the folder of the outs, whose hashes tie the notes to them.
        environment: what bits depend on, as the process that computed them saw it.
        fingerprint: hashes of code and data.
        parameters: the profile's block of params.yaml.
        result: what the function returned.
    """
    files = [path for path in outputs.iterdir() if path.is_file() and path.name[0] != "."]
    notes = {
        "command": sys.orig_argv,
        "commit": _git.commit(recipe),
        "changes": _git.changes(recipe),
        "data": str(data),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": dict(environment),
        "fingerprint": dict(fingerprint),
        "hardware": describe_hardware(str(environment.get("processor", "unknown"))),
        "outputs": {path.name: hash_file(path) for path in sorted(files)},
        "parameters": json.loads(json.dumps(parameters)),  # keys become text, which can be sorted
        "result": dict(result),
        "versions": versions_of(recipe),
    }
    write_record(logs / NAME, {**(read_record(logs / NAME) or {}), entry: notes})


def notes_on(logs: Path, entry: str, out: Path) -> dict[str, Any] | None:
    """Return the notes on the run of the entry point that wrote this very file; None if unknown."""
    notes = (read_record(logs / NAME) or {}).get(entry)
    if not isinstance(notes, dict) or not _is_whole(notes) or not out.exists():
        return None
    return notes if notes["outputs"].get(out.name) == hash_file(out) else None


def _is_whole(notes: Mapping[str, Any]) -> bool:
    """Tell whether it is what ``record`` wrote."""
    parts = [notes.get(key) for key in KEYS] + [notes.get("versions", {})]
    if not all(isinstance(part, dict) for part in parts):
        return False
    return all(isinstance(value, str) for value in notes["fingerprint"].values())
