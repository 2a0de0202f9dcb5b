"""How fast a training is, how long it will still take, and what memory it has taken up."""

from __future__ import annotations

import resource
import sys
from time import monotonic

import torch

from cookfire import distributed as idist
from cookfire.engine import Engine, Events


class Speed:
    """Images a second, time left and memory, for a progress bar.

    Args:
        batch_size: images of an iteration, over all processes.
        iterations: of the whole training.
    """

    def __init__(self, batch_size: int, iterations: int) -> None:
        self._batch_size = batch_size
        self._iterations = iterations
        self._training = 0.0  # seconds of this process's iterations, evaluations left out
        self._done = 0
        self._began = monotonic()

    def attach(self, trainer: Engine) -> None:
        """Watch a trainer: two looks at the clock an epoch."""
        trainer.add_event_handler(Events.EPOCH_STARTED, self._begin)
        # Before evaluations, which are attached to the epoch's end.
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._end)
        self._trainer = trainer

    def values(self, _: object = None) -> dict[str, str]:
        """Return what to show: images a second, the time left, memory in GB (10**9 bytes)."""
        now = self._trainer.state.iteration
        seconds = self._training + monotonic() - self._began
        done = self._done + now - self._begun_at
        if not done or not seconds:
            return {}
        left = round((self._iterations - now) * seconds / done)
        return {
            "images/s": f"{done * self._batch_size / seconds:.0f}",
            "left": f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}",
            "GB": f"{memory() / 1e9:.1f}",
        }

    def _begin(self) -> None:
        self._began, self._begun_at = monotonic(), self._trainer.state.iteration

    def _end(self) -> None:
        self._training += monotonic() - self._began
        self._done += self._trainer.state.iteration - self._begun_at
        self._begin()


def memory() -> float:
    """Return the most bytes so far: of tensors on the GPU, or of this process on a CPU."""
    device = idist.device()
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
