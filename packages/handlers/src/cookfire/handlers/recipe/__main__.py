"""``python -m cookfire.handlers.recipe verify [FOLDER]``, and ``repeat [FOLDER]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cookfire.handlers.recipe import RecipeError, add_commands, repeat, verify


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cookfire.handlers.recipe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in add_commands(commands):
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
