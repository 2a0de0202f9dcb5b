"""How busy the GPUs are."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from typing import Any

import torch

from cookfire.engine import Engine, Events
from cookfire.engine.events import AnyEvent
from cookfire.metrics._own_events import ListeningMetric

_MIB = 2**20


class GpuInfo(ListeningMetric):
    """Memory and utilisation of all GPUs that this process sees, in percent.

    Attached as ``"gpu"`` it sets ``gpu:0 mem(%)`` and ``gpu:0 util(%)``, and so on, to ints: the
    GPUs as wholes, whoever uses them. A GPU that does not tell its utilisation has none.

    Raises:
        RuntimeError: there is no CUDA GPU.
        ModuleNotFoundError: pynvml, by which torch reads the utilisation, is not installed.

    Example:
        >>> GpuInfo().attach(evaluator)  # doctest: +SKIP
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise RuntimeError("GpuInfo needs a CUDA GPU, and there is none: leave it out")
        if importlib.util.find_spec("pynvml") is None:
            raise ModuleNotFoundError(
                "GpuInfo needs pynvml: pip install nvidia-ml-py, or leave it out"
            )
        self._handles = []
        super().__init__()

    def reset(self) -> None:
        """There is nothing to forget."""

    def update(self, output: Any) -> None:
        """There is nothing to take in."""

    def compute(self) -> list[dict[str, Any]]:
        """Return, for each GPU, what nvidia-smi calls so.

        ``{"fb_memory_usage": {"used": MiB, "total": MiB}, "utilization": {"gpu_util": percent}}``.
        """
        return [self._read(index) for index in range(torch.cuda.device_count())]

    def completed(self, engine: Engine, name: str) -> None:
        """Put the values into ``engine.state.metrics``."""
        for index, gpu in enumerate(self.compute()):
            memory = gpu["fb_memory_usage"]
            percent = int(100 * memory["used"] / memory["total"])
            engine.state.metrics[f"{name}:{index} mem(%)"] = percent
            if "utilization" in gpu:
                engine.state.metrics[f"{name}:{index} util(%)"] = gpu["utilization"]["gpu_util"]

    def attach(  # type: ignore[override] # it is read at an event, and has no usage
        self,
        engine: Engine,
        name: str = "gpu",
        event_name: AnyEvent = Events.ITERATION_COMPLETED,
    ) -> None:
        """Have the values put into ``engine.state.metrics`` at each such event."""
        self._listen(engine, event_name, self.completed, name)

    @staticmethod
    def _read(index: int) -> dict[str, Any]:
        nvml_error: type[Exception] = importlib.import_module("pynvml").NVMLError
        used = torch.cuda.device_memory_used(index) / _MIB
        total = torch.cuda.get_device_properties(index).total_memory / _MIB
        gpu: dict[str, Any] = {"fb_memory_usage": {"used": used, "total": total}}
        with contextlib.suppress(nvml_error):  # as of a part of a GPU
            gpu["utilization"] = {"gpu_util": torch.cuda.utilization(index)}
        return gpu
