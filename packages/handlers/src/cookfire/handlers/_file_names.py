"""The names of checkpoints' files."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

__all__ = ["check_pattern", "default_pattern", "newest_first", "render"]

_FIELDS = ("filename_prefix", "name", "global_step", "score_name", "score", "ext")


def default_pattern(
    with_prefix: bool = True,
    with_score: bool = True,
    with_score_name: bool = True,
    with_global_step: bool = True,
) -> str:
    """Return the default pattern of file names with the parts that are wanted.

    Raises:
        ValueError: neither step nor score is wanted, or the score's name without the score.

    Example:
        >>> Checkpoint.setup_filename_pattern(with_prefix=False, with_score_name=False)
        '{name}_{global_step}_{score}.{ext}'
    """
    if not with_score and not with_global_step:
        raise ValueError(
            "a file's name needs with_score or with_global_step, or all files have the same"
        )
    if with_score_name and not with_score:
        raise ValueError("with_score_name needs with_score=True")
    parts = ["{filename_prefix}"] if with_prefix else []
    parts.append("{name}")
    if with_global_step:
        parts.append("{global_step}")
    if with_score:
        parts.append("{score_name}={score}" if with_score_name else "{score}")
    return "_".join(parts) + ".{ext}"


def check_pattern(pattern: str, has_score: bool, has_score_name: bool) -> None:
    """Check that ``pattern`` names a file of the folder, and that something fills its every field.

    Raises:
        ValueError: it is no pattern or has a slash; a field is unknown, or nothing fills it.
    """
    try:
        parts = list(string.Formatter().parse(pattern))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"filename_pattern {pattern!r}: {error}; expected such as '{{name}}.{{ext}}'"
        ) from error
    if not parts:
        raise ValueError("filename_pattern is empty; expected such as '{name}.{ext}'")
    if any(slash in text for text, *_ in parts for slash in "/\\"):
        raise ValueError(
            f"filename_pattern {pattern!r} has a slash; it names a file, "
            "and the saver says in which folder: DiskSaver('folder')"
        )
    fields = {field for _, field, _, _ in parts if field is not None}
    if unknown := sorted(fields.difference(_FIELDS)):
        raise ValueError(
            f"filename_pattern {pattern!r}: unknown field {unknown[0]!r}; "
            f"the fields are {', '.join(_FIELDS)}"
        )
    if "score" in fields and not has_score:
        raise ValueError(f"filename_pattern {pattern!r}: 'score' needs score_function")
    if "score_name" in fields and not has_score_name:
        raise ValueError(f"filename_pattern {pattern!r}: 'score_name' needs score_name")


def render(
    pattern: str,
    prefix: str,
    name: str,
    step: int,
    score_name: str | None,
    score: int | float | None,
    extension: str,
) -> str:
    """Return the file's name; slashes in a part do not make it a folder."""
    return pattern.format(
        filename_prefix=prefix.replace("/", "_"),
        name=name.replace("/", "_"),
        global_step=step,
        score_name=(score_name or "").replace("/", "_"),
        score=f"{score:.4f}" if isinstance(score, float) else score,
        ext=extension,
    )


def newest_first(found: Iterable[tuple[float, str]]) -> list[str]:
    """Sort names by the time of the last change; where that is the same, by the numbers in them."""
    keys = [(time, [int(part) for part in re.findall(r"\d+", name)], name) for time, name in found]
    return [name for *_, name in sorted(keys, reverse=True)]
