"""What the ranks of a group do in the tests of saving in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from cookfire.engine import Engine, Events
from cookfire.handlers import Checkpoint, CheckpointEvents, DiskSaver
from tests.handlers.helpers import Memory, checkpoints, engine_at, model


def save_in_the_background(folder: str) -> dict[str, Any]:
    """Save, fail, and report what this rank was told."""
    seen: dict[str, Any] = {"told": []}
    net = DistributedDataParallel(model(1.0))
    saver = DiskSaver(folder, save_on_rank=1)
    checkpoint = Checkpoint({"model": net}, saver, n_saved=2, save_on_rank=1, background=True)
    trainer = Engine(lambda *_: None)
    trainer.register_events(*CheckpointEvents)
    trainer.add_event_handler(
        Checkpoint.SAVED_CHECKPOINT,
        lambda: seen["told"].append(Path(str(checkpoint.last_checkpoint)).name),
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, checkpoint)
    trainer.run([0] * 3)
    seen["files"] = checkpoints(Path(folder))
    seen["last"] = Path(str(checkpoint.last_checkpoint)).name

    def fail(_checkpoint: Any, _filename: str) -> None:
        raise OSError("no room")

    failing = Checkpoint({"model": net}, fail, background=True)
    try:
        failing(engine_at(5))
        failing.wait()
    except RuntimeError as error:
        seen["error"] = f"{type(error).__name__}: {error}"
    try:
        Checkpoint({"model": net}, Memory(), background=True)(engine_at(1))
    except ValueError as error:
        seen["wants a rank"] = f"{type(error).__name__}: {error}"
    return seen
