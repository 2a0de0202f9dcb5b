"""Our signatures say what they take and return, to a strict checker and where it matters."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.public import public_modules
from tests.typing import user_file

ROOT = Path(__file__).resolve().parents[2]

# What may be anything on purpose: what users' functions and objects return, and what other
# libraries hand over.
ANYTHING = {
    "all_gather", "broadcast",  # overloaded: a tensor, a list of what was given, what was given
    "new_group",  # torch's process group, or the ranks where none is up
    "apply_to_tensor", "apply_to_type",  # a container of what the user's function returns
    "Metric.compute", "EpochMetric.compute", "ExternalMetric.compute", "MetricsLambda.compute",
    "VariableAccumulation.compute",  # by the user's function, or another library's metric
    "SubgroupMetric.compute",  # a dict by group, or their difference
    "Stateful.load_state_dict",  # of the user's objects, nobody looks at it
    "Run.load",  # what the recipe saved
    *(
        f"{logger}.{name}"
        for logger in ("ClearMLLogger", "MLflowLogger", "NeptuneLogger", "PolyaxonLogger",
                       "RunLogger", "VisdomLogger", "WandBLogger")
        for name in ("interface", "functions", "get_task", "vis", "run", "library", "__getitem__")
    ),  # the tracker's own
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


def functions_of(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield each public function, and all that a public class's objects answer of ours."""
    for name in module.__all__:
        public = getattr(module, name)
        if inspect.isfunction(public):
            yield name, inspect.unwrap(public)
        elif inspect.isclass(public):
            for method in dir(public):
                found = inspect.getattr_static(public, method)
                found = getattr(found, "fget", None) or getattr(found, "__func__", found)
                spoken = not method.startswith("_") or method in ("__call__", "__getitem__")
                if spoken and inspect.isfunction(found):
                    yield f"{name}.{method}", inspect.unwrap(found)


def test_no_public_function_returns_anything_but_those_that_do_on_purpose() -> None:
    functions = {
        name: function
        for module in public_modules()
        for name, function in functions_of(module)
        if function.__module__.startswith("cookfire.")
    }
    assert len(functions) > 500
    vague = {
        name for name, function in functions.items()
        if function.__annotations__.get("return", "Any") == "Any"
    }  # fmt: skip
    assert vague <= ANYTHING
    assert {name for name in ANYTHING if "Logger" not in name} <= vague
