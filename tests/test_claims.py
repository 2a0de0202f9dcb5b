"""tools/claims.py: what a recipe claims changes only with its version, and with a word on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import claims

TOOL = Path(__file__).parents[1] / "tools" / "claims.py"

FILES = {
    "pyproject.toml": '[project]\nname = "x"\nversion = "1.0.0"\n',
    "CHANGELOG.md": "# Changelog\n\n## 1.0.0\n\n- First.\n",
    "params.yaml": "full: {data: d, lr: 1, deep: {a: 1}}\ntiny: {data: d, lr: 2}\n",
    "baseline.yaml": (
        "tiny: {metrics: {accuracy: {value: 0.5, tolerance: 0.1}}, sha256: abc, commit: c1,\n"
        "  inputs: {core: e1}}\n"
    ),
    "config.py": (
        "from x import y\n\nclass Config(y):\n    lr: float = 5\n    ema: float = 0.5\n"
        "    deep: dict[str, int]\n"
    ),
    "train.py": "x = 1\n",
}
SHARED = "packages/handlers/src/cookfire/handlers/recipe/_parameters.py"


class Repository:
    """Holds one recipe, ``recipes/soup``."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "recipes" / "soup"
        self.folder.mkdir(parents=True)
        for name, text in FILES.items():
            (self.folder / name).write_text(text)
        (root / SHARED).parent.mkdir(parents=True)
        (root / SHARED).write_text("class Config:\n    seed: int = 0\n    ema: float = 9\n")
        self.git("init", "-q")
        self.git("config", "user.email", "a@example.org")
        self.git("config", "user.name", "A")
        self.commit()

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True)

    def commit(self, *tags: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        for tag in tags:
            self.git("tag", tag)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name if name == SHARED else self.folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def release(self, version: str) -> None:
        self.edit("pyproject.toml", '"1.0.0"', f'"{version}"')
        self.edit("CHANGELOG.md", "## 1.0.0", f"## {version}\n\n- New.\n\n## 1.0.0")

    def check(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, TOOL, *arguments], cwd=self.root, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_without_a_release_there_is_nothing_to_compare_and_that_is_said(
    repository: Repository,
) -> None:
    repository.edit("baseline.yaml", "abc", "def")
    assert repository.check() == (
        0,
        "recipes/soup: no release (a tag recipes/soup=baseline@v...), so nothing to compare\n",
    )


CLAIMS: dict[str, tuple[str, str, str]] = {
    "tiny.sha256": ("baseline.yaml", "abc", "def"),
    "tiny.metrics.accuracy.value": ("baseline.yaml", "0.5", "0.6"),
    "tiny.metrics.accuracy.tolerance": ("baseline.yaml", "0.1", "0.2"),
    "full.sha256": ("baseline.yaml", "tiny:", "full: {sha256: x}\ntiny:"),
    "full, parameter.lr": ("params.yaml", "lr: 1", "lr: 3"),
    "full, parameter.deep.a": ("params.yaml", "a: 1", "a: 2"),
    "full, parameter.momentum": ("params.yaml", "lr: 1", "lr: 1, momentum: 0.9"),
    "full, default.ema": ("config.py", "ema: float = 0.5", "ema: float = 0.25"),
    "full, default.seed": (SHARED, "seed: int = 0", "seed: int = 1"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_changed_claim_needs_a_higher_version_and_an_entry(
    repository: Repository, claim: str
) -> None:
    repository.commit("recipes/soup=baseline@v1.0.0")
    repository.edit(*CLAIMS[claim])
    since = f"recipes/soup: since recipes/soup=baseline@v1.0.0 changed: {claim}; "
    assert repository.check() == (
        1, f"{since}give [project] version, still 1.0.0, a higher number\n",
    )  # fmt: skip
    repository.edit("pyproject.toml", "1.0.0", "1.1.0")
    assert repository.check() == (
        1, f"{since}say so in CHANGELOG.md under a heading `## 1.1.0`\n",
    )  # fmt: skip
    repository.edit("CHANGELOG.md", "## 1.0.0", "## 1.1.0\n\n- New.\n\n## 1.0.0")
    assert repository.check()[0] == 0
    repository.commit("recipes/soup=baseline@v1.1.0")
    assert repository.check()[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda repository: repository.edit("train.py", "1", "2"),
        lambda repository: repository.edit("params.yaml", "lr: 2", "lr: 3"),
        # `full` sets lr itself; another way of writing; a parameter that was not there.
        lambda repository: repository.edit("config.py", "lr: float = 5", "lr: float = 6"),
        lambda repository: repository.edit("config.py", "= 0.5", "=  5e-1  # half"),
        lambda repository: repository.edit("config.py", "    deep", "    flip: bool = 0\n    deep"),
        # The recipe has a default of its own.
        lambda repository: repository.edit(SHARED, "ema: float = 9", "ema: float = 8"),
        lambda repository: repository.edit("baseline.yaml", "c1", "c2"),
        lambda repository: repository.edit("baseline.yaml", "e1", "e2"),
        lambda repository: repository.release("1.0.1"),
    ],
)
def test_what_changes_no_claim_is_free(
    repository: Repository, change: Callable[[Repository], None]
) -> None:
    repository.commit("recipes/soup=baseline@v1.0.0")
    change(repository)
    assert repository.check() == (
        0, "recipes/soup: what it claims fits its version (since recipes/soup=baseline@v1.0.0)\n",
    )  # fmt: skip


def test_the_newest_release_is_that_with_the_highest_version(repository: Repository) -> None:
    repository.commit("recipes/soup=baseline@v1.9.0", "recipes/soupe=baseline@v3.0.0")
    repository.edit("baseline.yaml", "abc", "def")
    repository.release("1.10.0")
    repository.commit("recipes/soup=baseline@v1.10.0")
    assert "(since recipes/soup=baseline@v1.10.0)" in repository.check()[1]


def test_any_commit_can_be_the_base_and_a_wrong_one_is_one_line(repository: Repository) -> None:
    repository.edit("baseline.yaml", "abc", "def")
    assert repository.check("HEAD")[0] == 1
    assert repository.check("master~9") == (2, "claims.py: git knows no commit 'master~9'\n")
    assert repository.check("--help")[0] == 2
    # A recipe that was not there has claimed nothing.
    repository.folder.rename(repository.root / "recipes" / "bread")
    assert repository.check("HEAD")[0] == 0


@pytest.mark.parametrize(
    ("name", "old", "new"), [("baseline.yaml", "tiny:", "tiny: ["), ("config.py", "(y)", "(")]
)
def test_a_file_that_cannot_be_read_is_one_line(
    repository: Repository, name: str, old: str, new: str
) -> None:
    repository.edit(name, old, new)
    code, said = repository.check("HEAD")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("recipes/soup: a file can't be read: ")


def test_a_lower_version_is_no_new_one(repository: Repository) -> None:
    repository.commit("recipes/soup=baseline@v1.0.0")
    repository.edit("baseline.yaml", "abc", "def")
    repository.release("0.9.0")
    assert "still 0.9.0, a higher number" in repository.check()[1]


def test_a_clone_that_may_lack_releases_says_so(repository: Repository) -> None:
    repository.commit("recipes/soup=baseline@v1.0.0")
    repository.commit()
    clone = repository.root / "clone"
    repository.git("clone", "-q", "--depth", "1", repository.root.as_uri(), str(clone))
    done = subprocess.run([sys.executable, TOOL], cwd=clone, capture_output=True, text=True)
    assert (done.returncode, "no release" in done.stdout) == (0, True)
    assert done.stderr.startswith("claims.py: a shallow clone may lack releases; ")
    assert "shallow" not in repository.check()[1]


def test_what_every_recipe_has_is_where_the_tool_looks_for_it() -> None:
    defaults = claims.defaults((TOOL.parents[1] / SHARED).read_text())
    assert {name: defaults[name] for name in ("seed", "processes")} == {
        "seed": "0", "processes": "1",
    }  # fmt: skip
    assert claims.SHARED == SHARED
