"""The states of models, optimizers and the like, whatever they are wrapped in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

import cookfire.distributed as idist
from cookfire.handlers._sharded import gathered, sharded_like

__all__ = ["check_objects", "load_into", "plain_name", "state_of", "unwrap"]

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
    some of its parts are compiled. What is spread over the processes, by fully_shard or in a
    ZeroRedundancyOptimizer, is brought together on ``rank``, sharded tensors in main memory; it is
    missing in the others' states. So a file does not show how many processes wrote it, nor whether
    they shared the model.
    """
    thing = unwrap(thing)
    if hasattr(thing, "state_on"):  # a state of states
        return thing.state_on(rank)
    if hasattr(thing, "consolidate_state_dict"):
        thing.consolidate_state_dict(to=rank)
        if idist.get_rank() != rank:
            return {}
    state = thing.state_dict()
    if isinstance(thing, nn.Module):
        return gathered(_renamed(state, {}), rank)
    return gathered(state, rank) if isinstance(thing, Optimizer) else state


def load_into(thing: Any, state: Any, **kwargs: Any) -> None:
    """Load ``state`` into ``thing``, unwrapped; of a sharded one each process takes its part.

    Args:
        thing: has ``load_state_dict``.
        state: what :func:`state_of` returned on the rank that it was told, of a model that was
            compiled or sharded, or not.
        kwargs: for a model's ``load_state_dict``: ``strict``, ``assign``. Others get none.
    """
    thing = unwrap(thing)
    if not isinstance(thing, nn.Module):
        thing.load_state_dict(sharded_like(thing, state) if isinstance(thing, Optimizer) else state)
        return
    compiled = [name for name, _ in thing.named_modules() if _COMPILED in name.split(".")]
    if compiled or any(_COMPILED in key for key in state):
        own = thing.state_dict()
        names = {plain_name(name): name for name in [*own, *getattr(own, "_metadata", {})]}
        state = _renamed(state, names)
    thing.load_state_dict(sharded_like(thing, state), **kwargs)


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


def plain_name(name: str) -> str:
    """Return a parameter's name without what torch.compile adds to it."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _renamed(state: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return a module's state with plain names, or those that ``names`` has for them.

    A state that has no name to change is returned as it is: so its file's bytes stay the same.
    """
    if not names and not any(_COMPILED in key for key in state):
        return state
    new = OrderedDict((names.get(plain_name(key), plain_name(key)), state[key]) for key in state)
    metadata = getattr(state, "_metadata", None)  # the versions of the modules' state
    if metadata is not None:
        vars(new)["_metadata"] = OrderedDict(
            (names.get(plain_name(key), plain_name(key)), metadata[key]) for key in metadata
        )
    return new
