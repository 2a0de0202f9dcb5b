"""Saving what a run needs, or its best models, while it goes on; and loading it again."""

from cookfire.handlers._checkpoint import Checkpoint, CheckpointEvents
from cookfire.handlers._fsspec_saver import FsspecSaver
from cookfire.handlers._model_checkpoint import ModelCheckpoint
from cookfire.handlers._reading import DamagedCheckpoint
from cookfire.handlers._savers import BaseSaveHandler, DiskSaver

__all__ = [
    "BaseSaveHandler",
    "Checkpoint",
    "CheckpointEvents",
    "DamagedCheckpoint",
    "DiskSaver",
    "FsspecSaver",
    "ModelCheckpoint",
]
