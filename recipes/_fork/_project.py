"""Make a project of a recipe: all of it or nothing."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from cookfire.handlers import recipe

from . import _files
from ._source import PACKAGES, Source

TAKEN = ("cookfire", "data", "logs", "runs", "smoke", "test", "tests", "wheels")
"""Names that a project's package can't have: folders and stages beside it."""


def fork(root: Path, name: str, destination: Path, project: str | None, git: str | None) -> None:
    """Write the recipe ``name`` of the repository ``root`` to ``destination`` as a project.

    Args:
        root: the repository's root.
        name: the recipe.
        destination: a folder that does not exist, or is empty.
        project: the project's name; None: the folder's.
        git: an address that git clones the packages from; None: they come along as wheels.

    Raises:
        RecipeError: the folder has something in it, the name is no name for a package, or git, DVC
            or the building of a wheel failed; nothing is left behind.
    """
    destination = destination.absolute()
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise recipe.RecipeError(f"{destination}: not an empty folder; choose another")
    project = project or destination.name
    source = Source(root, name, project, package_name(project), git)
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    missing = [folder for folder in destination.parents if not folder.exists()]
    try:
        partial.mkdir(parents=True)
        _files.write(source, partial)
        if git is None:
            build_wheels(root, partial / "wheels")
        _first_commit(partial, source)
        if destination.exists():
            destination.rmdir()
        partial.rename(destination)
    except OSError as error:
        raise recipe.RecipeError(f"{error.filename or destination}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in missing:  # the innermost first; one with something in it stays
            with suppress(OSError):
                folder.rmdir()


def package_name(project: str) -> str:
    """Return the name of the project's package: ``my-project`` gives ``my_project``.

    Raises:
        RecipeError: there is none.

    Example:
        >>> package_name("My-Project")
        'my_project'
    """
    package = re.sub(r"[-.]", "_", project).lower()
    if not is_package_name(package):
        raise recipe.RecipeError(
            f"{project!r} can't name a Python package, or would hide another; give --name, "
            "letters, digits and dashes"
        )
    return package


def is_package_name(name: str) -> bool:
    """Tell whether a package can have the name, and hides no other by it."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return False
    return name not in TAKEN and name not in sys.stdlib_module_names


def build_wheels(root: Path, folder: Path) -> None:
    """Build the four packages' wheels into ``folder``."""
    for package in PACKAGES:
        command = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder)]
        _run([*command, str(root / "packages" / package)], root)
    (folder / ".gitignore").unlink(missing_ok=True)  # uv's, which would leave them out of git


def _first_commit(folder: Path, source: Source) -> None:
    # Works where nobody has told git who they are, and takes no part of a user's settings.
    git = ["git", "-c", "user.name=Cookfire", "-c", "user.email=fork@cookfire.invalid"]
    _run(["git", "init", "--quiet", "--initial-branch", "main"], folder)
    _run([sys.executable, "-m", "dvc", "init", "--quiet"], folder)
    (folder / ".dvc" / "config").write_text("[core]\n    autostage = true\n")
    _run(["git", "add", "--all"], folder)
    message = f"{source.project}: forked from Cookfire's recipe {source.name} {source.version}"
    _run([*git, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", message], folder)


def _run(command: list[str], folder: Path) -> None:
    # A hook or an index of the repository that this was called from is none of the new one's.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise recipe.RecipeError(f"{command[0]}: not installed, and a fork needs it") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise recipe.RecipeError(f"`{' '.join(command[:3])} ...` failed: {' '.join(said[-3:])}")
