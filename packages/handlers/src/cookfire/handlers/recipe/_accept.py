"""Recording a baseline: from a run that this machine finished, of code that a commit holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cookfire.handlers._files import write_atomically
from cookfire.handlers.recipe import _environment, _git, _manifest
from cookfire.handlers.recipe._baseline import (
    NAME,
    Baseline,
    Metric,
    format_baselines,
    read_baselines,
)
from cookfire.handlers.recipe._errors import RecipeError, name_some, show_path
from cookfire.handlers.recipe._fingerprint import HASH, NOT_CODE, differences, fingerprint
from cookfire.handlers.recipe._hardware import deciding
from cookfire.handlers.recipe._inputs import inputs_of
from cookfire.handlers.recipe._parameters import find_profile
from cookfire.handlers.recipe._verify import METRICS, WEIGHTS, read_metrics


def accept(folder: Path, profile: str) -> None:
    """Write the profile's outs into ``baseline.yaml`` as what is expected from now on.

    The tree must be clean but for what runs write, and the run's code and parameters must be those
    of a commit: the present one, or the one that was checked out, unchanged, when it ran.

    Raises:
        RecipeError: one of that is not so; says what to do.
    """
    outputs, logs = folder / "runs" / profile, folder / "logs" / profile
    block = find_profile(folder / "params.yaml", profile)
    metrics = read_metrics(outputs / METRICS)
    trained = _manifest.notes_on(logs, "train", outputs / WEIGHTS)
    evaluated = _manifest.notes_on(logs, "evaluate", outputs / METRICS)
    if metrics is None or trained is None or evaluated is None:
        raise RecipeError(
            f"{show_path(outputs)}: no finished run of this machine (train and evaluate, with "
            f"{show_path(logs / _manifest.NAME)}) to record; run the profile here first"
        )
    sha256 = trained["outputs"][WEIGHTS]
    if evaluated["outputs"].get(WEIGHTS) != sha256:
        raise RecipeError(f"{show_path(outputs / METRICS)}: of other weights; evaluate again")
    if evaluated["fingerprint"]["data"] != trained["fingerprint"]["data"]:
        raise RecipeError(f"{show_path(outputs / METRICS)}: of other data; evaluate again")
    baselines = read_baselines(folder)
    known = baselines[profile].metrics if profile in baselines else {}
    recorded = {name: metric.tolerance for name, metric in known.items() if name in metrics}
    baselines[profile] = Baseline(
        metrics={
            name: Metric(metrics[name], recorded[name])
            if name in recorded
            else Metric.with_default_tolerance(metrics[name])
            for name in [*recorded, *(name for name in metrics if name not in recorded)]
        },
        sha256=sha256.removeprefix(HASH),
        inputs=inputs_of(trained),
        environment=_environment.in_order(trained["environment"]),
        versions=deciding(trained.get("versions", {})),
        commit=_commit(folder, block, [trained, evaluated]),
        date=trained["date"][:10],
    )
    text = format_baselines(baselines)
    write_atomically(folder / NAME, lambda file: file.write(text.encode()))


def _commit(folder: Path, block: object, runs: Sequence[dict[str, Any]]) -> str:
    """Return the commit that holds the code and parameters of the runs."""
    changes, commit = _git.changes(folder), _git.commit(folder)
    if changes is None or commit is None:
        raise RecipeError(f"{show_path(folder)}: not in a git commit, which a baseline names")
    if changes:
        raise RecipeError(f"these are not in a commit yet: {name_some(changes)}; commit them first")
    code = fingerprint(block, folder)
    changed = sorted({phrase for run in runs for phrase in differences(_code_of(run), code)})
    if not changed:
        return commit
    ran_at = {run["commit"] for run in runs}
    if len(ran_at) == 1 and None not in ran_at and all(run["changes"] == [] for run in runs):
        return str(*ran_at)
    raise RecipeError(
        f"{show_path(folder)}: no commit holds what ran; since then: {name_some(changed)}; "
        "run the profile again"
    )


def _code_of(run: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in run["fingerprint"].items() if name not in NOT_CODE}
