"""The one error of this package that a user is meant to read: one line that says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LONGEST_VALUE = 60


class RecipeError(ValueError):
    """Something the user gave is wrong; the text is one line that names it and the way on.

    ``recipe.main`` prints the line without a traceback and exits with code 2, so a recipe raises it
    too, for example for a data set that is not there.

    Example:
        >>> raise RecipeError("data/mnist: no such folder; `dvc repro data/dvc.yaml` makes it")
        Traceback (most recent call last):
        ...
        cookfire.handlers.recipe._errors.RecipeError: data/mnist: no such folder; ...
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


def one_line(text: str) -> str:
    """Return the text with whatever would break the line written as spaces."""
    return " ".join(part.strip() for part in text.splitlines() if part.strip())


def name_some(items: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """Return the first items as a list for a sentence, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def show_path(path: Path) -> str:
    """Return the path as a user would type it: relative to the working folder if inside it."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except (ValueError, OSError):
        return str(path)


def show_value(value: object) -> str:
    """Return the value as Python writes it, shortened, and its type where that is not obvious."""
    text = repr(value)
    if len(text) > LONGEST_VALUE:
        text = f"{text[: LONGEST_VALUE - 3]}..."
    return text if value is None else f"{text} ({type(value).__name__})"
