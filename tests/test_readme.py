"""The pages' code runs as it stands, given what the page says that it is given."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from cookfire import handlers
from tests.warm import run_script

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
# These are run by tests/xla/test_examples.py and by tests/distributed/test_backends.py.
ELSEWHERE = {ROOT / "docs" / "xla.md", ROOT / "docs" / "backends.md"}
PAGES = sorted({*ROOT.glob("packages/*/README.md"), *ROOT.glob("docs/*.md")} - ELSEWHERE)

# What stands in front of the code of a page that says so, a page of its own among them.
GIVEN_IN = "docs/concepts.md"


def code_of(page: Path) -> str:
    return "\n".join(blocks_of(page.read_text()))


def blocks_of(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def given(page: Path) -> str:
    if "examples here are given" not in " ".join(page.read_text().split()):
        return ""
    _, section = (ROOT / GIVEN_IN).read_text().split("\n## What the examples are given\n")
    (code,) = blocks_of(section)
    return code


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_of(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_a_pages_code_runs(page: Path, tmp_path: Path) -> None:
    done = run_code(page, tmp_path)
    assert done.returncode == 0, done.stderr


def run_code(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "example.py"
    script.write_text(given(page) + code_of(page))
    return run_script(script, strict=True)


def test_each_tracker_takes_what_its_line_gives_it() -> None:
    """Those that want an account or a server of theirs are not called, but bound."""
    (code,) = re.findall(r"^```py\n(.*?)^```", (ROOT / "docs/trackers.md").read_text(), re.M | re.S)
    lines = [node.value for node in ast.parse(code).body if isinstance(node, ast.Expr)]
    calls = [
        node
        for line in lines
        for node in ast.walk(line)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert len(calls) == len(lines) > 10
    for call in calls:
        logger = getattr(handlers, call.func.id)
        names = {keyword.arg: ... for keyword in call.keywords}
        inspect.signature(logger).bind(*call.args, **names)


def test_excerpts_are_what_the_files_say() -> None:
    excerpts = [
        (ROOT / file, text)
        for page in PAGES
        for file, text in re.findall(
            r'^```py title="([^"]+)"\n(.*?)^```', page.read_text(), re.M | re.S
        )
    ]
    assert excerpts
    for file, text in excerpts:  # but for the indent, and where lines are broken
        assert "".join(text.split()) in "".join(file.read_text().split()), (file, text)


def test_the_readmes_example_keeps_one_best_model_however_often_it_is_run(tmp_path: Path) -> None:
    for _ in range(2):
        done = run_code(README, tmp_path)
        assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "models").glob("*.pt")] == ["best.pt"]


@pytest.mark.parametrize(
    "recipe", sorted(path.parent.name for path in ROOT.glob("recipes/*/baseline.yaml"))
)
def test_a_card_has_the_figure_and_the_commit_of_each_baseline(recipe: str) -> None:
    card = (ROOT / "recipes" / recipe / "README.md").read_text()
    blocks = yaml.safe_load((ROOT / "recipes" / recipe / "baseline.yaml").read_text())
    for profile, block in blocks.items():
        rows = re.findall(rf"^\| `{profile}`.*$", card, re.M)
        (row,) = [row for row in rows if f"| {block['commit'][:7]} |" in row]
        headline = next(iter(block["metrics"].values()))["value"]
        figures = re.findall(r"\d+\.(\d+)", row)
        assert any(f"{headline:.{len(decimals)}f}" in row for decimals in figures), (profile, row)
