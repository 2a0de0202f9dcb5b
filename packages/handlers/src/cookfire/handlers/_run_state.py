"""Everything that a run needs to go on, in one object."""

from __future__ import annotations

import functools
import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers._engine_states import (
    load_engine,
    load_values,
    state_of_engine,
    values_of_engine,
    wants_to_end,
)
from cookfire.handlers._files import load_file, save_file
from cookfire.handlers._fitting import can_be_checked, find_misfit, kind_of
from cookfire.handlers._keeping import keep, position_of
from cookfire.handlers._objects import check_objects, load_into, state_of, unwrap
from cookfire.handlers._random_states import get_random_states, seed_from_state, set_random_states
from cookfire.handlers._resume_points import ResumePoints
from cookfire.handlers._savers import on_all_ranks
from cookfire.handlers.preemption import SIGNALS

__all__ = ["RunState"]

_KEYS = ("trainer", "ends", "objects", "kinds", "ranks")


class RunState:
    """The state of a run: loaded into a new process, it goes on as if it had never stopped.

    :meth:`keep` is all that a script needs; :meth:`save` and :meth:`resume` are for who wants to
    say when; with ``state_dict`` and ``load_state_dict`` a :class:`Checkpoint` saves it too.

    It holds

    - the trainer's position, to the batch, and its wish to end (early stopping);
    - the objects named by the user, models without what they are wrapped in;
    - every other object with a state that is attached to the trainer as a handler, or to an engine
      among the named objects (early stopping, checkpoints, schedules, averages, metrics, ...),
      named by its class and order of attachment;
    - the metrics in force in these engines, and an output as small as a loss;
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

    Args:
        trainer: the engine of the run.
        objects: model, optimizer, gradient scaler, evaluators, a scheduler that is not attached,
            or anything with ``state_dict`` and ``load_state_dict``.

    Raises:
        TypeError: the trainer is no engine, or an object has no state.

    Example:
        >>> run = RunState(trainer, model=model, optimizer=optimizer, evaluator=evaluator)
        >>> run.keep(folder / "run", every=1000)  # goes on with what is there, if there is
        False
        >>> state = trainer.run(data)
    """

    def __init__(self, trainer: Engine, **objects: Any) -> None:
        if not isinstance(trainer, Engine):
            raise TypeError(f"trainer must be an engine, got {type(trainer).__name__}")
        check_objects(objects, "objects", "state_dict")
        check_objects(objects, "objects", "load_state_dict")
        self.trainer = trainer
        self.objects = objects
        self._ends = False

    # In a folder, or a file

    def keep(
        self,
        folder: str | Path,
        *,
        every: int | None = 500,
        n_saved: int = 2,
        signals: Sequence[signal.Signals] = SIGNALS,
    ) -> bool:
        """Go on with the run that the folder holds, if it does; and keep this one there.

        Call it when everything is attached, right before ``trainer.run``. The run is saved after
        every so many iterations, each epoch, when it is told to end, and when a signal asks for the
        machine (see :class:`Preemption`; the process then exits). Each file is there completely or
        not at all, with its sha256; a damaged one is skipped aloud, and the one before it is used.
        To begin afresh, remove the folder.

        Args:
            folder: this run's own; all processes must see it.
            every: iterations between two files: what a kill may lose. None: epochs only.
            n_saved: files kept.
            signals: those that ask for the machine; none for a run outside the main thread.

        Returns:
            Whether an earlier run goes on.

        Raises:
            ValueError: what is in the folder is another run's state, with nothing of it loaded;
                or a number is below 1. When the run begins: something with a state was attached
                after this call.

        Example:
            >>> RunState(trainer, model=model).keep(folder / "another run", signals=())
            False
        """
        return keep(self, ResumePoints(folder, n_saved), every, signals)

    def save(self, path: str | Path) -> None:
        """Write the state to a file, completely or not at all; all processes must call it.

        Raises:
            OSError: it can't be written.
            TypeError: an object's state holds more than tensors and plain values; says where.

        Example:
            >>> RunState(trainer, model=model).save(folder / "run.pt")
        """
        path = Path(path).expanduser()
        saved = self.state_dict()
        with on_all_ranks(str(path)):
            if idist.get_rank() == 0:
                save_file(saved, path)

    def resume(self, path: str | Path) -> None:
        """Go on from a file, or from the newest intact one in a folder of :meth:`keep`.

        Raises:
            FileNotFoundError: there is none.
            DamagedCheckpoint: the file is damaged, or no checkpoint.
            ValueError: it is not the state of such a run; see :meth:`load_state_dict`.

        Example:
            >>> run = RunState(trainer, model=model)
            >>> run.save(folder / "run.pt")
            >>> run.resume(folder / "run.pt")
        """
        path = Path(path).expanduser()
        if not path.is_dir():
            self._load_from(path, load_file(path, map_location="cpu"))
            return
        point = ResumePoints(path).newest()
        if point is None:
            raise FileNotFoundError(f"{path}: no intact state_<iteration>.pt to go on from")
        self._load_from(*point)

    def _load_from(self, path: Path, saved: Any) -> None:
        try:
            self.load_state_dict(saved)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        except (LookupError, AttributeError, ArithmeticError) as error:  # what nonsense leads to
            kind = type(error).__name__
            raise ValueError(f"{path}: not the state of a run ({kind}: {error})") from error

    # In memory

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and plain values, loadable with ``weights_only=True``."""
        return self.state_on(0)

    def state_on(self, rank: int) -> dict[str, Any]:
        """Return the state, to be saved by ``rank``: what is sharded is brought together there."""
        mine = {
            "attached": {name: _state_of(thing, rank) for name, thing in self._attached().items()},
            "values": {name: values_of_engine(engine) for name, engine in self._engines().items()},
            "random": get_random_states(),
        }
        several = idist.get_world_size() > 1
        return {
            "trainer": self.trainer.state_dict(),
            "ends": wants_to_end(self.trainer),
            "objects": {name: _state_of(thing, rank) for name, thing in self.objects.items()},
            "kinds": {name: kind_of(thing) for name, thing in self.objects.items()},
            "ranks": idist.all_gather(_on_cpu(mine)) if several else [mine],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, in the same or another process.

        Attach the handlers before. That the state fits models, optimizers and handlers is checked
        before anything is loaded; other objects are loaded first, so that where one of them
        refuses, these are untouched.

        Raises:
            RuntimeError: the trainer is running.
            ValueError: it is not the state of a run with the same objects and attached handlers;
                says what is missing, too much or of another kind. Nothing was loaded then. Or an
                object does not take its state; names those that were loaded before it.
        """
        if not isinstance(state_dict, Mapping):
            raise ValueError(f"not the state of a run, but a {type(state_dict).__name__}")
        if missing := [key for key in _KEYS if key not in state_dict]:
            raise ValueError(f"not the state of a run: it has no {missing[0]!r}")
        if self.trainer.status.value == "running":
            raise RuntimeError("a running trainer can't take another state; load before run()")
        ranks, rank = state_dict["ranks"], idist.get_rank()
        if not isinstance(ranks, list) or not ranks or set(map(type, ranks)) != {dict}:
            raise ValueError("not the state of a run: its 'ranks' are no list of states")
        mine = ranks[rank % len(ranks)]
        attached = self._attached()
        _check_names("object", self.objects, state_dict["objects"])
        _check_names("attached handler", attached, mine["attached"])
        _check_kinds(self.objects, state_dict["kinds"])
        _load_all(self.objects | attached, {**state_dict["objects"], **mine["attached"]})
        self.trainer.load_state_dict(state_dict["trainer"])
        for name, engine in self._engines().items():
            load_values(engine, mine["values"].get(name, {"metrics": {}}))
        self._end_if(state_dict["ends"])
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

    def _end_if(self, ends: bool) -> None:
        """Have the trainer end as soon as it runs, if it was about to."""
        if ends and not self.trainer.has_event_handler(self._end, Events.STARTED):
            self.trainer.add_event_handler(Events.STARTED, self._end)
        self._ends = ends

    def _end(self, trainer: Engine) -> None:
        if self._ends:
            self._ends = False
            logging.getLogger(__name__).warning(
                "the run was told to end at %s, and does no more; it trains on in another folder, "
                "or after this one is removed", position_of(trainer),
            )  # fmt: skip
            trainer.terminate()

    # What there is

    def _engines(self) -> dict[str, Engine]:
        named = {name: one for name, one in self.objects.items() if isinstance(one, Engine)}
        return {"the trainer": self.trainer, **named}

    def _attached(self) -> dict[str, Any]:
        """Return the stateful objects behind the engines' handlers that the user did not name."""
        seen = {id(self), id(self.trainer), *(id(unwrap(thing)) for thing in self.objects.values())}
        found: dict[str, Any] = {}
        for name, engine in self._engines().items():
            where = "" if engine is self.trainer else f" of {name}"
            count: Counter[str] = Counter()
            for thing in _owners(engine):
                if id(thing) in seen:
                    continue
                seen.add(id(thing))
                kind = type(thing).__name__
                count[kind] += 1
                found[f"{kind} {count[kind]}{where}"] = thing
        return found


def _owners(engine: Engine) -> Iterator[Any]:
    """Iterate over what has a state: handlers, and the objects that they are methods of."""
    for handler in engine.handlers():
        if _is_stateful(thing := _owner(handler)):
            yield thing


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


def _state_of(thing: Any, rank: int) -> Any:
    return state_of_engine(thing) if isinstance(thing, Engine) else state_of(thing, rank)


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


def _check_kinds(here: Mapping[str, Any], saved: Mapping[str, str]) -> None:
    for name, thing in here.items():
        if kind_of(thing) != saved[name]:
            raise ValueError(
                f"not the state of this run: {name!r} was a {saved[name] or 'model'} and is a "
                f"{type(thing).__name__}. A run goes on with the same objects"
            )


def _load_all(things: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    for name, thing in things.items():
        state = states[name]["position"] if isinstance(thing, Engine) else states[name]
        if problem := find_misfit(thing, state):
            raise ValueError(f"not the state of this run: that of {name!r} does not fit: {problem}")
    done: list[str] = []
    for name in sorted(things, key=lambda name: can_be_checked(things[name])):
        load = load_engine if isinstance(things[name], Engine) else load_into
        try:
            load(things[name], states[name])
        except Exception as error:  # whatever an object makes of a state that is not its own
            loaded = f"loaded before it: {', '.join(done)}" if done else "nothing was loaded"
            raise ValueError(
                f"{name!r} ({type(unwrap(things[name])).__name__}) does not take its state: "
                f"{type(error).__name__}: {error}; {loaded}"
            ) from error
        done.append(name)
