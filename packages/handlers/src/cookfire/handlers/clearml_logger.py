"""ClearML."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import Tensor

from cookfire import distributed as idist
from cookfire.handlers._arrays import distribution, pixels
from cookfire.handlers._delivery import Delivery, require
from cookfire.handlers._log_values import WarnOnce
from cookfire.handlers._run_logger import RunLogger
from cookfire.handlers._savers import DiskSaver
from cookfire.handlers.base_logger import (
    GradsHistHandler,
    GradsScalarHandler,
    OptimizerParamsHandler,
    OutputHandler,
    WeightsHistHandler,
    WeightsScalarHandler,
    global_step_from_engine,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "ClearMLLogger",
    "ClearMLSaver",
    "GradsHistHandler",
    "GradsScalarHandler",
    "OptimizerParamsHandler",
    "OutputHandler",
    "WeightsHistHandler",
    "WeightsScalarHandler",
    "global_step_from_engine",
]

SECONDS_TO_CONNECT = 5.0


class ClearMLLogger(RunLogger):
    """Logs metrics, parameters, images, figures, histograms and files into a task of ClearML.

    ``training/loss`` is the series ``loss`` of the plot ``training``. Without a server:
    ``ClearMLLogger.set_bypass_mode(True)`` first; the task is then a zip file in ClearML's cache,
    for ``Task.import_offline_session``. A task that is current before belongs to the caller: it is
    used, the arguments are not, and it stays open. ``logger.report_text(...)`` and the like are
    those of ClearML's own logger.

    Args:
        kwargs: for ``Task.init``, such as ``project_name``, ``task_name``, ``output_uri``. Unless
            ``auto_connect_frameworks`` is given, ClearML leaves ``torch.save`` alone: it would
            upload each checkpoint under its temporary name. :class:`ClearMLSaver` uploads them.

    Raises:
        ModuleNotFoundError: clearml is not installed.
        TypeError: ``Task.init`` takes no such argument.

    Example:
        >>> with ClearMLLogger(project_name="cifar10", task_name="first") as logger:
        ...     logger.attach_output_handler(
        ...         trainer, Events.ITERATION_COMPLETED(every=100), tag="training",
        ...         output_transform=lambda loss: {"loss": loss},
        ...     )  # doctest: +SKIP
    """

    package = "clearml"
    forwarded = ("report_", "flush", "set_")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        if self.writes:
            options = {"auto_connect_frameworks": {"pytorch": False}} | kwargs
            self._options = self.checked(_clearml().Task.init, **options)

    @classmethod
    def set_bypass_mode(cls, bypass: bool) -> None:
        """Let tasks that are started from now on be written to a local folder, not to a server."""
        _clearml().Task.set_offline(bypass)

    @classmethod
    def bypass_mode(cls) -> bool:
        """Return whether tasks are written to a local folder."""
        return bool(_clearml().Task.is_offline())

    def get_task(self) -> Any:
        """Return ClearML's task, started if need be."""
        return self.run

    def start_run(self, run_id: str | None) -> tuple[Any, str]:
        """Start a task, go on with that of the id, or take the current one."""
        task_class = _clearml().Task
        task = task_class.current_task()
        self._is_ours = task is None
        if task is None:
            if not task_class.is_offline():
                _knock()
            continued: dict[str, Any] = {}
            if run_id is not None:  # and 0: our steps count from the run's beginning
                continued = {"reuse_last_task_id": run_id, "continue_last_task": 0}
            task = task_class.init(**self._options | continued)
        return task, task.id

    def end_run(self, run: Any, error: type[BaseException] | None) -> None:
        """Close the task, as failed after an exception."""
        if error is not None:
            run.mark_failed(status_reason=error.__name__)
        run.close()

    def interface(self) -> Any:
        """Return the class of ClearML's own loggers."""
        return _clearml().Logger

    def functions(self) -> Any:
        """Return ClearML's own logger."""
        return self._run.get_logger()

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Report each number."""
        for name, value in scalars.items():
            self.functions().report_scalar(*_plot_and_series(name), value, step)

    def write_params(self, params: dict[str, object]) -> None:
        """Set the task's hyper-parameters."""
        self._run.update_parameters(params)

    def write_image(self, image: Tensor, name: str, step: int) -> None:
        """Report a debug sample."""
        self.functions().report_image(*_plot_and_series(name), step, image=pixels(image))

    def write_figure(self, figure: Figure, name: str, step: int) -> None:
        """Report a figure, as a picture: ClearML's own redrawing loses some."""
        self.functions().report_matplotlib_figure(
            *_plot_and_series(name), figure, step, report_image=True
        )

    def write_histogram(self, values: Tensor, name: str, step: int) -> None:
        """Report a distribution in 64 bins."""
        counts, edges = distribution(values)
        centres = [f"{centre:.4g}" for centre in (edges[:-1] + edges[1:]) / 2]
        self.functions().report_histogram(
            *_plot_and_series(name), counts.tolist(), step, xlabels=centres
        )

    def write_artifact(self, path: Path, folder: str | None) -> None:
        """Upload an artifact named after the file or folder."""
        name = f"{folder}/{path.name}" if folder else path.name
        self._run.upload_artifact(name, str(path))


class ClearMLSaver(DiskSaver):
    """Stores checkpoints in a folder, and uploads each as a model of a ClearML task.

    A model whose checkpoint was removed takes the next one, so ``n_saved`` bounds the models too.
    Offline, where ClearML has no models, each checkpoint is an artifact of the task. An upload that
    fails never stops a training: it warns once, and the file stays in the folder.

    Args:
        logger: whose task it is; default: ClearML's current task at the first checkpoint.
        output_uri: where ClearML uploads to, such as "s3://bucket/folder"; True for its own
            server. Default: what the task was started with; if nothing, the model names the file.
        dirname: the folder; default: a new one for temporary files.
        args: for :class:`~cookfire.handlers.DiskSaver`.
        kwargs: likewise.

    Raises:
        ModuleNotFoundError: clearml is not installed.
        TypeError: ``logger`` is no :class:`ClearMLLogger`.
        ValueError: the folder is missing, or not empty.

    Example:
        >>> saver = ClearMLSaver(logger, dirname=folder)  # doctest: +SKIP
        >>> Checkpoint({"model": model}, saver, n_saved=2)  # doctest: +SKIP
    """

    def __init__(
        self,
        logger: ClearMLLogger | None = None,
        output_uri: str | None = None,
        dirname: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        require("clearml", type(self).__name__)
        if not (logger is None or isinstance(logger, ClearMLLogger)):
            raise TypeError(f"logger must be a ClearMLLogger, got {type(logger).__name__}")
        if dirname is None:
            dirname = tempfile.mkdtemp(prefix="checkpoints_") if idist.get_rank() == 0 else "."
        super().__init__(dirname, *args, **kwargs)
        self._logger = logger
        self._output_uri = output_uri
        self._models: dict[str, Any] = {}
        self._free: list[Any] = []
        self._deliver = Delivery(type(self).__name__, WarnOnce())

    def __call__(
        self,
        checkpoint: Mapping[str, Any],
        filename: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write ``dirname/filename`` and begin its upload."""
        super().__call__(checkpoint, filename, metadata)
        if idist.get_rank() == self.save_on_rank:
            self._deliver("a checkpoint", lambda: self._upload(filename))

    def remove(self, filename: str) -> None:
        """Remove ``dirname/filename``; its model is used again."""
        super().remove(filename)
        model = self._models.pop(filename, None)
        if model is not None:
            self._free.append(model)

    def get_local_copy(self, filename: str) -> str | None:
        """Return the path of a stored checkpoint, fetched if need be; None if there is none."""
        path = self.dirname / filename
        if path.exists():
            return str(path)
        model = self._models.get(filename)
        return None if model is None else model.get_weights()

    def _upload(self, filename: str) -> None:
        clearml = _clearml()
        task = clearml.Task.current_task() if self._logger is None else self._logger.run
        if not task:
            raise ConnectionError("there is no current task of ClearML")
        if task.is_offline():  # ClearML has models on its server only
            task.upload_artifact(filename, str(self.dirname / filename))
            return
        model = self._models.get(filename)
        if model is None:
            if self._free:
                model = self._free.pop()
            else:
                number = len(self._models) + 1
                model = clearml.OutputModel(task, name=f"{task.name} {number}", framework="PyTorch")
                if self._output_uri is not None:
                    model.set_upload_destination(self._output_uri)
            self._models[filename] = model
        model.update_weights(
            str(self.dirname / filename), target_filename=filename, auto_delete_file=False
        )


def _clearml() -> Any:
    """Return ClearML's module, importing it now: that takes seconds."""
    # Its reporting process is a fork of one with torch's threads, which may die at once; ClearML
    # then waits for it when the task is closed, for minutes. A thread reports as well.
    os.environ.setdefault("CLEARML__sdk__development__report_use_subprocess", "false")
    return import_module("clearml")


def _knock() -> None:
    """Raise OSError if no server answers: ``Task.init`` would ask it for minutes."""
    server = urlsplit(import_module("clearml.backend_api").Session.get_api_server_host())
    if server.hostname and not getproxies():
        port = server.port or (443 if server.scheme == "https" else 80)
        socket.create_connection((server.hostname, port), SECONDS_TO_CONNECT).close()


def _plot_and_series(name: str) -> tuple[str, str]:
    plot, _, series = name.rpartition("/")
    return plot or name, series
