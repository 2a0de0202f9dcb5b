"""Whether a state fits an object: found out before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from cookfire.engine.base import Serializable
from cookfire.handlers._objects import plain_name, unwrap
from cookfire.metrics import Metric

__all__ = ["can_be_checked", "find_misfit", "kind_of"]

_SHOWN = 3


def kind_of(thing: Any) -> str:
    """Return the class's name; none for what has another one when it is wrapped or sharded."""
    thing = unwrap(thing)
    if isinstance(thing, nn.Module) or hasattr(thing, "consolidate_state_dict"):
        return ""
    return type(thing).__name__


def can_be_checked(thing: Any) -> bool:
    """Tell whether :func:`find_misfit` knows how; of other objects, loading will tell."""
    thing = unwrap(thing)
    if isinstance(thing, nn.Module):
        return type(thing).load_state_dict is nn.Module.load_state_dict
    # A metric's keys are those of what is in its state.
    return isinstance(thing, Optimizer | Serializable) and not isinstance(thing, Metric)


def find_misfit(thing: Any, state: Any) -> str | None:
    """Say what is wrong with ``state`` as that of ``thing``; None if nothing is, or can be known.

    Example:
        >>> find_misfit(torch.nn.Linear(2, 3), torch.nn.Linear(2, 3, bias=False).state_dict())
        "it lacks 'bias'"
    """
    if not can_be_checked(thing):
        return None
    thing = unwrap(thing)
    if isinstance(thing, nn.Module):
        return _misfit_of_module(thing, state)
    if isinstance(thing, Optimizer):
        return _misfit_of_optimizer(thing, state)
    try:
        Serializable.load_state_dict(thing, state)  # which but looks at the keys
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _misfit_of_module(module: nn.Module, state: Any) -> str | None:
    if not isinstance(state, Mapping):
        return f"it is a {type(state).__name__}, not a dict of tensors"
    own = {plain_name(name): value for name, value in module.state_dict().items()}
    saved = {plain_name(name): value for name, value in state.items()}
    problems = []
    if missing := [name for name in own if name not in saved]:
        problems.append(f"it lacks {_some(missing)}")
    if unexpected := [name for name in saved if name not in own]:
        problems.append(f"the model has no {_some(unexpected)}")
    for name, value in own.items():
        other = saved.get(name)
        if not isinstance(value, Tensor) or not isinstance(other, Tensor) or is_lazy(value):
            continue
        if value.shape != other.shape:
            problems.append(
                f"its {name!r} has the shape {tuple(other.shape)}, that of the model "
                f"{tuple(value.shape)}"
            )
            break
    return "; ".join(problems) or None


def _misfit_of_optimizer(optimizer: Optimizer, state: Any) -> str | None:
    if not isinstance(state, Mapping) or "param_groups" not in state:
        return "it is not that of an optimizer: it has no 'param_groups'"
    groups, slots = state["param_groups"], state.get("state")
    if not isinstance(groups, list) or not all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups
    ):
        return "its 'param_groups' are not what an optimizer saves"
    if not isinstance(slots, Mapping):
        return "its 'state' is not what an optimizer saves"
    saved = [len(group["params"]) for group in groups]
    own = [len(group["params"]) for group in optimizer.param_groups]
    if saved == own:
        return None
    return f"it is of groups of {saved} parameters, the optimizer has {own}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
