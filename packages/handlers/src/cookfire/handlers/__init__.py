"""Everything around the loop: checkpoints, stopping, schedules, timers, loggers.

What most trainings want, attached in one call, is in :mod:`cookfire.handlers.common`; what a recipe
needs (strict parameters, run folder, resume, verify) in :mod:`cookfire.handlers.recipe`.
"""

from cookfire.handlers._files import DamagedCheckpoint
from cookfire.handlers._run_state import RunState
from cookfire.handlers.base_logger import BaseLogger
from cookfire.handlers.checkpoint import (
    BaseSaveHandler,
    Checkpoint,
    CheckpointEvents,
    DiskSaver,
    ModelCheckpoint,
)
from cookfire.handlers.early_stopping import EarlyStopping
from cookfire.handlers.mlflow_logger import MLflowLogger
from cookfire.handlers.param_scheduler import LRScheduler
from cookfire.handlers.table_logger import TableLogger
from cookfire.handlers.tensorboard_logger import TensorboardLogger
from cookfire.handlers.terminate_on_nan import TerminateOnNan
from cookfire.handlers.timing import Timer
from cookfire.handlers.tqdm_logger import ProgressBar
from cookfire.handlers.utils import global_step_from_engine

__all__ = [
    "BaseLogger",
    "BaseSaveHandler",
    "Checkpoint",
    "CheckpointEvents",
    "DamagedCheckpoint",
    "DiskSaver",
    "EarlyStopping",
    "LRScheduler",
    "MLflowLogger",
    "ModelCheckpoint",
    "ProgressBar",
    "RunState",
    "TableLogger",
    "TensorboardLogger",
    "TerminateOnNan",
    "Timer",
    "global_step_from_engine",
]
