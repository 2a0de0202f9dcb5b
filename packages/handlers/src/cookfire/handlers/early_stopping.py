"""Ending a training that no longer gets better."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from cookfire.engine import CallableEventWithFilter, Engine, EventEnum, Events, EventsList
from cookfire.engine.base import ResettableHandler, Serializable
from cookfire.handlers._checks import check_whole
from cookfire.handlers._score import ScoreFunction, read_score

__all__ = ["EarlyStopping"]

Setting = TypeVar("Setting")


class EarlyStopping(Serializable, ResettableHandler):
    """Terminates a trainer when the score has not improved for ``patience`` evaluations.

    A score that is not a number is no improvement, nor is anything worse than it: nothing is
    compared with it. A change is relative to the size of the best score, also of a negative one.

    Args:
        patience: evaluations without improvement after which the trainer is told to stop.
        score_function: takes the engine that the handler is attached to, returns a number.
        trainer: the engine to stop.
        threshold: an improvement is a change by more than this; 0 by default: any change for the
            better.
        cumulative: measure changes from the last improvement. By default they are measured from
            the best score, also where it became better by less than ``threshold``.
        threshold_mode: ``"abs"``, or ``"rel"``: ``threshold`` is a fraction of the best score.
        mode: ``"max"``: higher scores are better; ``"min"``: lower ones.
        min_delta: an older name of ``threshold``.
        min_delta_mode: an older name of ``threshold_mode``.
        cumulative_delta: an older name of ``cumulative``.

    Attributes:
        counter: evaluations since the last improvement.
        best_score: the score to improve on; None before the first evaluation.

    Raises:
        TypeError: ``score_function`` is no function, ``trainer`` no engine, or a setting is given
            under both its names.
        ValueError: a setting is out of range; when called: the score is no number.

    Example:
        >>> stopping = EarlyStopping(3, lambda engine: -engine.state.metrics["loss"], trainer)
        >>> stopping.attach(evaluator)
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("counter", "best_score")

    def __init__(
        self,
        patience: int,
        score_function: ScoreFunction,
        trainer: Engine,
        threshold: float = 0.0,
        cumulative: bool = False,
        threshold_mode: Literal["abs", "rel"] = "abs",
        mode: Literal["min", "max"] = "max",
        min_delta: float | None = None,
        min_delta_mode: Literal["abs", "rel"] | None = None,
        cumulative_delta: bool | None = None,
    ) -> None:
        threshold = _renamed("threshold", threshold, 0.0, "min_delta", min_delta)
        cumulative = _renamed("cumulative", cumulative, False, "cumulative_delta", cumulative_delta)
        threshold_mode = _renamed(
            "threshold_mode", threshold_mode, "abs", "min_delta_mode", min_delta_mode
        )
        if not callable(score_function):
            raise TypeError(f"score_function must be a function, got {score_function!r}")
        if not isinstance(trainer, Engine):
            raise TypeError(f"trainer must be the engine to stop, got {type(trainer).__name__}")
        check_whole("patience", patience, "evaluation")
        if not (isinstance(threshold, int | float) and threshold >= 0):
            given = "threshold" if min_delta is None else "min_delta"
            raise ValueError(f"{given} must be a number of 0 or more, got {threshold!r}")
        if threshold_mode not in ("abs", "rel"):
            raise ValueError(f"threshold_mode must be 'abs' or 'rel', got {threshold_mode!r}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        self.patience = patience
        self.score_function = score_function
        self.trainer = trainer
        self.threshold = threshold
        self.cumulative = cumulative
        self.threshold_mode = threshold_mode
        self.mode = mode
        self.counter = 0
        self.best_score: int | float | None = None
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")

    def __call__(self, engine: Engine) -> None:
        """Look at the score, and terminate the trainer if it has not improved for too long."""
        score = read_score(self.score_function, engine)
        if self._improves(score):
            self.best_score = score
            self.counter = 0
            return
        if not self.cumulative and self._is_better(score):
            self.best_score = score
        self.counter += 1
        self.logger.debug("no improvement for %d of %d", self.counter, self.patience)
        if self.counter >= self.patience:
            self.logger.info(
                "stopped: no improvement over %s for %d evaluations", self.best_score, self.counter
            )
            self.trainer.terminate()

    def attach(
        self,
        engine: Engine,
        event: EventEnum | CallableEventWithFilter | EventsList = Events.COMPLETED,
        reset_engine: Engine | None = None,
        reset_event: EventEnum | CallableEventWithFilter | EventsList = Events.STARTED,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Look at the score at ``event``, and begin anew at ``reset_event`` of another engine.

        Args:
            engine: computes the score, mostly an evaluator.
            event: when the score is there.
            reset_engine: by default the trainer, so that its next run has all its patience. A run
                that continues from a checkpoint keeps what was loaded.
            reset_event: when to begin anew.
            args: for the handler of ``event``.
            kwargs: for the handler of ``event``.
        """
        engine.add_event_handler(event, self, *args, **kwargs)
        (reset_engine or self.trainer).add_event_handler(reset_event, self._reset_unless_continued)

    def reset(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - the interface's
        """Forget the best score and the evaluations since."""
        self.counter = 0
        self.best_score = None

    def _reset_unless_continued(self, engine: Engine) -> None:
        if engine.state.iteration == 0 or engine.last_event_name is not Events.STARTED:
            self.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and the evaluations since."""
        return {"counter": self.counter, "best_score": self.best_score}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned."""
        super().load_state_dict(state_dict)
        self.counter = state_dict["counter"]
        self.best_score = state_dict["best_score"]

    # The older names of the settings.

    @property
    def min_delta(self) -> float:
        """An older name of ``threshold``."""
        return self.threshold

    @property
    def min_delta_mode(self) -> str:
        """An older name of ``threshold_mode``."""
        return self.threshold_mode

    @property
    def cumulative_delta(self) -> bool:
        """An older name of ``cumulative``."""
        return self.cumulative

    def _is_better(self, score: int | float, by: int | float = 0) -> bool:
        """Tell whether ``score`` beats the best one by more than ``by``; nan never does."""
        best = self.best_score
        if score != score:  # true of nan alone
            return False
        if best is None:
            return True
        return score > best + by if self.mode == "max" else score < best - by

    def _improves(self, score: int | float) -> bool:
        relative = self.threshold_mode == "rel" and self.best_score is not None
        by = self.threshold * abs(self.best_score or 0) if relative else self.threshold
        return self._is_better(score, by)


def _renamed(
    name: str, value: Setting, default: Setting, old_name: str, old_value: Setting | None
) -> Setting:
    if old_value is None:
        return value
    if value != default:
        raise TypeError(f"{old_name} is an older name of {name}: give one of them")
    return old_value
