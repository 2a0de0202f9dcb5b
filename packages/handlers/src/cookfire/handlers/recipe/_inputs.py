"""What a run's results follow from, beside its environment, and how two of these differ in words.

Verify compares them only where bits differ, to name the reason: a change that leaves all bits as
they were is no difference.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cookfire.handlers.recipe import _git
from cookfire.handlers.recipe._errors import name_some
from cookfire.handlers.recipe._fingerprint import HASH, core_folders, fingerprint, flatten

SHOWN = 12
"""Digits of a hash that are shown."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Parameters, data and code of a run; the hashes are sha256 in hex."""

    parameters: dict[str, object]
    """The profile's block of params.yaml."""

    data: str
    """Of the data set; empty where it is not there."""

    recipe: str
    """Of the recipe's own Python files, less tests."""

    core: str
    """Of the ``cookfire`` packages' Python files."""


def inputs_of(run: Mapping[str, Any]) -> Inputs:
    """Return the inputs of a run that a manifest notes."""
    return _inputs(run["parameters"], run["fingerprint"])


def inputs_here(folder: Path, block: object) -> Inputs:
    """Return what a run of the recipe would be made of now."""
    parameters = block if isinstance(block, dict) else {}
    data = folder / str(parameters.get("data", ""))
    return _inputs(parameters, fingerprint(block, folder, data if data.exists() else None))


def explain(expected: Inputs, found: Inputs, *, folder: Path, commit: str) -> list[str]:
    """Return how a run's inputs differ from a baseline's: ``parameters differ: lr 1, baseline 2``.

    Args:
        expected: the baseline's.
        found: the run's.
        folder: the recipe's folder.
        commit: the baseline's, since which git can name the files that changed.
    """
    phrases = []
    before, after = dict(flatten("", expected.parameters)), dict(flatten("", found.parameters))
    changed = [
        f"{name} {after.get(name, 'unset')}, baseline {before.get(name, 'unset')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]
    if changed:
        phrases.append(f"parameters differ: {name_some(changed, separator='; ')}")
    if found.data and expected.data != found.data:
        here, there = found.data[:SHOWN], expected.data[:SHOWN]
        phrases.append(f"data differ: sha256 {here}, baseline {there}")
    if places := _changed_code(expected, found, folder, commit):
        phrases.append("code differs too" if phrases else f"code differs: {name_some(places)}")
    return phrases


def _changed_code(expected: Inputs, found: Inputs, folder: Path, commit: str) -> list[str]:
    """Return the files whose code differs, or the two halves of it where git can't tell."""
    present = inputs_here(folder, {})
    names: list[str] = []
    for half, where, paths in (
        ("recipe", "the recipe's own files", [folder]),
        ("core", "the cookfire packages", list(core_folders())),
    ):
        if getattr(expected, half) == getattr(found, half):
            continue
        as_it_ran = getattr(present, half) == getattr(found, half)
        names += (as_it_ran and _git.changed_code(folder, commit, paths)) or [where]
    return names


def _inputs(parameters: dict[str, object], prints: Mapping[str, str]) -> Inputs:
    return Inputs(
        parameters=parameters,
        data=prints.get("data", "").removeprefix(HASH),
        recipe=_hash_of_code(prints, core=False),
        core=_hash_of_code(prints, core=True),
    )


def _hash_of_code(prints: Mapping[str, str], *, core: bool) -> str:
    digest = hashlib.sha256()
    for name in sorted(name for name in prints if name.startswith("file ")):
        folder, _, path = name.removeprefix("file ").partition("/")
        if (folder == "cookfire") is core:  # a recipe may be renamed, and stays the same
            digest.update(f"{path}\0{prints[name]}\n".encode())
    return digest.hexdigest()
