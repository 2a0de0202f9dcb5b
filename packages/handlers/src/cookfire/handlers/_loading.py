"""Loading checkpoints into objects."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cookfire.handlers._files import DamagedCheckpoint, load_file
from cookfire.handlers._objects import check_objects, load_into

__all__ = ["load_newest", "load_objects"]


def load_objects(
    to_load: Mapping[str, Any], checkpoint: str | Path | Mapping[str, Any], **kwargs: Any
) -> None:
    """Load a checkpoint into objects.

    Args:
        to_load: the objects, by the names under which they were saved; what else the checkpoint
            has is left out. For a single one the checkpoint may be its bare ``state_dict``.
        checkpoint: a file, which is checked for damage, or what was loaded from one.
        kwargs: for models: ``strict``, ``assign``.

    Raises:
        DamagedCheckpoint: the file is damaged, or no checkpoint.
        ValueError: an object is not in the checkpoint; says what is.
        TypeError: an object has no ``load_state_dict``, or the checkpoint is neither.

    Example:
        >>> Checkpoint.load_objects({"model": model}, folder / "model_10.pt")
    """
    check_objects(to_load, "to_load", "load_state_dict")
    states: object = checkpoint
    if isinstance(checkpoint, str | Path):
        states = load_file(Path(checkpoint).expanduser(), map_location="cpu")
    if not isinstance(states, Mapping):
        raise TypeError(
            f"checkpoint must be a file or a dict of states, got {type(states).__name__}"
        )
    if len(to_load) == 1:
        name, thing = next(iter(to_load.items()))
        inner = states.get(name)
        load_into(thing, inner if isinstance(inner, Mapping) else states, **kwargs)
        return
    if missing := [name for name in to_load if name not in states]:
        has = ", ".join(repr(name) for name in states) or "nothing"
        raise ValueError(f"the checkpoint has no {missing[0]!r}; it has {has}")
    for name, thing in to_load.items():
        load_into(thing, states[name], **kwargs)


def load_newest(
    directory: str | Path, to_load: Mapping[str, Any], pattern: str = "*.pt", **kwargs: Any
) -> Path:
    """Load the newest checkpoint of a folder that is not damaged.

    A warning names each that is skipped, and why.

    Args:
        directory: the folder.
        to_load: the objects, as for :meth:`load_objects`.
        pattern: which files, such as ``"training_*.pt"``; the newest is the one that was
            modified last.
        kwargs: for models: ``strict``, ``assign``.

    Returns:
        The file that was loaded.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedCheckpoint: all of them are damaged; says how.

    Example:
        >>> path = Checkpoint.load_newest(folder, {"model": model})
    """
    folder = Path(directory).expanduser()
    paths = _newest_first(folder.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"{folder}: no checkpoint {pattern}")
    problems = []
    for path in paths:
        try:
            states = load_file(path, map_location="cpu")
        except DamagedCheckpoint as error:
            problems.append(str(error))
            continue
        except FileNotFoundError:
            problems.append(f"{path}: removed while it was being read")
            continue
        for problem in problems:
            logging.getLogger(__name__).warning("skipped %s", problem)
        if not isinstance(states, Mapping):
            raise TypeError(f"{path}: holds a {type(states).__name__}, not a dict of states")
        load_objects(to_load, states, **kwargs)
        return path
    raise DamagedCheckpoint(f"{folder}: no intact checkpoint {pattern}:\n" + "\n".join(problems))


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    """Sort by the time of the last change; where that is the same, by the numbers in the names."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):  # a running training may just have removed it
            numbers = [int(number) for number in re.findall(r"\d+", path.name)]
            found.append((path.stat().st_mtime_ns, numbers, path))
    return [path for *_, path in sorted(found, reverse=True)]
