"""Everything around the loop: checkpoints, stopping, schedules, timers, loggers.

What most trainings want, attached in one call, is in :mod:`cookfire.handlers.common`; what a recipe
needs (strict parameters, run folder, resume, verify) in :mod:`cookfire.handlers.recipe`.
"""

from cookfire.handlers._files import DamagedCheckpoint
from cookfire.handlers._run_logger import RunLogger
from cookfire.handlers._run_state import RunState
from cookfire.handlers.base_logger import BaseLogger
from cookfire.handlers.checkpoint import (
    BaseSaveHandler,
    Checkpoint,
    CheckpointEvents,
    DiskSaver,
    ModelCheckpoint,
)
from cookfire.handlers.clearml_logger import ClearMLLogger, ClearMLSaver
from cookfire.handlers.early_stopping import EarlyStopping
from cookfire.handlers.fbresearch_logger import FBResearchLogger
from cookfire.handlers.mlflow_logger import MLflowLogger
from cookfire.handlers.neptune_logger import NeptuneLogger, NeptuneSaver
from cookfire.handlers.param_scheduler import LRScheduler
from cookfire.handlers.polyaxon_logger import PolyaxonLogger
from cookfire.handlers.table_logger import TableLogger
from cookfire.handlers.tensorboard_logger import TensorboardLogger
from cookfire.handlers.terminate_on_nan import TerminateOnNan
from cookfire.handlers.timing import Timer
from cookfire.handlers.tqdm_logger import ProgressBar
from cookfire.handlers.utils import global_step_from_engine
from cookfire.handlers.visdom_logger import VisdomLogger
from cookfire.handlers.wandb_logger import WandBLogger

__all__ = [
    "BaseLogger",
    "BaseSaveHandler",
    "Checkpoint",
    "CheckpointEvents",
    "ClearMLLogger",
    "ClearMLSaver",
    "DamagedCheckpoint",
    "DiskSaver",
    "EarlyStopping",
    "FBResearchLogger",
    "LRScheduler",
    "MLflowLogger",
    "ModelCheckpoint",
    "NeptuneLogger",
    "NeptuneSaver",
    "PolyaxonLogger",
    "ProgressBar",
    "RunLogger",
    "RunState",
    "TableLogger",
    "TensorboardLogger",
    "TerminateOnNan",
    "Timer",
    "VisdomLogger",
    "WandBLogger",
    "global_step_from_engine",
]
