"""``baseline.yaml``: for each profile what a run must give, and where that was found."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

from cookfire.handlers.recipe._errors import RecipeError, show_path
from cookfire.handlers.recipe._inputs import Inputs
from cookfire.handlers.recipe._parameters import read_as
from cookfire.handlers.recipe._yaml import read_yaml

NAME = "baseline.yaml"

HEADER = """\
# What verify expects of each profile; `verify --accept` writes it from a finished run.
# It keeps the tolerances and the metrics' order that it finds here (the first metric is the
# headline) and no comments. A tolerance is absolute, and decides where the environment differs:
# take it from the spread over seeds.
"""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A value that a run must give."""

    value: float
    tolerance: float
    """Largest distance from the value that still counts as reproduced elsewhere."""

    @classmethod
    def with_default_tolerance(cls, value: float) -> Metric:
        """Return the metric with 2 %, or 0.01 if that is more: a guess until there is a spread."""
        return cls(value, float(f"{max(0.01, 0.02 * abs(value)):.2g}"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a profile's run must give, and the environment in which its bits hold."""

    metrics: dict[str, Metric]
    sha256: str
    """Of ``model.pt``."""

    inputs: Inputs
    """What the run was made of: where bits differ, verify names the first that explains it."""

    environment: dict[str, str | int]

    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of Python and the recipe's dependencies; empty in what was recorded before they were."""

    commit: str
    date: str


def read_baselines(folder: Path) -> dict[str, Baseline]:
    """Return the recipe's baselines by profile; RecipeError if the file is not as it must be."""
    path = folder / NAME
    if not path.exists():
        return {}
    blocks = read_yaml(path) or {}
    if not isinstance(blocks, dict):
        raise RecipeError(f"{show_path(path)}: expected one block a profile, like `tiny:`")
    return {str(name): read_as(path, str(name), block, Baseline) for name, block in blocks.items()}


def format_baselines(baselines: Mapping[str, Baseline]) -> str:
    """Return the file's text."""
    blocks = {
        profile: {
            name: value
            for name, value in dataclasses.asdict(baseline).items()
            if name != "versions" or value
        }
        for profile, baseline in baselines.items()
    }
    return HEADER + "".join(f"{line}\n" for line in _lines(blocks, ""))


def _lines(mapping: Mapping[str, object], indent: str) -> list[str]:
    lines = []
    for name, value in mapping.items():
        key = name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else json.dumps(name)
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_lines(value, f"{indent}  ")]
        else:
            # Quoted: a hash like 12e34 must not become a number.
            lines.append(f"{indent}{key}: {json.dumps(value)}")
    return lines
