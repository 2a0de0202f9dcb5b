"""The house rules that a reader can't see in one file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A package imports only what stands before it.
ORDER = ["distributed", "engine", "metrics", "handlers"]
RECIPES = sorted(path.parent.name for path in (ROOT / "recipes").glob("*/pyproject.toml"))


def imported(file: Path, package: str) -> set[str]:
    """Return the absolute names of the modules that ``file``, a module of ``package``, imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_what_stands_before_it(package: str) -> None:
    source = ROOT / "packages" / package / "src"
    allowed = ORDER[: ORDER.index(package) + 1]
    for file in source.rglob("*.py"):
        module = ".".join(file.relative_to(source).parent.parts)
        for name in imported(file, module):
            if name.startswith("cookfire."):
                assert name.split(".")[1] in allowed, f"{file.relative_to(ROOT)} imports {name}"
            assert not name.startswith("recipes"), f"{file.relative_to(ROOT)} imports {name}"
            assert not name.startswith("ignite"), f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_imports_no_other_recipe_and_itself_by_relative_names(recipe: str) -> None:
    for file in (ROOT / "recipes" / recipe).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{file.relative_to(ROOT)} reaches out of the recipe"
                names = [node.module or ""] if not node.level else []
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("recipes"), f"{file.relative_to(ROOT)} imports {name}"


def test_cookfire_is_a_namespace_without_a_file_of_its_own() -> None:
    assert not list(ROOT.glob("packages/*/src/cookfire/__init__.py"))
    for package in ORDER:
        assert (ROOT / f"packages/{package}/src/cookfire/{package}/py.typed").is_file()


def test_every_cookfire_distribution_comes_from_this_workspace() -> None:
    ours = [dist for dist in metadata.distributions() if dist.name.startswith("cookfire")]
    assert {dist.name.removeprefix("cookfire-") for dist in ours} == set(ORDER)
    for package in ORDER:
        file = import_module(f"cookfire.{package}").__file__
        assert file is not None
        assert Path(file).is_relative_to(ROOT / "packages" / package)


@pytest.mark.parametrize("package", ORDER)
def test_every_public_name_is_listed_and_there(package: str) -> None:
    module = import_module(f"cookfire.{package}")
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name), f"cookfire.{package}.{name}"


def test_no_committed_file_names_a_registrys_address() -> None:
    hosts = ("pypi" + ".org", "files.python" + "hosted.org", "registry.npm" + "js.org")
    files = [
        ROOT / "pyproject.toml",
        *ROOT.glob("requirements*.lock"),
        *ROOT.glob("*/*/pyproject.toml"),
    ]
    for file in files:
        text = file.read_text()
        assert not any(host in text for host in hosts), file.relative_to(ROOT)
    assert "uv.lock" in (ROOT / ".gitignore").read_text().split()


def test_importing_the_engine_imports_no_tracker() -> None:
    code = "import sys, cookfire.engine, cookfire.handlers; print(*sys.modules)"
    names = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    for heavy in ("mlflow", "tensorboard", "matplotlib", "sklearn", "ignite"):
        assert heavy not in names


def sources() -> list[Path]:
    folders = ("packages", "recipes", "data", "tools", "examples", "benchmarks", "tests")
    return [file for folder in folders for file in (ROOT / folder).rglob("*.py")]


def test_whatever_silences_a_check_says_why_on_its_line() -> None:
    silenced = re.compile(r"# noqa(?::[A-Z0-9, ]+)?|# type: ignore(?:\[[\w, -]+\])?")
    reason = re.compile(r"\s*(?:-|#)\s*\w+")
    broad = re.compile(r"^\s*except(?: \(?(?:Base)?Exception\b[^:]*)?:(?P<rest>.*)$")
    found = 0
    for file in sources():
        if file == ROOT / "tests/typing/misuse.py":  # its ignores are what it tests
            continue
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            place = f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
            marks = list(silenced.finditer(line)) if "re.compile" not in line else []
            if marks:
                assert reason.match(line, marks[-1].end()), place
            if caught := broad.match(line):
                assert reason.match(caught["rest"]), place
            found += bool(marks or caught)
    assert found > 100


def test_whatever_skips_a_test_says_why() -> None:
    skips = re.compile(r"pytest\.(mark\.)?(skip|skipif|xfail|importorskip)")
    found = 0
    for file in sources():
        tree = ast.parse(file.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        skipping = [call for call in calls if skips.fullmatch(ast.unparse(call.func))]
        for call in skipping:
            place = f"{file.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}"
            said = "reason" in {keyword.arg for keyword in call.keywords}
            assert said or (call.args and ast.unparse(call.func) == "pytest.skip"), place
        # One that is not called, as a bare decorator, says nothing.
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        bare = [name for name in names if skips.fullmatch(ast.unparse(name))]
        assert len(bare) == len(skipping), file
        found += len(skipping)
    assert found > 10
