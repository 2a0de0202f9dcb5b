"""Saving what a run needs, or its best models, while it goes on; and loading it again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cookfire.distributed as idist
from cookfire.engine import Engine, EventEnum, Events
from cookfire.engine._runs import outermost_run
from cookfire.engine.base import Serializable
from cookfire.handlers._background import Background, is_ending
from cookfire.handlers._checks import check_whole
from cookfire.handlers._file_names import check_pattern, default_pattern, render
from cookfire.handlers._global_step import GlobalStep, read_step
from cookfire.handlers._kept import Kept, Saved
from cookfire.handlers._loading import load_newest, load_objects, load_states
from cookfire.handlers._objects import check_objects, state_of
from cookfire.handlers._savers import (
    BaseSaveHandler,
    SaveFunction,
    as_saver,
    check_rank,
    on_all_ranks,
    stores_here,
)
from cookfire.handlers._score import ScoreFunction, get_default_score_fn, read_score

__all__ = ["Checkpoint", "CheckpointEvents"]

_SELF = "checkpointer"  # the key of include_self


class CheckpointEvents(EventEnum):
    """Fired by :class:`Checkpoint` on the engine that it is attached to."""

    SAVED_CHECKPOINT = "saved_checkpoint"
    """A checkpoint is safe; older ones that it replaces are gone."""


class _Pending(NamedTuple):
    """A save that is not known to be safe on all ranks."""

    new: Saved
    dropped: list[Saved]
    engine: Engine


class Checkpoint(Serializable):
    """Saves objects when it is called: the last ones, or those with the best score.

    One object is saved as its bare ``state_dict``, several as a dict of theirs; models without the
    wrapping of DistributedDataParallel, DataParallel and torch.compile. Files always load with
    ``torch.load(weights_only=True)``. A new file is safe on the disk before an old one is removed.

    The names of the files are ``{filename_prefix}_{name}_{global_step}_{score_name}={score}.pt``:
    ``name`` is the object's key, or ``checkpoint`` for several; ``global_step`` is there if
    ``global_step_transform`` is given or there is no score (then it is the iteration); a score
    that is a float has 4 decimals. So ``training_checkpoint_50.pt`` and
    ``best_model_2_val_accuracy=0.3000.pt``. A slash in any of them becomes ``_``.

    Saving is done by all processes together: attach it on every rank. One of them writes; an error
    there is raised on all.

    In the background the calling thread only copies the state; one thread does all the rest, in
    order. Two saves may be unfinished, then a third one waits: nothing is left out, and it costs
    one or two copies in main memory. What the thread did is taken note of at the next call, at the
    end of the run and in :meth:`wait`: an error is raised there, on all ranks, the event is fired,
    and :attr:`last_checkpoint` moves on.

    Args:
        to_save: the objects, by name; each has ``state_dict`` and ``load_state_dict``.
        save_handler: a folder, an address such as ``s3://bucket/folder`` (see
            :class:`FsspecSaver`), a :class:`BaseSaveHandler`, or a function
            ``(checkpoint, filename)`` or ``(checkpoint, filename, metadata)``, which is called on
            ``save_on_rank`` only and whose files are never removed.
        filename_prefix: the names' beginning, such as ``best``.
        score_function: takes the engine, returns a number; higher is better, and nan is worse than
            any. Without it the newest are kept.
        score_name: the score's name in the file's name; without ``score_function`` also the metric
            that is the score.
        n_saved: how many to keep; None keeps all. 1 by default: what a run needs to continue.
        global_step_transform: takes the engine and the event, returns the step for the name; see
            :func:`~cookfire.handlers.global_step_from_engine`.
        filename_pattern: another pattern of the fields named above and ``ext``. With one that gives
            the same name again the file is replaced, by a better score only if there is a score.
        include_self: save this object's state too, under ``checkpointer``, so that a run that
            continues knows what it may remove; several objects by it, so never a bare
            ``state_dict``.
        greater_or_equal: an equal score counts as better.
        save_on_rank: the rank that writes.
        background: save in a thread, while the training goes on. The run waits for it at its end,
            the interpreter at its exit.

    Raises:
        TypeError: an object has no ``state_dict``, or a function can't be called as said.
        ValueError: ``n_saved`` is below 1, the pattern has an unknown field or one that nothing
            fills, ``to_save`` has the key ``checkpointer`` with ``include_self``; when called: the
            score is no number, its metric is missing, there is nothing to save, or no such rank.
        RuntimeError: when called: an earlier save in the background failed; names the file.

    Example:
        >>> checkpoint = Checkpoint(
        ...     {"model": model}, folder, filename_prefix="best", score_name="accuracy",
        ...     global_step_transform=global_step_from_engine(trainer),
        ... )
        >>> handle = evaluator.add_event_handler(Events.COMPLETED, checkpoint)
    """

    SAVED_CHECKPOINT = CheckpointEvents.SAVED_CHECKPOINT
    """Fired for each save that is safe. To listen before the first: ``engine.register_events``."""

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("_saved",)

    def __init__(
        self,
        to_save: Mapping[str, Any],
        save_handler: str | Path | SaveFunction | BaseSaveHandler,
        filename_prefix: str = "",
        score_function: ScoreFunction | None = None,
        score_name: str | None = None,
        n_saved: int | None = 1,
        global_step_transform: GlobalStep | None = None,
        filename_pattern: str | None = None,
        include_self: bool = False,
        greater_or_equal: bool = False,
        save_on_rank: int = 0,
        *,
        background: bool = False,
    ) -> None:
        check_objects(to_save, "to_save", "state_dict")
        if include_self and _SELF in to_save:
            raise ValueError(f"include_self saves under {_SELF!r}: to_save can't have that key too")
        if n_saved is not None:
            check_whole("n_saved", n_saved, "checkpoint")
        for name, function in (
            ("score_function", score_function),
            ("global_step_transform", global_step_transform),
        ):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function, got {type(function).__name__}")
        if score_function is None and score_name is not None:
            score_function = get_default_score_fn(score_name)
        self.to_save = to_save
        self._saver = as_saver(save_handler, save_on_rank)
        self.save_handler = save_handler if callable(save_handler) else self._saver
        self._background = Background(self._saver) if background else None
        self._at_end = partial(Checkpoint._settle, self, wait=True)
        self._after_error = partial(Checkpoint._wait_after_an_error, self)
        self.filename_prefix = filename_prefix
        self.score_function = score_function
        self.score_name = score_name
        self.n_saved = n_saved
        self.ext = "pt"
        self.global_step_transform = global_step_transform
        self.filename_pattern = filename_pattern
        self.include_self = include_self
        self.greater_or_equal = greater_or_equal
        self.save_on_rank = save_on_rank
        self._kept = Kept(n_saved, score_function is not None, greater_or_equal)
        self._saved: list[Saved] = []  # the worst, or oldest, first; also what is being saved
        self._safe: list[Saved] = []  # those of them that are known to be safe
        self._pending: list[_Pending] = []
        self._planned: dict[str, Any] | None = None  # the state after the save that goes on
        self._leftovers: list[str] = []  # what a run that was killed may not have removed
        check_pattern(self._pattern(), score_function is not None, score_name is not None)

    # Saving

    def __call__(self, engine: Engine, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - an event's
        """Save, if the score is good enough; further arguments are an event's, and ignored.

        Raises:
            TypeError: a dict of objects is among them, as for :class:`ModelCheckpoint`.
        """
        if any(isinstance(argument, Mapping) for argument in args):
            raise TypeError(
                "Checkpoint saves what it was made with; to name the objects when the handler is "
                "attached, use ModelCheckpoint"
            )
        self._save(engine, self.to_save)

    def _save(self, engine: Engine, objects: Mapping[str, Any]) -> None:
        if not objects:
            raise ValueError("there is nothing to save: to_save is empty")
        check_rank(self.save_on_rank)
        check_rank(self._saver.save_on_rank)  # its own; if nobody had it, nothing would be stored
        name = _name_of(objects)
        score = self._score(engine)
        step = read_step(self.global_step_transform, engine)
        ends = is_ending(outermost_run())
        self._settle()
        new = Saved(step if score is None else score, self._filename(name, step, score))
        saved = self._kept.improved(self._saved, new)
        if saved is None:
            return
        self._remove_leftovers()
        pending = _Pending(new, self._kept.beyond(saved), engine)
        metadata = {
            "basename": f"{self.filename_prefix}_{name}" if self.filename_prefix else name,
            "score_name": self.score_name,
            "priority": new.priority,
        }
        if self._background is None:
            with on_all_ranks(f"{new.filename} was not saved"):
                self._saver(self._collect(objects, saved), new.filename, metadata)
            self._saved = saved[len(pending.dropped) :]
            with on_all_ranks(f"{new.filename} was saved, but an older one was not removed"):
                for old in pending.dropped:
                    self._saver.remove(old.filename)
            self._confirm(pending, removed=True)
            return
        with on_all_ranks(f"{new.filename} was not saved"):
            state = self._collect(objects, saved)
            copied = self._background.copy(state) if stores_here(self._saver) else None
        self._saved = saved[len(pending.dropped) :]
        self._pending.append(pending)
        if copied is not None:
            dropped = [old.filename for old in pending.dropped]
            self._background.save(copied, new.filename, metadata, dropped)
        self._await(ends)

    def _score(self, engine: Engine) -> int | float | None:
        """Return the score of the rank that writes: all must come to the same decision."""
        if self.score_function is None:
            return None
        return idist.broadcast(read_score(self.score_function, engine), src=self.save_on_rank)

    def _collect(self, objects: Mapping[str, Any], saved: list[Saved]) -> Any:
        dropped = self._kept.beyond(saved)
        # What is collected holds this handler's own state if it includes itself, or if a RunState
        # is among the objects: as it will be when all is saved.
        self._planned = {
            **_state(saved[len(dropped) :]),
            "_dropped": [item.filename for item in dropped],
        }
        try:
            states = {name: state_of(thing, self.save_on_rank) for name, thing in objects.items()}
        finally:
            planned, self._planned = self._planned, None
        if self.include_self:
            states[_SELF] = planned
        return states if len(states) > 1 else next(iter(states.values()))

    def _remove_leftovers(self) -> None:
        for name in self._leftovers:
            with suppress(Exception):  # most often it was removed, and a saver may mind
                self._saver.remove(name)
        self._leftovers = []

    def _confirm(self, pending: _Pending, removed: bool) -> None:
        """Note that a checkpoint is safe, and say so."""
        gone = pending.dropped if removed else []
        safe = self._kept.ordered(self._safe, pending.new)
        self._safe = [item for item in safe if item not in gone]
        if not pending.engine.has_registered_events(self.SAVED_CHECKPOINT):
            pending.engine.register_events(self.SAVED_CHECKPOINT)
        pending.engine.fire_event(self.SAVED_CHECKPOINT)

    # In the background

    def wait(self) -> None:
        """Wait until what was saved in the background is safe; all ranks must call it.

        Raises:
            RuntimeError: a save failed; names the file, and says why.
        """
        self._settle(wait=True)

    def _settle(self, wait: bool = False) -> None:
        """Take note of what the thread has done, on all ranks alike."""
        if self._background is None or not self._pending:
            return
        outcomes = self._background.outcomes(wait)
        if idist.get_world_size() > 1:
            outcomes = next(filter(None, idist.all_gather(outcomes)), [])
        settled = list(zip(self._pending, outcomes, strict=False))
        self._pending = self._pending[len(settled) :]
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        for pending, outcome in settled:
            if outcome.saved:
                self._confirm(pending, outcome.removed)
        if errors:
            self._saved = list(self._safe)
            raise RuntimeError("; ".join(errors)) from self._background.cause

    def _await(self, ends: bool) -> None:
        """Wait for the save at the end of the run that it is a part of."""
        run = outermost_run()
        if run is None or self._background is None:
            return  # called by hand, not by an engine: the interpreter waits at its exit
        if ends:
            self._settle(wait=True)
        elif not run.has_event_handler(self._at_end):
            # Neither is a bound method of this object, in which a RunState would see one more
            # handler with a state.
            run.add_event_handler(
                Events.TERMINATE | Events.COMPLETED | Events.INTERRUPT, self._at_end
            )
            run.add_event_handler(Events.EXCEPTION_RAISED, self._after_error)

    def _wait_after_an_error(self) -> None:
        if self._background is None:
            return
        self._background.wait()
        if idist.get_world_size() > 1:
            return  # not all ranks may be here, so there is no agreement
        try:
            self._settle()
        except RuntimeError as error:  # the error of the run stands
            logging.getLogger(__name__).warning("%s", error)

    # Names

    setup_filename_pattern = staticmethod(default_pattern)

    def _pattern(self) -> str:
        if self.filename_pattern is not None:
            return self.filename_pattern
        scored = self.score_function is not None
        return default_pattern(
            with_prefix=bool(self.filename_prefix),
            with_score=scored,
            with_score_name=scored and self.score_name is not None,
            with_global_step=self.global_step_transform is not None or not scored,
        )

    def _filename(self, name: str, step: int, score: int | float | None) -> str:
        prefix, score_name = self.filename_prefix, self.score_name
        return render(self._pattern(), prefix, name, step, score_name, score, self.ext)

    # What was saved

    @property
    def last_checkpoint(self) -> str | Path | None:
        """The newest checkpoint that is safe, with a score the best: its path, address or name."""
        return self._saver.address(self._safe[-1].filename) if self._safe else None

    def reset(self) -> None:
        """Forget what was saved, so that none of it is removed or compared with."""
        self._settle(wait=True)
        self._saved, self._safe = [], []

    def state_dict(self) -> dict[str, Any]:
        """Return the names and scores of what is saved, or about to be."""
        return self._planned or _state(self._saved)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what another one saved."""
        super().load_state_dict(state_dict)
        self._settle(wait=True)
        self._saved = [Saved(priority, filename) for priority, filename in state_dict["_saved"]]
        self._safe = list(self._saved)
        self._leftovers = list(state_dict.get("_dropped", ()))

    # Loading

    get_default_score_fn = staticmethod(get_default_score_fn)
    load_objects = staticmethod(load_objects)
    load_newest = staticmethod(load_newest)

    def reload_objects(
        self,
        to_load: Mapping[str, Any],
        load_kwargs: Mapping[str, Any] | None = None,
        **filename_components: Any,
    ) -> None:
        """Load one of this handler's own checkpoints from the disk or an object store.

        Args:
            to_load: the objects, as for :meth:`load_objects`.
            load_kwargs: for models: ``strict``, ``assign``.
            filename_components: what the file's name is made of and differs from file to file:
                ``global_step``, ``score``, and ``name`` (the object's key, or ``checkpoint``).

        Raises:
            TypeError: the checkpoints are elsewhere; an unknown component.
            FileNotFoundError: there is no such checkpoint.

        Example:
            >>> checkpoint.reload_objects({"model": model}, global_step=40)
        """
        if unknown := set(filename_components).difference(("name", "global_step", "score")):
            raise TypeError(
                f"unknown component {sorted(unknown)[0]!r}; expected name, global_step, score"
            )
        check_objects(to_load, "to_load", "load_state_dict")
        filename = self._filename(
            filename_components.get("name", _name_of(to_load)),
            filename_components.get("global_step", 0),
            filename_components.get("score"),
        )
        load_states(
            to_load, self._saver.load(filename), self._saver.address(filename), load_kwargs or {}
        )


def _state(saved: list[Saved]) -> dict[str, Any]:
    return {"_saved": [tuple(item) for item in saved]}


def _name_of(objects: Mapping[str, Any]) -> str:
    return next(iter(objects)) if len(objects) == 1 else "checkpoint"
