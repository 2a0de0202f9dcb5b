"""Everything around the loop: checkpoints, stopping, schedules, timers, loggers.

What most trainings want, attached in one call, is in :mod:`cookfire.handlers.common`; what a recipe
needs (strict parameters, run folder, resume, verify) in :mod:`cookfire.handlers.recipe`.
"""

from cookfire.handlers._reading import DamagedCheckpoint
from cookfire.handlers._run_logger import RunLogger
from cookfire.handlers._run_state import RunState
from cookfire.handlers._weights import export_weights, load_weights
from cookfire.handlers.base_logger import BaseLogger
from cookfire.handlers.checkpoint import (
    BaseSaveHandler,
    Checkpoint,
    CheckpointEvents,
    DiskSaver,
    FsspecSaver,
    ModelCheckpoint,
)
from cookfire.handlers.clearml_logger import ClearMLLogger, ClearMLSaver
from cookfire.handlers.early_stopping import EarlyStopping
from cookfire.handlers.ema_handler import EMAHandler
from cookfire.handlers.fbresearch_logger import FBResearchLogger
from cookfire.handlers.gradients import GradientClipping, GradientNorm
from cookfire.handlers.lr_finder import FastaiLRFinder
from cookfire.handlers.mlflow_logger import MLflowLogger
from cookfire.handlers.neptune_logger import NeptuneLogger, NeptuneSaver
from cookfire.handlers.param_scheduler import (
    BaseParamScheduler,
    BatchSizeScheduler,
    ConcatScheduler,
    CosineAnnealingScheduler,
    CyclicalScheduler,
    LambdaScheduler,
    LinearCyclicalScheduler,
    LRScheduler,
    ParamGroupScheduler,
    ParamScheduler,
    PiecewiseLinear,
    ReduceLROnPlateauScheduler,
    create_lr_scheduler_with_warmup,
)
from cookfire.handlers.polyaxon_logger import PolyaxonLogger
from cookfire.handlers.preemption import Preemption
from cookfire.handlers.state_param_scheduler import (
    ExpStateScheduler,
    LambdaStateScheduler,
    MultiStepStateScheduler,
    PiecewiseLinearStateScheduler,
    StateParamScheduler,
    StepStateScheduler,
)
from cookfire.handlers.stores import EpochOutputStore
from cookfire.handlers.table_logger import TableLogger
from cookfire.handlers.tensorboard_logger import TensorboardLogger
from cookfire.handlers.terminate_on_nan import TerminateOnNan
from cookfire.handlers.time_limit import TimeLimit
from cookfire.handlers.time_profilers import BasicTimeProfiler, HandlersTimeProfiler
from cookfire.handlers.timing import Timer
from cookfire.handlers.torch_profiler import TorchProfiler
from cookfire.handlers.tqdm_logger import ProgressBar
from cookfire.handlers.utils import global_step_from_engine
from cookfire.handlers.visdom_logger import VisdomLogger
from cookfire.handlers.wandb_logger import WandBLogger

__all__ = [
    "BaseLogger",
    "BaseParamScheduler",
    "BaseSaveHandler",
    "BasicTimeProfiler",
    "BatchSizeScheduler",
    "Checkpoint",
    "CheckpointEvents",
    "ClearMLLogger",
    "ClearMLSaver",
    "ConcatScheduler",
    "CosineAnnealingScheduler",
    "CyclicalScheduler",
    "DamagedCheckpoint",
    "DiskSaver",
    "EMAHandler",
    "EarlyStopping",
    "EpochOutputStore",
    "ExpStateScheduler",
    "FBResearchLogger",
    "FastaiLRFinder",
    "FsspecSaver",
    "GradientClipping",
    "GradientNorm",
    "HandlersTimeProfiler",
    "LRScheduler",
    "LambdaScheduler",
    "LambdaStateScheduler",
    "LinearCyclicalScheduler",
    "MLflowLogger",
    "ModelCheckpoint",
    "MultiStepStateScheduler",
    "NeptuneLogger",
    "NeptuneSaver",
    "ParamGroupScheduler",
    "ParamScheduler",
    "PiecewiseLinear",
    "PiecewiseLinearStateScheduler",
    "PolyaxonLogger",
    "Preemption",
    "ProgressBar",
    "ReduceLROnPlateauScheduler",
    "RunLogger",
    "RunState",
    "StateParamScheduler",
    "StepStateScheduler",
    "TableLogger",
    "TensorboardLogger",
    "TerminateOnNan",
    "TimeLimit",
    "Timer",
    "TorchProfiler",
    "VisdomLogger",
    "WandBLogger",
    "create_lr_scheduler_with_warmup",
    "export_weights",
    "global_step_from_engine",
    "load_weights",
]
