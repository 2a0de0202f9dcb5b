"""``python -m cookfire.handlers.recipe verify [FOLDER] [--profile P] [--rerun] [--accept]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cookfire.handlers.recipe import RecipeError, verify


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cookfire.handlers.recipe", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "verify",
        help="compare a recipe's results with its baseline.yaml",
        description="Compare a recipe's results with its baseline.yaml. Exit code: 0 equal, within "
        "tolerance, or no baseline; 1 differs; 2 can't say.",
    )
    command.add_argument(
        "folder", nargs="?", type=Path, default=Path(), metavar="FOLDER",
        help="the recipe's folder (default: the working folder)",
    )  # fmt: skip
    command.add_argument("--profile", metavar="NAME", help="only this profile (default: all)")
    command.add_argument(
        "--accept", action="store_true", help="record the finished runs as the baseline first"
    )
    command.add_argument(
        "--rerun", action="store_true", help="run the profile's DVC cells anew first"
    )
    options = parser.parse_args(argv)
    names = None if options.profile is None else [options.profile]
    try:
        return verify(options.folder, names, accept=options.accept, rerun=options.rerun)
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was there before is there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
