"""`python -m recipes`: what it lists and how it verifies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cookfire.handlers.recipe import _environment, _manifest
from recipes import __main__ as shell

TOY = Path(__file__).parent / "handlers" / "toy_recipe"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recipes; one of them ran and has a baseline for its profile `tiny`."""
    monkeypatch.setattr(shell, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("bread", "soup"):
        shutil.copytree(TOY, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "soup" / "params.yaml").write_text("tiny: {data: data}\n")
    outputs = tmp_path / "soup" / "runs" / "tiny"
    outputs.mkdir(parents=True)
    (outputs / "model.pt").write_bytes(b"weights")
    (outputs / "metrics.json").write_text('{"accuracy": 0.9}')
    for entry in ("train", "evaluate"):
        _manifest.record(
            tmp_path / "soup" / "logs" / "tiny", entry, recipe=tmp_path / "soup", data=tmp_path,
            outputs=outputs, environment=_environment.describe(world_size=1), fingerprint={},
            parameters={"data": "data"}, result={},
        )  # fmt: skip
    (tmp_path / "soup" / "baseline.yaml").write_text(
        "tiny: {metrics: {accuracy: {value: 0.9, tolerance: 0.02}}, environment: {world_size: 1}, "
        "sha256: 9a129038d9a00ed95fda55beb7a7dbdbc4b7b9b8d9ea8e9b7bdec9a5b2a1e1c7, commit: a, "
        "date: 2026-01-01, inputs: {parameters: {data: data}, data: b, recipe: c, core: d}}"
    )
    return tmp_path


def test_list_shows_version_profiles_headline_and_whether_they_are_verified(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.main(["list"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["recipe", "version", "profile", "headline", "accepted", "verified"],
        ["bread", "1.2.0", "tiny", "-", "-", "no", "baseline"],
        ["bread", "1.2.0", "two", "-", "-", "no", "baseline"],
        ["bread", "1.2.0", "pinned", "-", "-", "no", "baseline"],
        ["soup", "1.2.0", "tiny", "accuracy", "0.9", "2026-01-01", "differs"],
    ]
    assert shell.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[3] == {
        "recipe": "soup", "version": "1.2.0", "profile": "tiny",
        "headline": "accuracy 0.9", "accepted": "2026-01-01", "verified": "differs",
    }  # fmt: skip


def test_verify_takes_one_recipe_or_all_and_a_profile(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.main(["verify", "bread"]) == 0
    assert shell.main(["verify", "soup"]) == 1
    assert shell.main(["verify"]) == 1
    assert shell.main(["verify", "bread", "--profile", "two"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["bread two", "  no baseline: record one with --accept"]


def test_a_recipe_that_cannot_be_read_does_not_hide_the_others(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "bread" / "baseline.yaml").write_text("tiny: 3")
    assert shell.main(["verify"]) == 1  # soup differs
    assert shell.main(["list"]) == 2
    said = capsys.readouterr()
    assert said.err.count("bread/baseline.yaml: ") == 2
    assert said.out.count("differs") >= 2
    (root / "soup" / "pyproject.toml").write_text("[project")
    assert shell.main(["list"]) == 2
    assert "soup/pyproject.toml: no [project] version can be read" in capsys.readouterr().err


def test_a_recipe_or_profile_that_does_not_exist_is_one_line_and_exit_code_2(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, line in (
        (["verify", "breda"], "no recipe 'breda'; did you mean 'bread'? (there are: bread, soup)"),
        (["verify", "x"], "no recipe 'x' (there are: bread, soup)"),
        (["verify", "soup", "--profile", "full"],
         "soup/params.yaml: no profile 'full' (there are: tiny)"),
        (["verify", "bread", "--profile", "tiny", "--accept"],
         "bread/runs/tiny: no finished run of this machine (train and evaluate, with "
         "bread/logs/tiny/manifest.json) to record; run the profile here first"),
    ):  # fmt: skip
        assert shell.main(arguments) == 2
        assert capsys.readouterr().err == f"{line}\n"


def test_the_repositorys_own_recipes_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"tiny", "full"} <= {row["profile"] for row in rows if row["recipe"] == "mnist"}


def test_repeat_takes_a_recipe_by_name(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(shell.recipe, "repeat", lambda *given: asked.append(given))
    assert shell.main(["repeat", "soup"]) == 0
    assert shell.main(["repeat", "soup", "--profile", "tiny", "--runs", "3", "--card"]) == 0
    assert asked == [(root / "soup", "full", 5, False), (root / "soup", "tiny", 3, True)]
    assert shell.main(["repeat", "suop"]) == 2
    assert "did you mean 'soup'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["list", "--help"], ["verify", "--help"], ["repeat", "--help"]],
)
def test_each_command_explains_itself(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        shell.main(arguments)
    assert left.value.code == 0
    assert "usage: python -m recipes" in capsys.readouterr().out
