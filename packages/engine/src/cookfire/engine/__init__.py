"""A training loop as one engine with events.

:class:`Engine` runs a step over data and fires :class:`Events`; handlers attached to them are
plain functions. :func:`create_supervised_trainer` and :func:`create_supervised_evaluator` make
engines for the usual case.
"""

from cookfire.engine._engine import Engine
from cookfire.engine._evaluation import (
    create_supervised_evaluator,
    supervised_evaluation_step,
    supervised_evaluation_step_amp,
)
from cookfire.engine._handlers import RemovableEventHandle
from cookfire.engine._training import (
    create_supervised_trainer,
    supervised_training_step,
    supervised_training_step_amp,
    supervised_training_step_tpu,
)
from cookfire.engine.deterministic import DeterministicEngine
from cookfire.engine.events import (
    CallableEventWithFilter,
    EventEnum,
    Events,
    EventsList,
    State,
)

__all__ = [
    "CallableEventWithFilter",
    "DeterministicEngine",
    "Engine",
    "EventEnum",
    "Events",
    "EventsList",
    "RemovableEventHandle",
    "State",
    "create_supervised_evaluator",
    "create_supervised_trainer",
    "supervised_evaluation_step",
    "supervised_evaluation_step_amp",
    "supervised_training_step",
    "supervised_training_step_amp",
    "supervised_training_step_tpu",
]
