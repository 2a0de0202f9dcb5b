"""Saving what a run needs, or its best models, while it goes on; and loading it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cookfire.distributed as idist
from cookfire.engine import Engine, EventEnum
from cookfire.engine.base import Serializable
from cookfire.handlers._file_names import check_pattern, default_pattern, render
from cookfire.handlers._files import DamagedCheckpoint
from cookfire.handlers._loading import load_newest, load_objects
from cookfire.handlers._objects import check_objects, state_of
from cookfire.handlers._savers import (
    BaseSaveHandler,
    DiskSaver,
    SaveFunction,
    on_all_ranks,
    takes_metadata,
)
from cookfire.handlers._score import ScoreFunction, get_default_score_fn, read_score

__all__ = [
    "BaseSaveHandler",
    "Checkpoint",
    "CheckpointEvents",
    "DamagedCheckpoint",
    "DiskSaver",
    "ModelCheckpoint",
]

GlobalStep = Callable[[Engine, Any], int]

_SELF = "checkpointer"  # the key of include_self


class CheckpointEvents(EventEnum):
    """Fired by :class:`Checkpoint` on the engine that it is attached to."""

    SAVED_CHECKPOINT = "saved_checkpoint"
    """A checkpoint was saved; older ones that it replaces are gone."""


class _Saved(NamedTuple):
    priority: int | float
    filename: str

    @property
    def rank(self) -> tuple[bool, int | float]:
        """What to compare by: not-a-number is worse than everything."""
        return (True, self.priority) if self.priority == self.priority else (False, 0)


class Checkpoint(Serializable):
    """Saves objects when it is called: the last ones, or those with the best score.

    One object is saved as its bare ``state_dict``, several as a dict of theirs; models without the
    wrapping of DistributedDataParallel, DataParallel and torch.compile. Files always load with
    ``torch.load(weights_only=True)``. A new file is safe on the disk before an old one is removed.

    The names of the files are ``{filename_prefix}_{name}_{global_step}_{score_name}={score}.pt``:
    ``name`` is the object's key, or ``checkpoint`` for several; ``global_step`` is there if
    ``global_step_transform`` is given or there is no score (then it is the iteration); a score
    that is a float has 4 decimals. So ``training_checkpoint_50.pt`` and
    ``best_model_2_val_accuracy=0.3000.pt``. A slash in a name or score's name becomes ``_``.

    Saving is done by all processes together: attach it on every rank. One of them writes; an error
    there is raised on all.

    Args:
        to_save: the objects, by name; each has ``state_dict`` and ``load_state_dict``.
        save_handler: a folder, a :class:`BaseSaveHandler`, or a function ``(checkpoint, filename)``
            or ``(checkpoint, filename, metadata)``, which is called on ``save_on_rank`` only and
            whose files are never removed.
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

    Raises:
        TypeError: an object has no ``state_dict``, or a function can't be called as said.
        ValueError: ``n_saved`` is below 1, the pattern has an unknown field or one that nothing
            fills, ``to_save`` has the key ``checkpointer`` with ``include_self``; when called: the
            score is no number, its metric is missing, or there is nothing to save.

    Example:
        >>> checkpoint = Checkpoint(
        ...     {"model": model}, folder, filename_prefix="best", score_name="accuracy",
        ...     global_step_transform=global_step_from_engine(trainer),
        ... )
        >>> handle = evaluator.add_event_handler(Events.COMPLETED, checkpoint)
    """

    SAVED_CHECKPOINT = CheckpointEvents.SAVED_CHECKPOINT
    """Fired after each save. To listen before the first: ``engine.register_events`` it."""

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
    ) -> None:
        check_objects(to_save, "to_save", "state_dict")
        if include_self and _SELF in to_save:
            raise ValueError(f"include_self saves under {_SELF!r}: to_save can't have that key too")
        if n_saved is not None and n_saved < 1:
            raise ValueError(f"n_saved must be at least 1, or None to keep all, got {n_saved!r}")
        for name, function in (
            ("score_function", score_function),
            ("global_step_transform", global_step_transform),
        ):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function, got {type(function).__name__}")
        if score_function is None and score_name is not None:
            score_function = get_default_score_fn(score_name)
        self.to_save = to_save
        self.save_handler: SaveFunction | BaseSaveHandler
        if isinstance(save_handler, str | Path):
            self.save_handler = DiskSaver(
                save_handler, require_empty=False, save_on_rank=save_on_rank
            )
        else:
            self.save_handler = save_handler
        self._takes_metadata = takes_metadata(self.save_handler)
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
        self._saved: list[_Saved] = []  # the worst, or oldest, first
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
        name = _name_of(objects)
        score = self._score(engine)
        step = self._global_step(engine)
        priority = step if score is None else score
        new = _Saved(priority, self._filename(name, step, score))
        kept = self._with(new)
        if kept is None:
            return
        dropped = [] if self.n_saved is None else kept[: -self.n_saved]
        kept = kept[len(dropped) :]
        with on_all_ranks(new.filename):
            self._write(self._collect(objects, kept), name, new)
        self._saved = kept
        if isinstance(self.save_handler, BaseSaveHandler):
            for old in dropped:
                self.save_handler.remove(old.filename)
        if not engine.has_registered_events(self.SAVED_CHECKPOINT):
            engine.register_events(self.SAVED_CHECKPOINT)
        engine.fire_event(self.SAVED_CHECKPOINT)

    def _score(self, engine: Engine) -> int | float | None:
        """Return the score of the rank that writes: all must come to the same decision."""
        if self.score_function is None:
            return None
        return idist.broadcast(read_score(self.score_function, engine), src=self.save_on_rank)

    def _global_step(self, engine: Engine) -> int:
        if self.global_step_transform is None:
            return engine.state.iteration
        step = self.global_step_transform(engine, engine.last_event_name)
        if not isinstance(step, int | float):
            raise ValueError(
                f"global_step_transform must return a number, got {step!r} ({type(step).__name__})"
            )
        return step

    def _with(self, new: _Saved) -> list[_Saved] | None:
        """Return what is saved and ``new`` in their order; None if ``new`` is not good enough."""
        others = [item for item in self._saved if item.filename != new.filename]
        if self.score_function is None:
            return [*others, new]
        rivals = [item for item in self._saved if item.filename == new.filename]
        if not rivals and self.n_saved is not None and len(others) >= self.n_saved:
            rivals = others[:1]
        for rival in rivals:
            if new.rank < rival.rank or (new.rank == rival.rank and not self.greater_or_equal):
                return None
        return sorted([*others, new], key=lambda item: item.rank)

    def _collect(self, objects: Mapping[str, Any], kept: list[_Saved]) -> Any:
        states = {name: state_of(thing, self.save_on_rank) for name, thing in objects.items()}
        if self.include_self:
            states[_SELF] = _state(kept)
        return states if len(states) > 1 else next(iter(states.values()))

    def _write(self, checkpoint: Any, name: str, new: _Saved) -> None:
        everywhere = isinstance(self.save_handler, BaseSaveHandler)
        if not everywhere and idist.get_rank() != self.save_on_rank:
            return
        if not self._takes_metadata:
            self.save_handler(checkpoint, new.filename)
            return
        metadata = {
            "basename": f"{self.filename_prefix}_{name}" if self.filename_prefix else name,
            "score_name": self.score_name,
            "priority": new.priority,
        }
        self.save_handler(checkpoint, new.filename, metadata)

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
        """The newest checkpoint, with a score the best: a path on the disk, else a file's name."""
        if not self._saved:
            return None
        filename = self._saved[-1].filename
        if isinstance(self.save_handler, DiskSaver):
            return self.save_handler.dirname / filename
        return filename

    def reset(self) -> None:
        """Forget what was saved, so that none of it is removed or compared with."""
        self._saved = []

    def state_dict(self) -> dict[str, Any]:
        """Return the names and scores of what is saved."""
        return _state(self._saved)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what another one saved."""
        super().load_state_dict(state_dict)
        self._saved = [_Saved(priority, filename) for priority, filename in state_dict["_saved"]]

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
        """Load one of this handler's own checkpoints from the disk.

        Args:
            to_load: the objects, as for :meth:`load_objects`.
            load_kwargs: for models: ``strict``, ``assign``.
            filename_components: what the file's name is made of and differs from file to file:
                ``global_step``, ``score``, and ``name`` (the object's key, or ``checkpoint``).

        Raises:
            TypeError: the checkpoints are not on the disk; an unknown component.
            FileNotFoundError: there is no such checkpoint.

        Example:
            >>> checkpoint.reload_objects({"model": model}, global_step=40)
        """
        if not isinstance(self.save_handler, DiskSaver):
            raise TypeError("reload_objects needs checkpoints on the disk: save_handler=DiskSaver")
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
        self.load_objects(to_load, self.save_handler.dirname / filename, **(load_kwargs or {}))


class ModelCheckpoint(Checkpoint):
    """A :class:`Checkpoint` on the disk that is told what to save when it is attached.

    Args:
        dirname: the folder.
        atomic: see :class:`DiskSaver`, as for ``require_empty``, ``create_dir`` and ``kwargs``.
        require_empty: refuse a folder that has ``.pt`` files. False leaves those of earlier runs,
            which are never removed; of a name that is the same each time
            (``filename_pattern="best.{ext}"``) there is one file, that of the last run.
        create_dir: make the folder if it is not there.
        kwargs: for ``torch.save``.

    The other arguments, and what is raised, are those of :class:`Checkpoint`.

    Example:
        >>> handler = ModelCheckpoint(folder / "best", score_name="accuracy", n_saved=2)
        >>> handle = evaluator.add_event_handler(Events.COMPLETED, handler, {"model": model})
    """

    def __init__(
        self,
        dirname: str | Path,
        filename_prefix: str = "",
        score_function: ScoreFunction | None = None,
        score_name: str | None = None,
        n_saved: int | None = 1,
        atomic: bool = True,
        require_empty: bool = True,
        create_dir: bool = True,
        global_step_transform: GlobalStep | None = None,
        filename_pattern: str | None = None,
        include_self: bool = False,
        greater_or_equal: bool = False,
        save_on_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            to_save={},
            save_handler=DiskSaver(
                dirname,
                atomic=atomic,
                create_dir=create_dir,
                require_empty=require_empty,
                save_on_rank=save_on_rank,
                **kwargs,
            ),
            filename_prefix=filename_prefix,
            score_function=score_function,
            score_name=score_name,
            n_saved=n_saved,
            global_step_transform=global_step_transform,
            filename_pattern=filename_pattern,
            include_self=include_self,
            greater_or_equal=greater_or_equal,
            save_on_rank=save_on_rank,
        )

    def __call__(self, engine: Engine, to_save: Mapping[str, Any]) -> None:
        """Save ``to_save``, if the score is good enough.

        Raises:
            TypeError: ``to_save`` is no dict of objects with ``state_dict``.
        """
        check_objects(to_save, "to_save", "state_dict")
        self._save(engine, to_save)


def _state(saved: list[_Saved]) -> dict[str, Any]:
    return {"_saved": [tuple(item) for item in saved]}


def _name_of(objects: Mapping[str, Any]) -> str:
    return next(iter(objects)) if len(objects) == 1 else "checkpoint"
