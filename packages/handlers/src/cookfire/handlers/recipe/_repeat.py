"""One profile with several seeds, one after the other: what the seed makes of the metrics."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path

from cookfire.handlers._files import write_atomically
from cookfire.handlers.recipe import _environment, _git, _manifest
from cookfire.handlers.recipe._child import run_python
from cookfire.handlers.recipe._errors import RecipeError, show_path
from cookfire.handlers.recipe._fingerprint import fingerprint
from cookfire.handlers.recipe._layout import align
from cookfire.handlers.recipe._parameters import find_profile, load_common
from cookfire.handlers.recipe._records import write_record
from cookfire.handlers.recipe._spread import Spread, spreads
from cookfire.handlers.recipe._verify import METRICS, WEIGHTS, read_metrics

CARD = "README.md"


def repeat(folder: Path, profile: str, runs: int = 5, card: bool = False) -> dict[str, Spread]:
    """Train and evaluate the profile with the seeds 0 to ``runs - 1``; print mean and spread.

    Each seed's run is in ``logs/<profile>.repeat/seed_<n>``, beside DVC's outs and not among them:
    locks and ``runs/`` stay as they are. A finished one is not run again unless its code,
    parameters or data have changed; one that was interrupted goes on.

    Args:
        folder: the recipe's folder.
        profile: the profile, whose own ``seed`` does not matter.
        runs: at least 2; 5 give an interval of ± 1.24 standard deviations.
        card: also write the table into the recipe's README.md, between two comments: those that are
            there, or new ones at its end.

    Returns:
        The spread of each metric by name; ``summary.json`` in the folder above holds it too.

    Raises:
        RecipeError: there is no such profile, fewer than two runs, or one of them failed.

    Example:
        >>> repeat(Path("recipes/mnist"), "tiny", runs=3)["accuracy"].mean  # doctest: +SKIP
        0.9583
    """
    if runs < 2:
        raise RecipeError(f"--runs: expected at least 2, which have a spread, got {runs}")
    folder = folder.resolve()
    params_yaml = folder / "params.yaml"
    block, config = find_profile(params_yaml, profile), load_common(params_yaml, profile)
    data = folder / config.data
    prints = fingerprint(block, folder, data if data.exists() else None, config.processes)
    place = folder / "logs" / f"{profile}.repeat"
    results = [
        _run_seed(folder, profile, seed, prints, place / f"seed_{seed}") for seed in range(runs)
    ]
    found = spreads(results)
    rows = {name: dataclasses.asdict(value) for name, value in found.items()}
    write_record(place / "summary.json", rows)
    print(f"{folder.name} {profile}, seeds 0 to {runs - 1}")
    for line in align([("", "mean", "std", "95 % interval of the mean"), *_cells(found)]):
        print(f"  {line}")
    if card:
        _write_card(folder, profile, runs, found)
    return found


def _run_seed(
    folder: Path, profile: str, seed: int, prints: Mapping[str, str], out: Path
) -> dict[str, float]:
    expected = {**prints, "parameter seed": str(seed)}
    for entry, written in (("train", WEIGHTS), ("evaluate", METRICS)):
        if _is_done(out, entry, written, expected):
            continue
        print(f"{folder.name} {profile}, seed {seed}: {entry}", flush=True)
        root, package = _package(folder)
        arguments = ["-m", f"{package}.{entry}", "--profile", profile,
                     "--seed", str(seed), "--out", str(out)]  # fmt: skip
        if code := run_python(arguments, root):
            raise RecipeError(
                f"seed {seed}: `python {shlex.join(arguments)}` ended with exit code {code}; the "
                "same repeat goes on from there"
            )
    metrics = read_metrics(out / METRICS)
    if metrics is None:
        raise RecipeError(f"{show_path(out / METRICS)}: holds no metrics")
    return metrics


def _is_done(out: Path, entry: str, written: str, expected: Mapping[str, str]) -> bool:
    """Tell whether this seed's file is there, of this code, these parameters, data and weights."""
    notes = _manifest.notes_on(out / "logs", entry, out / written)
    if notes is None or notes["fingerprint"] != expected:
        return False
    trained = _manifest.notes_on(out / "logs", "train", out / WEIGHTS)
    return trained is not None and notes["outputs"].get(WEIGHTS) == trained["outputs"][WEIGHTS]


def _package(folder: Path) -> tuple[Path, str]:
    """Return the folder to run in, and the recipe's name as a module there."""
    parts, root = [folder.name], folder.parent
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts)


def _cells(found: Mapping[str, Spread]) -> list[tuple[str, str, str, str]]:
    return [
        (name, f"{s.mean:.6g}", f"{s.std:.2g}", f"{s.low:.6g} to {s.high:.6g}")
        for name, s in found.items()
    ]


def _write_card(folder: Path, profile: str, runs: int, found: Mapping[str, Spread]) -> None:
    begin, end = f"<!-- repeat {profile} -->", f"<!-- end of repeat {profile} -->"
    here = _environment.describe(world_size=1)
    commit = _git.commit(folder)
    at = f", commit {commit[:7]}" if commit and not _git.changes(folder) else ""
    lines = [
        f"`{profile}`, mean over the seeds 0 to {runs - 1} (torch {here['torch']}, "
        f"{here['processor']}{at}):",
        "",
        "| metric | mean | std | 95 % interval of the mean |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(cells)} |" for cells in _cells(found)),
    ]
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {folder.name}\n"
    table = "\n".join([begin, *lines, end])
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if opened and not closed:
        raise RecipeError(f"{show_path(path)}: {begin} is not closed by {end}")
    text = f"{before}{table}{after}" if opened else f"{text.rstrip()}\n\n{table}\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    print(f"  written to {show_path(path)}")
