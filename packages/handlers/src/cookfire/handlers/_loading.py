"""Loading checkpoints into objects."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cookfire.handlers._file_names import newest_first
from cookfire.handlers._files import load_file
from cookfire.handlers._fitting import find_misfit
from cookfire.handlers._object_store import ObjectStore, is_url
from cookfire.handlers._objects import check_objects, load_into
from cookfire.handlers._reading import DamagedCheckpoint

__all__ = ["load_newest", "load_objects", "load_states"]


def load_objects(
    to_load: Mapping[str, Any],
    checkpoint: str | Path | Mapping[str, Any],
    *,
    storage_options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    """Load a checkpoint into objects.

    Args:
        to_load: the objects, by the names under which they were saved; what else the checkpoint
            has is left out. For a single one the checkpoint may be its bare ``state_dict``.
        checkpoint: a file or an address such as ``s3://bucket/model_10.pt``, which is checked for
            damage; or what was loaded from one.
        storage_options: of an address, as for :class:`~cookfire.handlers.FsspecSaver`.
        kwargs: for models: ``strict``, ``assign``.

    Raises:
        DamagedCheckpoint: the file is damaged, or no checkpoint.
        ValueError: an object is not in the checkpoint, and it is told what is; or its state does
            not fit it. Then nothing is loaded.
        TypeError: an object has no ``load_state_dict``, or the checkpoint is neither.
        OSError: the file is missing or can't be read.

    Example:
        >>> Checkpoint.load_objects({"model": model}, folder / "model_10.pt")
    """
    check_objects(to_load, "to_load", "load_state_dict")
    if isinstance(checkpoint, str | Path):
        folder, _, name = str(checkpoint).rpartition("/")
        place = _place(folder if is_url(checkpoint) else Path(checkpoint).parent, storage_options)
        states = place.load(name)
        load_states(to_load, states, checkpoint, kwargs)
    elif isinstance(checkpoint, Mapping):
        load_states(to_load, checkpoint, "the checkpoint", kwargs)
    else:
        raise TypeError(
            f"checkpoint must be a file or a dict of states, got {type(checkpoint).__name__}"
        )


def load_states(
    to_load: Mapping[str, Any], states: object, source: str | Path, kwargs: Mapping[str, Any]
) -> None:
    """Load what was read from ``source`` into objects; see :func:`load_objects`."""
    if not isinstance(states, Mapping):
        raise TypeError(f"{source} holds a {type(states).__name__}, not a dict of states")
    if len(to_load) == 1 and _is_of_one_object(states, next(iter(to_load))):
        states = dict.fromkeys(to_load, states)
    if missing := [name for name in to_load if name not in states]:
        has = ", ".join(repr(name) for name in states) or "nothing"
        raise ValueError(f"{source} has no {missing[0]!r}; it has {has}")
    if kwargs.get("strict", True):
        for name, thing in to_load.items():  # before anything is loaded
            if problem := find_misfit(thing, states[name]):
                raise ValueError(f"{source}: what it has for {name!r} does not fit: {problem}")
    for name, thing in to_load.items():
        load_into(thing, states[name], **kwargs)


def _is_of_one_object(states: Mapping[str, Any], name: str) -> bool:
    """Tell whether a checkpoint is the bare state of an object, not a dict of such."""
    if isinstance(states.get(name), Mapping):
        return False
    return not states or not all(isinstance(state, Mapping) for state in states.values())


def load_newest(
    directory: str | Path,
    to_load: Mapping[str, Any],
    pattern: str = "*.pt",
    *,
    storage_options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Path | str:
    """Load the newest checkpoint of a folder that is not damaged.

    A warning names each that is skipped, and why.

    Args:
        directory: the folder, or an address such as ``s3://bucket/folder``.
        to_load: the objects, as for :meth:`load_objects`.
        pattern: which files, such as ``"training_*.pt"``; the newest is the one that was
            modified last.
        storage_options: of an address, as for :class:`~cookfire.handlers.FsspecSaver`.
        kwargs: for models: ``strict``, ``assign``.

    Returns:
        The file that was loaded, or its address.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedCheckpoint: all of them are damaged; says how.

    Example:
        >>> path = Checkpoint.load_newest(folder, {"model": model})
    """
    check_objects(to_load, "to_load", "load_state_dict")
    place = _place(directory, storage_options)
    names = place.newest_first(pattern)
    if not names:
        raise FileNotFoundError(f"{directory}: no checkpoint {pattern}")
    problems = []
    for name in names:
        try:
            states = place.load(name)
        except DamagedCheckpoint as error:
            problems.append(str(error))
            continue
        except FileNotFoundError:
            problems.append(f"{place.address(name)}: removed while it was being read")
            continue
        for problem in problems:
            logging.getLogger(__name__).warning("skipped %s", problem)
        load_states(to_load, states, place.address(name), kwargs)
        return place.address(name)
    raise DamagedCheckpoint(f"{directory}: no intact checkpoint {pattern}:\n" + "\n".join(problems))


class _Folder:
    """Checkpoints on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser()

    def address(self, name: str) -> Path:
        return self._folder / name

    def load(self, name: str) -> object:
        return load_file(self._folder / name, map_location="cpu")

    def newest_first(self, pattern: str) -> list[str]:
        found = []
        for path in self._folder.glob(pattern):
            if not path.is_file():
                continue
            with suppress(FileNotFoundError):  # a running training may just have removed it
                found.append((path.stat().st_mtime_ns, path.name))
        return newest_first(found)


def _place(folder: str | Path, options: Mapping[str, Any] | None) -> _Folder | ObjectStore:
    if isinstance(folder, str) and is_url(folder):
        return ObjectStore(folder, options)
    if options is not None:
        raise TypeError(f"storage_options are for addresses such as s3://..., not for {folder}")
    return _Folder(Path(folder))
