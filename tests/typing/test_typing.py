"""Our signatures say what they take and return, to a strict checker and where it matters."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.typing import user_file

ROOT = Path(__file__).resolve().parents[2]

# What may be anything on purpose: what users' functions and objects return, and what other
# libraries hand over.
ANYTHING = {
    "distributed": {
        "all_gather", "broadcast",  # overloaded: a tensor, a list of what was given, what was given
        "new_group",  # torch's process group, or the ranks where none is up
    },
    "engine": set(),
    "metrics": {
        "EpochMetric.compute", "ExternalMetric.compute", "Metric.compute", "MetricsLambda.compute",
        "VariableAccumulation.compute",
    },
    "handlers": {
        "BaseParamScheduler.get_param", "ConcatScheduler.get_param",  # a number, or one a group
        "BaseParamScheduler.plot_values", "FastaiLRFinder.plot",  # matplotlib's axes
        *(
            f"{logger}.{name}"
            for logger in ("ClearMLLogger", "MLflowLogger", "NeptuneLogger", "PolyaxonLogger",
                           "RunLogger", "VisdomLogger", "WandBLogger")
            for name in ("interface", "functions", "get_task", "__getitem__")  # the tracker's own
        ),
    },
    "metrics.regression": set(),
    "metrics.clustering": set(),
    "metrics.nlp": set(),
    "metrics.fairness": {"SubgroupMetric.compute"},  # a dict by group, or their difference
}  # fmt: skip


def test_a_strict_checker_finds_no_leak_and_refuses_each_mistake() -> None:
    # With the project's settings, and so its cache: mypy alone, in a minute, makes it.
    files = [f"tests/typing/{name}.py" for name in ("user_file", "misuse")]
    command = [sys.executable, "-m", "mypy", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout == "Success: no issues found in 2 source files\n"


def test_what_the_user_file_promises_the_checker_is_true(tmp_path: Path) -> None:
    user_file.main(tmp_path)
    assert (tmp_path / "weights.safetensors").is_file()
    assert len((tmp_path / "curves.tsv").read_text().splitlines()) == 3


def functions_of(package: str) -> Iterator[tuple[str, object]]:
    """Yield each public function, and each public class's public methods that it defines."""
    module = importlib.import_module(f"cookfire.{package}")
    for name in module.__all__:
        public = getattr(module, name)
        if inspect.isfunction(public):
            yield name, inspect.unwrap(public)
        elif inspect.isclass(public):
            for method, function in vars(public).items():
                if not method.startswith("_") or method in ("__call__", "__getitem__"):
                    function = getattr(function, "__func__", function)
                    if inspect.isfunction(function):
                        yield f"{name}.{method}", inspect.unwrap(function)


@pytest.mark.parametrize("package", ANYTHING)
def test_no_public_function_returns_anything_but_those_that_do_on_purpose(package: str) -> None:
    functions = dict(functions_of(package))
    vague = {
        name for name, function in functions.items()
        if function.__annotations__.get("return", "Any") == "Any"
    }  # fmt: skip
    assert vague <= ANYTHING[package]
    assert {name for name in ANYTHING[package] if "Logger" not in name} <= vague
