"""`python -m recipes fork`: what a project of one's own is made of, and what is refused."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recipes import __main__ as shell
from recipes._fork import _project

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted(shell.folders())


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fork of each recipe, by one who has no git identity; the wheels are built once."""
    folder = tmp_path_factory.mktemp("forks")
    wheels = folder / "wheels"
    _project.build_wheels(ROOT, wheels)
    patch = pytest.MonkeyPatch()
    patch.setattr(_project, "build_wheels", lambda _, target: target.symlink_to(wheels))
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        patch.setenv(name, os.devnull)
    for recipe in RECIPES:
        assert shell.main(["fork", recipe, str(folder / f"my-{recipe}")]) == 0
    patch.undo()
    return folder


def package_of(recipe: str) -> str:
    return f"my_{recipe}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_fork_is_a_commit_with_nothing_left_over(recipe: str, forks: Path) -> None:
    folder = forks / f"my-{recipe}"
    git = ["git", "-C", str(folder)]
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    assert (status.returncode, status.stdout) == (0, "")
    log = subprocess.run([*git, "log", "--format=%s"], capture_output=True, text=True).stdout
    assert re.fullmatch(rf"my-{recipe}: forked from Cookfire's recipe {recipe} [\d.]+\n", log)
    assert sorted(path.name for path in forks.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_fork_does_not_speak_of_the_repository_it_is_from(recipe: str, forks: Path) -> None:
    folder = forks / f"my-{recipe}"
    for path in (folder / package_of(recipe)).rglob("*"):
        if path.suffix == ".py":
            ast.parse(path.read_text())
        if path.suffix in (".py", ".yaml"):
            elsewhere = r"recipes[./]\w+|(?:packages|benchmarks)/\w+|\.\./\.\./data"
            found = re.findall(elsewhere, path.read_text())
            assert not found, f"{path}: {found}"
    ruff = subprocess.run(["ruff", "check", "--no-cache"], cwd=folder, capture_output=True)
    assert ruff.returncode == 0, ruff.stdout.decode()
    for name in ("baseline.yaml", "dvc.lock", "runs"):
        assert not (folder / package_of(recipe) / name).exists()


@pytest.mark.parametrize("recipe", RECIPES)
def test_dvc_knows_all_stages_of_a_fork_and_their_files_are_there(recipe: str, forks: Path) -> None:
    folder, package = forks / f"my-{recipe}", package_of(recipe)
    for target, profile in (("smoke", "tiny"), ("full", "full")):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "dag", "--dot", target],
            cwd=folder, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f'"{package}/dvc.yaml:evaluate@{profile}" -> "{target}"' in done.stdout
        assert f' -> "{package}/dvc.yaml:train@{profile}"' in done.stdout
        assert '"data/dvc.yaml:' in done.stdout
    for path in (folder / "data" / "dvc.yaml", folder / package / "dvc.yaml"):
        for name in re.findall(r"[\w/]+\.(?:py|toml|yaml)\b", path.read_text()):
            assert (folder / name).is_file() or name.startswith("dvc."), f"{path}: {name}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_fork_pins_every_version_and_takes_the_core_from_its_wheels(
    recipe: str, forks: Path
) -> None:
    folder = forks / f"my-{recipe}"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    names = [re.match(r"[\w.-]+", line)[0] for line in project["project"]["dependencies"]]
    pins = {line.split("==")[0] for line in project["tool"]["uv"]["constraint-dependencies"]}
    sources = project["tool"]["uv"]["sources"]
    assert {"dvc", "torch", "torchvision"} <= set(names)
    for name in names:
        assert name in pins or (folder / sources[name]["path"]).is_file(), name
    assert set(sources) == {f"cookfire-{name}" for name in _project.PACKAGES}
    assert {"pytest", "ruff"} <= {
        re.match(r"[\w.-]+", line)[0] for line in project["dependency-groups"]["dev"]
    }


def test_the_packages_can_come_from_git_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(_project, "build_wheels")
    target = tmp_path / "fork"
    assert shell.main(["fork", "mnist", str(target), "--git", "https://example.org/c.git"]) == 0
    project = tomllib.loads((target / "pyproject.toml").read_text())
    source = project["tool"]["uv"]["sources"]["cookfire-engine"]
    assert source["git"] == "https://example.org/c.git"
    assert source["subdirectory"] == "packages/engine"
    assert re.fullmatch(r"[0-9a-f]{40}", source["rev"])
    assert "core: pyproject.toml" in (target / "fork" / "dvc.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mnit", "new"], "no recipe 'mnit'; did you mean 'mnist'? (there are: "),
        (["mnist", "full"], "full: not an empty folder; choose another"),
        (["mnist", "full/file"], "full/file: not an empty folder; choose another"),
        (["mnist", "full/file/new"], "Not a directory"),
        (["mnist", "3d"], "'3d' can't name a Python package, or would hide another; give --name"),
        (["mnist", "new", "--name", "a b"], "'a b' can't name a Python package"),
        (["mnist", "new", "--name", "class"], "'class' can't name a Python package"),
        (
            ["mnist", "new", "--name", "data"],
            "'data' can't name a Python package, or would hide another; give --name",
        ),
        (
            ["mnist", "new", "--name", "json"],
            "'json' can't name a Python package, or would hide another",
        ),
    ],
)
def test_what_can_not_be_made_is_refused_in_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/file").write_text("mine")
    assert shell.main(["fork", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert sorted(str(path) for path in Path().rglob("*")) == ["full", "full/file"]


def test_a_fork_that_fails_half_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(root: Path, folder: Path) -> None:
        _project._run([sys.executable, "-c", "raise SystemExit('no room')"], root)

    monkeypatch.setattr(_project, "build_wheels", fail)
    assert shell.main(["fork", "mnist", str(tmp_path / "a" / "b" / "new")]) == 2
    assert capsys.readouterr().err.endswith("failed: no room\n")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(_project, "build_wheels", lambda *_: _project._run(["no-such-tool"], ROOT))
    assert shell.main(["fork", "mnist", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err == "no-such-tool: not installed, and a fork needs it\n"
    assert not list(tmp_path.iterdir())
