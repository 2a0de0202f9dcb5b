"""Does what lies in ``runs/`` equal the baseline? Bit for bit where it can, else by tolerance."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from cookfire.handlers.recipe import _environment, _manifest, _outs
from cookfire.handlers.recipe._baseline import Baseline, read_baselines
from cookfire.handlers.recipe._errors import name_some, show_path
from cookfire.handlers.recipe._fingerprint import HASH, hash_file
from cookfire.handlers.recipe._hardware import deciding, versions_of
from cookfire.handlers.recipe._inputs import SHOWN, Inputs, explain, inputs_here, inputs_of
from cookfire.handlers.recipe._parameters import find_profile, load_common

Verdict = Literal["equal", "within tolerance", "differs", "can't say", "not here", "no baseline"]

CODES: Mapping[Verdict, int] = {
    "equal": 0, "within tolerance": 0, "no baseline": 0, "differs": 1, "can't say": 2,
    "not here": 2,
}  # fmt: skip
"""Exit codes."""

METRICS, WEIGHTS = "metrics.json", "model.pt"


@dataclasses.dataclass(frozen=True)
class Row:
    """One value compared."""

    name: str
    expected: str
    tolerance: str
    found: str
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Report:
    """What verify found out about a profile."""

    profile: str
    verdict: Verdict
    text: str
    """The verdict and its reason, in one line."""

    rows: tuple[Row, ...] = ()
    baseline: Baseline | None = None

    @property
    def headline(self) -> str | None:
        """The baseline's first metric, like ``accuracy 0.98``; None without a baseline."""
        if self.baseline is None or not self.baseline.metrics:
            return None
        name, metric = next(iter(self.baseline.metrics.items()))
        return f"{name} {metric.value:.6g}"

    @property
    def code(self) -> int:
        """Exit code: 0 equal, within tolerance or no baseline; 1 differs; 2 can't say."""
        return CODES[self.verdict]


def check(folder: Path, profile: str, locked: Mapping[str, str] | None = None) -> Report:
    """Compare the outs of a recipe's profile with its baseline, and with the lock's.

    Equal bits are demanded where the run's environment, which its manifest tells, is that of the
    baseline. Where outs came from a cache, so that no manifest speaks of them, the environment that
    the profile has on this machine stands in for it.

    Args:
        folder: the recipe's folder.
        profile: its name in params.yaml.
        locked: the md5 of each out by name, where they are not those of ``dvc.lock`` as it is: a
            rerun writes that anew.

    Raises:
        RecipeError: there is no such profile, or a file is not as it must be.
    """
    block = find_profile(folder / "params.yaml", profile)
    baseline = read_baselines(folder).get(profile)
    if baseline is None:
        return Report(profile, "no baseline", "no baseline: record one with --accept")
    outputs, logs = folder / "runs" / profile, folder / "logs" / profile
    weights = outputs / WEIGHTS

    def unknown(text: str) -> Report:
        return Report(profile, "can't say", f"can't say: {text}", baseline=baseline)

    for path in (weights, outputs / METRICS):
        if not path.exists():
            text = f"can't say: {show_path(path)} is not here; run the profile, or `dvc pull` it"
            return Report(profile, "not here", text, baseline=baseline)
    metrics = read_metrics(outputs / METRICS)
    if metrics is None:
        return unknown(f"{show_path(outputs / METRICS)} holds no metrics")
    sha256 = hash_file(weights)
    trained = _manifest.notes_on(logs, "train", weights)
    evaluated = _manifest.notes_on(logs, "evaluate", outputs / METRICS)
    if evaluated is not None and evaluated["outputs"].get(WEIGHTS) != sha256:
        return unknown(f"{show_path(outputs / METRICS)} is of other weights; evaluate again")

    here = "" if trained else "this machine has no record of this run, and "
    environment = trained["environment"] if trained else _environment_here(folder, profile)
    versions = trained.get("versions", {}) if trained else versions_of(folder)
    difference = (
        _first_difference(baseline.environment, environment)
        or (evaluated and _first_difference(baseline.environment, evaluated["environment"]))
        or _first_difference(baseline.versions, deciding(versions))
    )
    numbers = _compare_metrics(baseline, metrics)
    locked = _outs.locked_outs(folder, profile) if locked is None else locked
    changed = _outs.others(outputs, locked)
    rows = (*numbers, _compare_weights(baseline, sha256), *_compare_outs(locked, changed))
    if all(row.verdict == "equal" for row in rows):
        return Report(profile, "equal", "equal bits", rows, baseline)
    within = all(row.verdict != "differs" for row in numbers)
    runs = [inputs_of(run) for run in (trained, evaluated) if run] or [inputs_here(folder, block)]
    listed = _reasons(baseline, runs, folder)
    if changed:
        listed.append(f"{_outs.NAME} names other bytes of {name_some(changed)}")
    reasons = "; ".join(listed)
    if difference is None:
        same = "and parameters, data and code are the baseline's too"
        text = (
            f"differs: {here}its environment is the baseline's, so equal bits are demanded, "
            f"{f'but {reasons}' if reasons else same}"
        )
        return Report(profile, "differs", text, rows, baseline)
    verdict: Verdict = "within tolerance" if within else "differs"
    text = f"{verdict}: {here}equal bits are not demanded, since {difference}"
    return Report(profile, verdict, f"{text}; {reasons}" if reasons else text, rows, baseline)


def read_metrics(path: Path) -> dict[str, float] | None:
    """Return the numbers of a metrics file, nested names joined by dots; None if it holds none."""
    try:
        found = dict(_numbers("", json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, OverflowError, RecursionError):
        return None
    return found or None


def _numbers(prefix: str, value: object) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [
            number
            for name, item in value.items()
            for number in _numbers(f"{prefix}.{name}" if prefix else str(name), item)
        ]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [(prefix, float(value))]
    return []


def _compare_metrics(baseline: Baseline, found: Mapping[str, float]) -> list[Row]:
    rows = []
    for name, metric in baseline.metrics.items():
        value = found.get(name, math.nan)
        verdict: Verdict = "differs"
        if value == metric.value:
            verdict = "equal"
        elif abs(value - metric.value) <= metric.tolerance:
            verdict = "within tolerance"
        text = f"{value:.6g}" if name in found else "missing"
        rows.append(Row(name, f"{metric.value:.6g}", f"{metric.tolerance:g}", text, verdict))
    return rows


def _compare_weights(baseline: Baseline, sha256: str) -> Row:
    found = sha256.removeprefix(HASH)
    verdict: Verdict = "equal" if found == baseline.sha256 else "differs"
    return Row(WEIGHTS, baseline.sha256[:SHOWN], "", found[:SHOWN], verdict)


def _compare_outs(locked: Mapping[str, str], changed: Sequence[str]) -> list[Row]:
    if not locked:
        return []
    found = f"{len(changed)} differ" if changed else "the same"
    verdict: Verdict = "differs" if changed else "equal"
    return [Row(_outs.NAME, f"{len(locked)} outs", "", found, verdict)]


def _reasons(baseline: Baseline, runs: Sequence[Inputs], folder: Path) -> list[str]:
    """Return what differs, beside the environment, between the baseline and any of the runs."""
    phrases = [explain(baseline.inputs, run, folder=folder, commit=baseline.commit) for run in runs]
    return list(dict.fromkeys(phrase for listed in phrases for phrase in listed))


def _environment_here(folder: Path, profile: str) -> dict[str, str | int]:
    """Return the environment in which this machine would run the profile."""
    config = load_common(folder / "params.yaml", profile)
    variables = os.environ | {name: str(value) for name, value in config.environment.items()}
    return _environment.describe(
        world_size=config.processes,
        device=_environment.describe_default_device(variables),
        variables=variables,
    )


def _first_difference(
    expected: Mapping[str, str | int], found: Mapping[str, str | int]
) -> str | None:
    for name, value in expected.items():
        if found.get(name) != value:
            return f"{name} is {found.get(name, 'unknown')} here and {value} in the baseline"
    return None
