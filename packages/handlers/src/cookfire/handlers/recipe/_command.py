"""The ``verify`` command, for ``python -m cookfire.handlers.recipe`` and the recipes' own shell."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cookfire.handlers.recipe._accept import accept as record
from cookfire.handlers.recipe._errors import RecipeError
from cookfire.handlers.recipe._layout import align
from cookfire.handlers.recipe._parameters import profiles as names_of_profiles
from cookfire.handlers.recipe._rerun import rerun as run_anew
from cookfire.handlers.recipe._verify import METRICS, Report, check


def verify(
    folder: Path,
    profiles: Iterable[str] | None = None,
    accept: bool = False,
    rerun: bool = False,
) -> int:
    """Compare a recipe's outs with its ``baseline.yaml``; print a table; return an exit code.

    Args:
        folder: the recipe's folder.
        profiles: names of profiles; None: all (with ``accept``, all that have run).
        accept: first record the outs as the baseline.
        rerun: before all, run the profiles' DVC cells anew. A run that fails or is interrupted
            leaves the outs of before; one that comes through is compared with their lock, too.

    Returns:
        0 if all are equal, within tolerance, or without a baseline; 1 if one differs; 2 if none
        differs but one can't be told.

    Raises:
        RecipeError: there is no such profile, a file is not as it must be, nothing can be
            recorded, or a rerun failed or was not told which profiles.

    Example:
        >>> verify(Path("recipes/mnist"), ["tiny"])
        mnist tiny
          metric    baseline  tolerance  found
          accuracy  0.961111  0.02       0.961111  equal
          model.pt  68080dfb37ce         68080dfb37ce  equal
          equal bits
        0
    """
    if rerun and profiles is None:
        raise RecipeError("--rerun needs --profile: all profiles together may take days")
    names = names_of_profiles(folder / "params.yaml") if profiles is None else list(profiles)
    locks = {name: run_anew(folder, name) for name in names} if rerun else {}
    if accept:
        if profiles is None:
            names = [name for name in names if (folder / "runs" / name / METRICS).exists()]
        for name in names:
            record(folder, name)
    reports = [check(folder, name, locks.get(name)) for name in names]
    for report in reports:
        print(f"{folder.resolve().name} {report.profile}")
        for line in table_of(report):
            print(f"  {line}")
        print(f"  {report.text}")
    return worst(report.code for report in reports)


def worst(codes: Iterable[int]) -> int:
    """Return 1 if anything differs, else 2 if anything can't be told, else 0."""
    found = set(codes)
    return next((code for code in (1, 2) if code in found), 0)


def table_of(report: Report) -> list[str]:
    """Return a report's rows as aligned lines, with a heading; nothing if there are no rows."""
    if not report.rows:
        return []
    heading = ("", "baseline", "tolerance", "found", "")
    rows = [(row.name, row.expected, row.tolerance, row.found, row.verdict) for row in report.rows]
    return align([heading, *rows])
