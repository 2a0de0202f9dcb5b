"""``python -m cookfire.handlers.recipe verify [FOLDER]``, and ``repeat [FOLDER]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cookfire.handlers.recipe import RecipeError, repeat, verify
from cookfire.handlers.recipe._repeat import add_options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cookfire.handlers.recipe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "verify",
        help="compare a recipe's results with its baseline.yaml",
        description="Compare a recipe's results with its baseline.yaml. Exit code: 0 equal, within "
        "tolerance, or no baseline; 1 differs; 2 can't say.",
    )
    command.add_argument("--profile", metavar="NAME", help="only this profile (default: all)")
    command.add_argument(
        "--accept", action="store_true", help="record the finished runs as the baseline first"
    )
    command.add_argument(
        "--rerun", action="store_true", help="run the profile's DVC cells anew first"
    )
    command = commands.add_parser(
        "repeat",
        help="train with several seeds; mean, spread and confidence interval of each metric",
        description="Train and evaluate a profile with the seeds 0 to N - 1, one after the other, "
        "and show mean, standard deviation and 95 %% interval of each metric.",
    )
    add_options(command)
    for command in commands.choices.values():
        command.add_argument(
            "folder", nargs="?", type=Path, default=Path(), metavar="FOLDER",
            help="the recipe's folder (default: the working folder)",
        )  # fmt: skip
    options = parser.parse_args(argv)
    try:
        if options.command == "repeat":
            repeat(options.folder, options.profile, options.runs, options.card)
            return 0
        names = None if options.profile is None else [options.profile]
        return verify(options.folder, names, accept=options.accept, rerun=options.rerun)
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
