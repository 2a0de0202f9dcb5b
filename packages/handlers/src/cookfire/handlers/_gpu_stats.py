"""How busy the GPU is, among an engine's metrics."""

from __future__ import annotations

import importlib.util

import torch

from cookfire.engine import Engine
from cookfire.engine.events import AnyEvent

__all__ = ["attach_gpu_stats"]


def attach_gpu_stats(engine: Engine, event: AnyEvent) -> None:
    """Put this process's GPU into the metrics: ``gpu:0 mem(%)`` and ``gpu:0 util(%)``.

    Raises:
        RuntimeError: there is no CUDA GPU.
        ModuleNotFoundError: pynvml, by which torch reads the utilisation, is not installed.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("with_gpu_stats needs a CUDA GPU, and there is none; leave it out")
    if importlib.util.find_spec("pynvml") is None:
        raise ModuleNotFoundError(
            "with_gpu_stats needs pynvml: pip install nvidia-ml-py, or leave it out"
        )
    engine.add_event_handler(event, _read)


def _read(engine: Engine) -> None:
    index = torch.cuda.current_device()
    free, total = torch.cuda.mem_get_info(index)
    engine.state.metrics[f"gpu:{index} mem(%)"] = round(100 * (1 - free / total))
    engine.state.metrics[f"gpu:{index} util(%)"] = torch.cuda.utilization(index)
