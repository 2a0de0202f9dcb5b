"""Keeping a run in a folder: when it is saved, and how it goes on."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader, RandomSampler

from cookfire.engine import Engine, Events
from cookfire.handlers._checks import check_whole
from cookfire.handlers._resume_points import ResumePoints
from cookfire.handlers.preemption import Preemption

if TYPE_CHECKING:
    from cookfire.handlers._run_state import RunState

__all__ = ["keep", "position_of"]

logger = logging.getLogger(__name__)


def keep(
    run: RunState, points: ResumePoints, every: int | None, signals: Sequence[signal.Signals]
) -> bool:
    """Do what :meth:`RunState.keep` says."""
    keeping = _Keeping(run, points, every)
    point = points.newest()
    if point is not None:
        run._load_from(*point)
        logger.info("%s: going on at %s", point.path, position_of(run.trainer))
        if _is_at_its_end(run.trainer):
            logger.warning(
                "%s: the run is at its end (%s): nothing is left to do, unless its limit is raised",
                points.folder,
                position_of(run.trainer),
            )
    keeping.attach(signals)
    return point is not None


def position_of(trainer: Engine) -> str:
    """Return where a run is, such as ``iteration 12 (epoch 2 of 4)``."""
    at = trainer.state
    limit = f"of {at.max_epochs}" if at.max_epochs else f"of {at.max_iters} iterations"
    return f"iteration {at.iteration} (epoch {at.epoch} {limit})"


class _Keeping:
    """Saves the run, after all other handlers of an event."""

    def __init__(self, run: RunState, points: ResumePoints, every: int | None) -> None:
        if every is not None:
            check_whole("every", every, "iteration")
        self.run = run
        self.points = points
        self.every = every
        self._attached = list(run._attached())
        self._saved_at = -1
        self._begun = self._failed = False

    def attach(self, signals: Sequence[signal.Signals]) -> None:
        trainer = self.run.trainer
        trainer.add_event_handler(Events.STARTED, self._begin)
        if signals:
            Preemption(self._save, signals).attach(trainer)

    def _begin(self, trainer: Engine) -> None:
        self._failed, self._saved_at = False, -1
        if self._begun:
            return
        self._begun = True
        if late := [name for name in self.run._attached() if name not in self._attached]:
            raise ValueError(
                f"{late[0]} was attached after keep(), which could not bring back its state; "
                f"attach it before"
            )
        _warn_if_the_order_is_lost(trainer)
        # Attached now, they come after all that was attached to these events before.
        if self.every is not None:
            within = Events.ITERATION_COMPLETED(every=self.every)
            trainer.add_event_handler(within, self._save_within_epoch)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        trainer.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        trainer.add_event_handler(Events.TERMINATE, self._save_the_end)

    def _save(self, trainer: Engine) -> None:
        self.points.save(trainer.state.iteration, self.run.state_dict())
        self._saved_at = trainer.state.iteration

    def _save_within_epoch(self, trainer: Engine) -> None:
        # At an epoch's end only after its handlers: they may look at the last step's output, which
        # no state holds, unless it is small. Nor does one hold the wish to end an epoch.
        if trainer.epoch_iteration != trainer.state.epoch_length and not trainer._skip_epoch:
            self._save(trainer)

    def _save_the_end(self, trainer: Engine) -> None:
        if not self._failed and self._saved_at != trainer.state.iteration:
            self._save(trainer)

    def _fail(self) -> None:
        self._failed = True  # in the middle of an iteration: nothing to go on from


def _is_at_its_end(trainer: Engine) -> bool:
    state = trainer.state
    if state.max_iters is not None:
        return state.iteration >= state.max_iters
    within_epoch = trainer.state_dict()["batch"] is not None
    return not within_epoch and state.max_epochs is not None and state.epoch >= state.max_epochs


def _warn_if_the_order_is_lost(trainer: Engine) -> None:
    data = trainer.state.dataloader
    if isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler):
        logger.warning(
            "the data is shuffled by torch's RandomSampler, whose order is lost when a run stops "
            "within an epoch: what goes on there may see samples twice, others not at all; "
            "use cookfire.distributed.auto_dataloader"
        )
