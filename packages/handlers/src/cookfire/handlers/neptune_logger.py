"""Neptune."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cookfire import distributed as idist
from cookfire.handlers._arrays import pixels
from cookfire.handlers._delivery import Delivery
from cookfire.handlers._files import save_file
from cookfire.handlers._log_values import WarnOnce
from cookfire.handlers._run_logger import RunLogger
from cookfire.handlers._savers import BaseSaveHandler
from cookfire.handlers.base_logger import (
    GradsScalarHandler,
    OptimizerParamsHandler,
    OutputHandler,
    WeightsScalarHandler,
    global_step_from_engine,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GradsScalarHandler",
    "NeptuneLogger",
    "NeptuneSaver",
    "OptimizerParamsHandler",
    "OutputHandler",
    "WeightsScalarHandler",
    "global_step_from_engine",
]


class NeptuneLogger(RunLogger):
    """Logs metrics, parameters, images, figures and files into a run of Neptune.

    Without a network: ``mode="offline"``, and ``neptune sync`` later. ``logger["notes"] = text``
    and ``logger["note"].append(...)`` write to the run as Neptune has it.

    Args:
        api_token: Neptune's token; default: NEPTUNE_API_TOKEN.
        project: "workspace/project"; default: NEPTUNE_PROJECT.
        kwargs: for ``neptune.init_run``.

    Raises:
        ModuleNotFoundError: neptune is not installed.

    Example:
        >>> with NeptuneLogger(project="me/cifar10", mode="offline") as logger:  # doctest: +SKIP
        ...     logger.attach_opt_params_handler(trainer, Events.EPOCH_STARTED, optimizer)
        ...     trainer.run(data, max_epochs=5)
    """

    package = "neptune"
    extra = False
    forwarded = ("assign", "sync", "wait", "get_", "fetch")

    def __init__(
        self, api_token: str | None = None, project: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__()
        if self.writes:
            self._options = self.checked(
                self.library.init_run, api_token=api_token, project=project, **kwargs
            )

    def start_run(self, run_id: str | None) -> tuple[Any, str | None]:
        """Start a run, or go on with that of the id; an offline run has none."""
        continued = {} if run_id is None else {"with_id": run_id}
        run = self.library.init_run(**self._options | continued)
        offline = self._options.get("mode") == "offline"
        return run, None if offline else run["sys/id"].fetch()

    def end_run(self, run: Any, error: type[BaseException] | None) -> None:
        """Stop the run; after an exception its ``sys/failed`` is set."""
        if error is not None:
            run["sys/failed"] = True
        run.stop()

    def is_outage(self, error: Exception) -> bool:
        """Tell by the names of Neptune's exceptions."""
        return isinstance(error, OSError) or "Connection" in type(error).__name__

    def interface(self) -> Any:
        """Return the class of runs."""
        return self.library.Run

    def __getitem__(self, key: str) -> Any:
        """Return the run's field of that name."""
        return self.run[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set the run's field of that name."""
        self._forward(f"what {key} was given", lambda: self._run.__setitem__)(key, value)

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Append each number to its series."""
        for name, value in scalars.items():
            self._run[name].append(value, step=step)

    def write_params(self, params: dict[str, object]) -> None:
        """Set fields below ``parameters``."""
        plain = (bool, int, float, str)
        for name, value in params.items():
            key = f"parameters/{name.replace('.', '/')}"
            self._run[key] = value if isinstance(value, plain) else str(value)

    def write_image(self, image: Tensor, name: str, step: int) -> None:
        """Append the image to its series."""
        self._run[name].append(self._as_image(pixels(image) / 255), step=step)

    def write_figure(self, figure: Figure, name: str, step: int) -> None:
        """Append the figure to its series, as an image."""
        self._run[name].append(self._as_image(figure), step=step)

    def _as_image(self, picture: object) -> Any:
        return self.library.types.File.as_image(picture)

    def write_artifact(self, path: Path, folder: str | None) -> None:
        """Upload a file or a folder."""
        name = f"{folder}/{path.name}" if folder else path.name
        if path.is_dir():
            self._run[name].upload_files(f"{path}/**/*")
        else:
            self._run[name].upload(str(path))


class NeptuneSaver(BaseSaveHandler):
    """Uploads checkpoints into a Neptune run, below ``checkpoints``; to load, download them.

    An upload that fails never stops a training: it warns once.

    Args:
        neptune_logger: whose run it is.

    Example:
        >>> Checkpoint({"model": model}, NeptuneSaver(logger), n_saved=2)  # doctest: +SKIP
    """

    save_on_rank = 0
    keeps_nothing = True

    def __init__(self, neptune_logger: NeptuneLogger) -> None:
        if not isinstance(neptune_logger, NeptuneLogger):
            raise TypeError(
                f"neptune_logger must be a NeptuneLogger, got {type(neptune_logger).__name__}"
            )
        self._logger = neptune_logger
        self._deliver = Delivery(type(self).__name__, WarnOnce())

    def __call__(
        self,
        checkpoint: Mapping[str, Any],
        filename: str,
        metadata: Mapping[str, Any] | None = None,  # noqa: ARG002 - the interface's
    ) -> None:
        """Upload the checkpoint, and wait until Neptune has it."""
        if idist.get_rank() == 0:
            self._deliver("a checkpoint", lambda: self._upload(checkpoint, filename))

    def remove(self, filename: str) -> None:
        """Delete the uploaded checkpoint."""
        if idist.get_rank() == 0:
            self._deliver("a removal", lambda: self._logger.run.pop(f"checkpoints/{filename}"))

    def _upload(self, checkpoint: Mapping[str, Any], filename: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / filename
            save_file(checkpoint, path)
            self._logger.run[f"checkpoints/{filename}"].upload(str(path), wait=True)
