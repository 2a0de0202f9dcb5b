"""The states of models, optimizers and the like, whatever they are wrapped in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

import cookfire.distributed as idist

__all__ = ["check_objects", "load_into", "state_of", "unwrap"]

_COMPILED = "_orig_mod"  # the attribute in which torch.compile's module keeps the user's


def unwrap(thing: Any) -> Any:
    """Return the user's own object inside DistributedDataParallel, DataParallel, torch.compile.

    Example:
        >>> unwrap(torch.compile(torch.nn.DataParallel(model))) is model
        True
    """
    while isinstance(thing, nn.Module):
        if isinstance(thing, DistributedDataParallel | DataParallel):
            thing = thing.module
        elif isinstance(inner := getattr(thing, _COMPILED, None), nn.Module):
            thing = inner
        else:
            break
    return thing


def state_of(thing: Any, rank: int = 0) -> Any:
    """Return the state of ``thing``, unwrapped; all ranks must call it.

    A model's state has the names that its parameters have without torch.compile, also where only
    some of its parts are compiled. A ZeroRedundancyOptimizer's parts are brought together on
    ``rank``; on the others its state is empty.
    """
    thing = unwrap(thing)
    if hasattr(thing, "consolidate_state_dict"):
        thing.consolidate_state_dict(to=rank)
        if idist.get_rank() != rank:
            return {}
    state = thing.state_dict()
    return _renamed(state, {}) if isinstance(thing, nn.Module) else state


def load_into(thing: Any, state: Any, **kwargs: Any) -> None:
    """Load ``state`` into ``thing``, unwrapped.

    Args:
        thing: has ``load_state_dict``.
        state: what :func:`state_of` returned, of a compiled model or of one that is not.
        kwargs: for a model's ``load_state_dict``: ``strict``, ``assign``. Others get none.
    """
    thing = unwrap(thing)
    if not isinstance(thing, nn.Module):
        thing.load_state_dict(state)
        return
    compiled = [name for name, _ in thing.named_modules() if _COMPILED in name.split(".")]
    if compiled or any(_COMPILED in key for key in state):
        own = thing.state_dict()
        names = {_plain(name): name for name in [*own, *getattr(own, "_metadata", {})]}
        state = _renamed(state, names)
    thing.load_state_dict(state, **kwargs)


def check_objects(objects: object, name: str, method: str) -> None:
    """Check what a user gave to be saved or loaded.

    Raises:
        TypeError: ``objects`` is no mapping from strings to objects that have ``method``.
    """
    if not isinstance(objects, Mapping):
        raise TypeError(
            f"{name} must be a dict of objects, such as {{'model': model}}, "
            f"got {type(objects).__name__}"
        )
    for key, thing in objects.items():
        if not isinstance(key, str):
            raise TypeError(f"the keys of {name} must be strings, got {key!r}")
        if not callable(getattr(thing, method, None)):
            raise TypeError(
                f"{name}[{key!r}] must have {method}(), {type(thing).__name__} has none"
            )


def _plain(name: str) -> str:
    """Return a parameter's name without what torch.compile adds to it."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _renamed(state: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return a module's state with plain names, or those that ``names`` has for them.

    A state that has no name to change is returned as it is: so its file's bytes stay the same.
    """
    if not names and not any(_COMPILED in key for key in state):
        return state
    new = OrderedDict((names.get(_plain(key), _plain(key)), state[key]) for key in state)
    metadata = getattr(state, "_metadata", None)  # the versions of the modules' state
    if metadata is not None:
        vars(new)["_metadata"] = OrderedDict(
            (names.get(_plain(key), _plain(key)), metadata[key]) for key in metadata
        )
    return new
