"""`python -m recipes new`: what a new recipe is made of, and what is refused."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from recipes import __main__ as shell
from recipes import _new

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of the repository."""
    root = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, root], check=True)
    monkeypatch.setattr(shell, "ROOT", root / "recipes")
    return root


def test_a_new_recipe_is_the_smallest_under_its_own_name_without_what_it_did_not_earn(
    root: Path,
) -> None:
    assert shell.main(["new", "tea_time"]) == 0
    folder = root / "recipes" / "tea_time"
    names = {path.name for path in folder.iterdir()}
    assert {"train.py", "evaluate.py", "params.yaml", "dvc.yaml", "test_tea_time.py"} <= names
    assert not names & {"dvc.lock", "baseline.yaml", "runs", "test_mnist.py"}
    for path in folder.iterdir():
        if path.suffix == ".py":
            ast.parse(path.read_text())
        assert not re.findall(r"recipes[./]mnist|smoke/mnist", path.read_text()), path
    assert 'experiment="tea_time"' in (folder / "train.py").read_text()
    assert not re.search(r"0\.98", (folder / "README.md").read_text())


def test_a_new_recipe_is_entered_where_the_others_are(root: Path) -> None:
    before = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    assert shell.main(["new", "tea_time"]) == 0
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    names = {f"{kind}/tea_time{slash}" for kind in ("recipes", "smoke") for slash in ("", "/")}
    assert set(stages) - set(before) == names
    assert {name: stages[name] for name in before} == before
    for kind, profile in (("recipes", "full"), ("smoke", "tiny")):
        stage = stages[f"{kind}/tea_time"]
        assert stage["cmd"] == f"python -m recipes verify tea_time --profile {profile}"
        assert stage["deps"][1] == f"recipes/tea_time/runs/{profile}/model.pt"
        assert stages[f"{kind}/tea_time/"] == stage
    workspace = tomllib.loads((root / "pyproject.toml").read_text())
    assert "cookfire-recipe-tea-time" in workspace["project"]["dependencies"]
    assert "recipes/tea_time" in workspace["tool"]["uv"]["workspace"]["members"]
    assert workspace["tool"]["uv"]["sources"]["cookfire-recipe-tea-time"] == {"workspace": True}
    project = tomllib.loads((root / "recipes" / "tea_time" / "pyproject.toml").read_text())
    assert project["project"]["name"] == "cookfire-recipe-tea-time"
    assert project["project"]["version"] == "0.1.0"
    assert "tea_time" in shell.folders()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mnist", "is there already"),
        ("Tea", "small letters"),
        ("tea-time", "small letters"),
        ("class", "no name of a module"),
        ("json", "no name of a module"),
        ("test", "no name of a module"),
        ("2x", "small letters"),
        ("../tea", "small letters"),
    ],
)
def test_a_name_that_is_taken_or_none_is_refused_in_one_line(
    name: str, said: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.main(["new", name]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert is_clean(root)


def test_a_recipe_whose_lines_are_still_there_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.main(["new", "tea_time"]) == 0
    shutil.rmtree(root / "recipes" / "tea_time")
    assert shell.main(["new", "tea_time"]) == 2
    assert "pyproject.toml: has a recipe 'tea_time' still" in capsys.readouterr().err


def test_a_recipe_that_could_not_be_finished_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(text: str, name: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(_new, "_in_dvc", interrupted)
    assert shell.main(["new", "tea_time"]) == 130
    assert is_clean(root)


def is_clean(root: Path) -> bool:
    status = ["git", "-C", root, "status", "--porcelain"]
    return subprocess.run(status, capture_output=True, text=True, check=True).stdout == ""
