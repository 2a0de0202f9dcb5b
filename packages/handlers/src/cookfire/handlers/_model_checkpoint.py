"""Checkpoints of what an engine's handler is attached with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cookfire.engine import Engine
from cookfire.handlers._checkpoint import Checkpoint
from cookfire.handlers._global_step import GlobalStep
from cookfire.handlers._objects import check_objects
from cookfire.handlers._savers import DiskSaver
from cookfire.handlers._score import ScoreFunction

__all__ = ["ModelCheckpoint"]


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
        *,
        background: bool = False,
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
            background=background,
        )

    def __call__(self, engine: Engine, to_save: Mapping[str, Any]) -> None:
        """Save ``to_save``, if the score is good enough.

        Raises:
            TypeError: ``to_save`` is no dict of objects with ``state_dict``.
        """
        check_objects(to_save, "to_save", "state_dict")
        self._save(engine, to_save)
