"""What a fork is made of, and under which names."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cookfire.handlers import recipe

PACKAGES = ("distributed", "engine", "handlers", "metrics")
LEFT_BEHIND = ("README.md", "CHANGELOG.md", "pyproject.toml", "baseline.yaml", "dvc.lock")
"""Files of a recipe that are its own history and claims, or that the project has at its root."""


@dataclass(frozen=True)
class Source:
    """A recipe of the repository, and the names of the project that is made of it."""

    root: Path
    name: str
    project: str
    package: str
    git: str | None

    @property
    def folder(self) -> Path:
        """The recipe's."""
        return self.root / "recipes" / self.name

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """``[project]`` of the recipe."""
        return dict(_toml(self.folder / "pyproject.toml")["project"])

    @property
    def version(self) -> str:
        """The recipe's."""
        return str(self.metadata["version"])

    @cached_property
    def workspace(self) -> dict[str, Any]:
        """The repository's ``pyproject.toml``."""
        return _toml(self.root / "pyproject.toml")

    @property
    def commit(self) -> str:
        """The repository's; ``unknown`` where it is not in git."""
        done = self._git("rev-parse", "HEAD")
        return done.stdout.strip() if done.returncode == 0 else "unknown"

    @property
    def changed(self) -> bool:
        """Whether the repository has changes that are not committed, or is not in git."""
        done = self._git("status", "--porcelain", str(self.root))
        return done.returncode != 0 or bool(done.stdout)

    def files(self) -> list[Path]:
        """Paths of the recipe's files, inside its folder, that a fork takes along."""
        done = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard", ".")
        if done.returncode:
            raise recipe.RecipeError(
                f"{self.root}: git can't say which files are the recipe's "
                f"({done.stderr.strip()}); make it in a clone of the repository"
            )
        paths = (Path(path) for path in done.stdout.split("\0") if path)
        return [
            path
            for path in paths
            if path.name not in LEFT_BEHIND
            and path.parts[0] != "runs"
            and (self.folder / path).is_file()
        ]

    @cached_property
    def datasets(self) -> list[str]:
        """Names of the data sets that the recipe's stages read."""
        text = (self.folder / "dvc.yaml").read_text()
        return sorted(set(re.findall(r"\bdata/(\w+)", text)))

    @cached_property
    def data_files(self) -> list[str]:
        """Files of ``data/`` that the stages of these data sets need."""
        stages = yaml.safe_load((self.root / "data" / "dvc.yaml").read_text())["stages"]
        modules = {"data/__init__.py", "data/_command.py", "data/_folder.py"}
        for name in self.datasets:
            module = re.findall(r"-m data\.(\w+)", stages[name]["cmd"])
            modules |= {f"data/{found}.py" for found in module}
            modules |= {path for path in stages[name].get("deps", []) if path.endswith(".py")}
        return sorted(modules)

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=False
        )


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
