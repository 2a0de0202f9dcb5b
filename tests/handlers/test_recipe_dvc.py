"""The names in the root dvc.yaml pull a pipeline; DVC does not document slashes in names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PIPELINE = """
stages:
  train:
    foreach: &profiles {tiny: {}, full: {}}
    do:
      wdir: ../..
      cmd: cp data recipes/mnist/runs/${key}/model.pt && echo trained ${key}
      deps: [data]
      outs: ["recipes/mnist/runs/${key}/model.pt"]
  evaluate:
    foreach: *profiles
    do:
      wdir: ../..
      cmd: cp data recipes/mnist/runs/${key}/metrics.json && echo evaluated ${key}
      deps: ["recipes/mnist/runs/${key}/model.pt"]
      outs:
        - recipes/mnist/runs/${key}/metrics.json: {cache: false}
"""


class Project:
    """Our root files around a recipe whose stages only copy a file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        recipe = root / "recipes" / "mnist"
        for profile in ("tiny", "full"):
            (recipe / "runs" / profile).mkdir(parents=True)
        (root / "data").write_text("{}")
        (root / "recipes" / "__main__.py").write_text("import sys; print(*sys.argv[1:])")
        (recipe / "dvc.yaml").write_text(PIPELINE)
        shutil.copy(ROOT / "recipes" / "mnist" / "pyproject.toml", recipe)
        for name in ("dvc.yaml", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        self.call("git", "init", "-q")

    def call(self, *command: str) -> str:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def repro(self, *arguments: str) -> list[str]:
        """Run `dvc repro`; return what the stages' commands and verify said."""
        said = self.call(sys.executable, "-m", "dvc", "repro", *arguments).splitlines()
        return [line for line in said if line.startswith(("trained", "evaluated", "verify"))]


def test_a_name_with_or_without_its_slash_runs_what_is_missing_and_always_verifies(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)
    tiny = ["trained tiny", "evaluated tiny", "verify mnist --profile tiny"]
    full = ["trained full", "evaluated full", "verify mnist --profile full"]
    assert project.repro("smoke/mnist") == tiny
    # The order of names that do not depend on each other is DVC's.
    assert sorted(project.repro("smoke/mnist/", "recipes/mnist/")) == sorted([*full, tiny[-1]])
    assert project.repro("recipes/mnist") == full[-1:]
    locks = {path: path.read_bytes() for path in tmp_path.rglob("dvc.lock")}
    assert len(locks) == 2
    assert project.repro("-f", "smoke/mnist") == tiny
    assert {path: path.read_bytes() for path in locks} == locks


def test_a_failed_verify_fails_the_name(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (tmp_path / "recipes" / "__main__.py").write_text("raise SystemExit(1)")
    with pytest.raises(AssertionError, match="failed to reproduce 'smoke/mnist'"):
        project.repro("smoke/mnist")
