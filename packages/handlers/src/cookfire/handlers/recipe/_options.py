"""The commands ``verify`` and ``repeat`` of a command line: this package's and the recipes' own."""

from __future__ import annotations

import argparse
from typing import Any


def add_commands(commands: Any) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Add the commands ``verify`` and ``repeat``, but for what names the recipe.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` returned.

    Returns:
        The parsers of the two, to which the caller adds the recipe.

    Example:
        >>> commands = argparse.ArgumentParser().add_subparsers(dest="command")
        >>> for command in add_commands(commands):
        ...     action = command.add_argument("folder")
    """
    verify: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="compare results with their baseline",
        description="Compare results with their baseline. Exit code: 0 equal, within tolerance, "
        "or no baseline; 1 differs; 2 can't say.",
    )
    verify.add_argument("--profile", metavar="NAME", help="only this profile (default: all)")
    verify.add_argument(
        "--accept", action="store_true", help="record the finished runs as the baseline first"
    )
    verify.add_argument(
        "--rerun", action="store_true", help="run the profile's DVC cells anew first (train, ...)"
    )
    repeat: argparse.ArgumentParser = commands.add_parser(
        "repeat",
        help="train with several seeds; mean, spread and confidence interval of each metric",
        description="Train and evaluate a profile with the seeds 0 to N - 1, one after the other, "
        "and show mean, standard deviation and 95 % interval of each metric. What has finished "
        "is kept in the recipe's logs/, and locks and runs/ stay as they are.",
    )
    repeat.add_argument(
        "--profile", default="full", metavar="NAME", help="which to repeat (default: full)"
    )
    repeat.add_argument(
        "--runs", type=int, default=5, metavar="N", help="the seeds 0 to N - 1 (default: 5)"
    )
    repeat.add_argument(
        "--card", action="store_true", help="write the table into the recipe's README.md too"
    )
    return verify, repeat
