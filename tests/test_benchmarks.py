"""The command that measures everything: what it writes into the page, and what it leaves alone."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks"
# A script of a section, which puts its name into the page.
SCRIPT = """
import os, sys
from pathlib import Path
name = Path(__file__).stem
page = Path(os.environ["COOKFIRE_BENCHMARKS_PAGE"])
before, rest = page.read_text().split(f"<!-- {name} -->\\n")
after = rest.split(f"<!-- end of {name} -->")[1]
page.write_text(f"{before}<!-- {name} -->\\n{name} {sys.argv[1:]}\\n<!-- end of {name} -->{after}")
"""


@pytest.fixture
def benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The command, with a copy of the page and two scripts: engine's works, metrics' fails."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("benchmarks_all", FOLDER / "all.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copy(FOLDER / "README.md", tmp_path)
    (tmp_path / "engine.py").write_text(SCRIPT)
    (tmp_path / "metrics.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "PAGE", tmp_path / "README.md")
    monkeypatch.setattr(module, "commit", lambda: "1234567")
    return module


def outside(page: str, *sections: str) -> str:
    """Return a page without what stands between the marks of sections."""
    for name in sections:
        page = re.sub(rf"(?s)<!-- {name} -->.*<!-- end of {name} -->", name, page)
    return page


def row(page: str, name: str) -> list[str]:
    (line,) = re.findall(rf"^\| \[{name}\]\(.*\) \| (.*) \|$", page, re.MULTILINE)
    return line.split(" | ")


def test_a_section_and_the_machine_are_written_and_every_text_is_kept(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = benchmarks.PAGE.read_text()
    monkeypatch.setattr(sys, "argv", ["all.py", "--only", "engine"])
    assert benchmarks.main() == 0
    page = benchmarks.PAGE.read_text()
    assert "<!-- engine -->\nengine ['--write']\n<!-- end of engine -->" in page
    assert outside(page, "engine", "machine") == outside(before, "engine", "machine")
    measured, commit, load, minutes = row(page, "engine")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", measured)
    assert (commit, minutes) == ("1234567", "0.0")
    assert float(load) >= 0
    assert row(page, "metrics") == row(before, "metrics")
    assert re.search(r"\d+ cores, \d+ GiB, .*; Python 3\..*, torch \d.*, pytorch-ignite \d", page)


def test_what_was_measured_before_keeps_its_row(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = benchmarks.PAGE
    run = ["2020-02-02", "7654321", "0.1", "3.0"]
    benchmarks.write("machine", benchmarks.machine(page.read_text(), {"imagenet": run}), page)
    monkeypatch.setattr(sys, "argv", ["all.py", "--only", "engine"])
    assert benchmarks.main() == 0
    assert row(page.read_text(), "imagenet") == run
    assert row(page.read_text(), "engine")[1] == "1234567"


def test_a_script_that_fails_is_named_and_the_others_are_measured(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = benchmarks.PAGE.read_text()
    monkeypatch.setattr(sys, "argv", ["all.py", "--only", "metrics", "engine"])
    assert benchmarks.main() == 1
    printed = capsys.readouterr()
    assert printed.err.endswith("failed: metrics\n")
    assert "[1/2] engine\n" in printed.out
    page = benchmarks.PAGE.read_text()
    assert "engine ['--write']" in page
    assert row(page, "metrics") == row(before, "metrics")


def test_every_script_is_a_section_of_the_page(benchmarks: ModuleType) -> None:
    scripts = {path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_")}
    assert set(benchmarks.SECTIONS) == scripts - {"all"}
    page = (FOLDER / "README.md").read_text()
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert len(headings) == len(benchmarks.SECTIONS)
    for name in benchmarks.SECTIONS:
        assert page.count(f"<!-- {name} -->\n") == page.count(f"<!-- end of {name} -->") == 1


def test_quick_runs_a_real_section_and_keeps_no_figures(tmp_path: Path) -> None:
    page = Path(shutil.copy(FOLDER / "README.md", tmp_path))
    before = page.read_text()
    done = subprocess.run(
        [sys.executable, str(FOLDER / "all.py"), "--quick", "--only", "cyclegan"],
        env={**os.environ, "COOKFIRE_BENCHMARKS_PAGE": str(page)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert page.read_text() == before
    shown = done.stdout[done.stdout.index("# Benchmarks") :]
    assert (
        outside(shown, "cyclegan", "machine").strip()
        == outside(before, "cyclegan", "machine").strip()
    )
    assert row(shown, "cyclegan") != row(before, "cyclegan")
