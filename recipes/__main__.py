"""The recipes' shell: `list`, `verify [NAME]`, `repeat NAME`, `fork NAME FOLDER`, `new NAME`."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from cookfire.handlers import recipe
from recipes._fork import fork
from recipes._new import new

ROOT = Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "list",
        help="show each recipe: version, profiles, headline metric, and whether it is verified",
        description="Show each recipe's version and profiles, the first metric of each baseline, "
        "and whether the results that lie here equal it.",
    )
    command.add_argument("--json", action="store_true", help="for programs")
    verifying, repeating = recipe.add_commands(commands)
    verifying.add_argument("name", nargs="?", metavar="NAME", help="a recipe (default: all)")
    repeating.add_argument("name", metavar="NAME", help="a recipe")
    command = commands.add_parser(
        "fork",
        help="make a project of your own of a recipe",
        description="Write a recipe to a new folder as a project of its own: the recipe as a "
        "package, its data stages, the cookfire packages as wheels, git and DVC with a first "
        "commit. Its README says how to go on.",
    )
    command.add_argument("name", metavar="NAME", help="a recipe")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="new, or empty")
    command.add_argument("--name", dest="project", metavar="NAME", help="default: the folder's")
    command.add_argument(
        "--git", metavar="URL", help="take the packages from git, at this commit, not as wheels"
    )
    command = commands.add_parser(
        "new",
        help="begin a recipe in this repository",
        description="Write recipes/NAME as a copy of the smallest recipe, with tests and without "
        "lock or baseline, and enter it in dvc.yaml and pyproject.toml.",
    )
    command.add_argument("name", metavar="NAME", help="small letters, digits and underscores")
    options = parser.parse_args(argv)
    try:
        if options.command == "list":
            return show(as_json=options.json)
        if options.command == "fork":
            fork(ROOT.parent, known(options.name), options.folder, options.project, options.git)
            print(f"{options.folder}: a project of its own; its README says how to go on")
            return 0
        if options.command == "new":
            folder = new(ROOT.parent, options.name)
            print(f"{folder}: begun; `uv run tools/pins.py --add` enters it in the locks, and")
            print(f"`uv run dvc repro smoke/{options.name}` runs it on tiny data")
            return 0
        if options.command == "repeat":
            folder = folders()[known(options.name)]
            recipe.repeat(folder, options.profile, options.runs, options.card)
            return 0
        return verify(options.name, options.profile, options.accept, options.rerun)
    except recipe.RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def folders() -> dict[str, Path]:
    """Return the folders of the recipes by name."""
    return {path.parent.name: path.parent for path in sorted(ROOT.glob("*/params.yaml"))}


def known(name: str) -> str:
    """Return the name of a recipe, if it is one."""
    names = folders()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise recipe.RecipeError(f"no recipe {name!r}{hint} (there are: {', '.join(names)})")
    return name


def verify(name: str | None, profile: str | None, accept: bool, rerun: bool) -> int:
    """Verify one recipe or all; 1 if anything differs, else 2 if anything can't be told."""
    profiles = None if profile is None else [profile]
    if name is not None:
        return recipe.verify(folders()[known(name)], profiles, accept, rerun)
    codes = set()
    for folder in folders().values():
        try:
            codes.add(recipe.verify(folder, profiles, accept, rerun))
        except recipe.RecipeError as error:  # of one recipe; the others can be told
            print(error, file=sys.stderr)
            codes.add(2)
    return next((code for code in (1, 2) if code in codes), 0)


def show(*, as_json: bool) -> int:
    """Print a line for each recipe's profile, or everything as JSON; 2 if one can't be read."""
    rows, code = [], 0
    for name, folder in folders().items():
        try:
            rows += _rows(name, folder)
        except recipe.RecipeError as error:
            print(error, file=sys.stderr)
            code = 2
    if as_json:
        print(json.dumps(rows, indent=2))
        return code
    names = ("recipe", "version", "profile", "headline", "accepted", "verified")
    table = [names, *([row[name] or "-" for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
    return code


def _rows(name: str, folder: Path) -> list[dict[str, str | None]]:
    version = _version(folder / "pyproject.toml")
    reports = [recipe.check(folder, profile) for profile in recipe.profiles(folder / "params.yaml")]
    return [
        {
            "recipe": name,
            "version": version,
            "profile": report.profile,
            "headline": report.headline,
            "accepted": report.baseline.date if report.baseline else None,
            "verified": report.verdict,
        }
        for report in reports
    ]


def _version(project: Path) -> str:
    try:
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise recipe.RecipeError(f"{project}: no [project] version can be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
