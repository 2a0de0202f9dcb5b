"""Everything that a run needs to go on, in one object."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch

import cookfire.distributed as idist
from cookfire.engine import Engine
from cookfire.handlers._objects import check_objects, load_into, state_of, unwrap
from cookfire.handlers._random_states import get_random_states, seed_from_state, set_random_states

__all__ = ["RunState"]


class RunState:
    """The state of a run: loaded into a new process, it goes on as if it had never stopped.

    It holds

    - the trainer's position, to the batch;
    - the objects named by the user, models without what they are wrapped in;
    - every other object with a state that is attached to the trainer as a handler (early stopping,
      checkpoints, schedules, running averages, ...), named by its class and order of attachment;
    - the states of the global random number generators: torch's, every CUDA device's, numpy's,
      python's. They are restored last.

    What is attached, and the random states, are kept for each process; all must call
    :meth:`state_dict`, the first one may save what it returns. Data goes on where it was if it
    knows ``set_position``, as the loaders of ``cookfire.distributed.auto_dataloader`` do; else the
    batches done are passed over.

    A run can go on with another number of processes, aloud: with the same global batches, so that
    losses differ by round-off, but for random numbers drawn in the processes (dropout), which are
    others. A process of a number that was not there takes over what was attached in another one,
    and random numbers of its own.

    To save it at an event, attach the handler that does so last, so that the others have run.

    Args:
        trainer: the engine of the run.
        objects: model, optimizer, scheduler, gradient scaler, what is attached to other engines,
            or anything with ``state_dict`` and ``load_state_dict``.

    Raises:
        TypeError: the trainer is no engine, or an object has no state.

    Example:
        >>> state = RunState(trainer, model=model, optimizer=optimizer)
        >>> saved = state.state_dict()
        >>> state.load_state_dict(saved)
    """

    def __init__(self, trainer: Engine, **objects: Any) -> None:
        if not isinstance(trainer, Engine):
            raise TypeError(f"trainer must be an engine, got {type(trainer).__name__}")
        check_objects(objects, "objects", "state_dict")
        check_objects(objects, "objects", "load_state_dict")
        self.trainer = trainer
        self.objects = objects

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and plain values, loadable with ``weights_only=True``."""
        return self.state_on(0)

    def state_on(self, rank: int) -> dict[str, Any]:
        """Return the state, to be saved by ``rank``: what is sharded is brought together there."""
        mine = {
            "attached": {name: state_of(thing, rank) for name, thing in self._attached().items()},
            "random": get_random_states(),
        }
        several = idist.get_world_size() > 1
        return {
            "trainer": self.trainer.state_dict(),
            "objects": {name: state_of(thing, rank) for name, thing in self.objects.items()},
            "ranks": idist.all_gather(_on_cpu(mine)) if several else [mine],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, in the same or another process.

        Attach the handlers before.

        Raises:
            ValueError: it is not the state of a run with the same objects and attached handlers;
                says what is missing or too much. Nothing was loaded then.
        """
        if missing := {"trainer", "objects", "ranks"}.difference(state_dict):
            raise ValueError(f"not the state of a run: it has no {sorted(missing)[0]!r}")
        ranks, rank = state_dict["ranks"], idist.get_rank()
        mine = ranks[rank % len(ranks)]
        attached = self._attached()
        _check_names("object", self.objects, state_dict["objects"])
        _check_names("attached handler", attached, mine["attached"])
        for name, thing in self.objects.items():
            load_into(thing, state_dict["objects"][name])
        for name, thing in attached.items():
            load_into(thing, mine["attached"][name])
        self.trainer.load_state_dict(state_dict["trainer"])
        set_random_states(mine["random"])
        if rank >= len(ranks):
            seed_from_state(rank)
        if len(ranks) != idist.get_world_size() and rank == 0:
            logging.getLogger(__name__).warning(
                "the run was saved by %d processes and goes on with %d: the same global batches, "
                "other round-off, other random numbers within the processes",
                len(ranks),
                idist.get_world_size(),
            )

    def _attached(self) -> dict[str, Any]:
        """Return the stateful objects behind the trainer's handlers that the user did not name."""
        seen = {id(self), id(self.trainer), *(id(unwrap(thing)) for thing in self.objects.values())}
        found: dict[str, Any] = {}
        count: Counter[str] = Counter()
        for handler in self.trainer.handlers():
            thing = _owner(handler)
            if id(thing) in seen or not _is_stateful(thing):
                continue
            seen.add(id(thing))
            kind = type(thing).__name__
            count[kind] += 1
            found[f"{kind} {count[kind]}"] = thing
        return found


def _owner(handler: Callable[..., Any]) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return unwrap(getattr(handler, "__self__", handler))


def _is_stateful(thing: Any) -> bool:
    if isinstance(thing, type | RunState):
        return False
    return callable(getattr(thing, "state_dict", None)) and callable(
        getattr(thing, "load_state_dict", None)
    )


def _on_cpu(value: Any) -> Any:
    """Move tensors to main memory: on a device, every rank would unpack them on the same one."""
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value.cpu() if isinstance(value, torch.Tensor) else value


def _check_names(what: str, here: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    missing = [name for name in here if name not in saved]
    unexpected = [name for name in saved if name not in here]
    problems = []
    if missing:
        problems.append(f"the state has no {what} {', '.join(map(repr, missing))}")
    if unexpected:
        problems.append(f"the run has no {what} {', '.join(map(repr, unexpected))}")
    if problems:
        raise ValueError(
            f"not the state of this run: {'; '.join(problems)}. A run goes on with the same "
            f"objects, and handlers attached in the same order"
        )
