"""Polyaxon."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cookfire.handlers._arrays import distribution, pixels
from cookfire.handlers._run_logger import RunLogger
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
    "GradsHistHandler",
    "GradsScalarHandler",
    "OptimizerParamsHandler",
    "OutputHandler",
    "PolyaxonLogger",
    "WeightsHistHandler",
    "WeightsScalarHandler",
    "global_step_from_engine",
]


class PolyaxonLogger(RunLogger):
    """Logs metrics, parameters, images, figures, histograms and files into a run of Polyaxon.

    Without a server: ``is_offline=True`` with an ``artifacts_path``. ``logger.log_outputs(...)``
    and the like are those of the run.

    Args:
        args: those of ``polyaxon.tracking.Run``.
        kwargs: likewise, such as ``owner``, ``project``, ``name``.

    Raises:
        ModuleNotFoundError: polyaxon is not installed.
        TypeError: ``Run`` takes no such argument.

    Example:
        >>> with PolyaxonLogger(project="cifar10") as logger:  # doctest: +SKIP
        ...     logger.log_params({"lr": 0.1})
        ...     trainer.run(data, max_epochs=5)
    """

    package = "polyaxon"
    extra = False
    forwarded = ("log_", "set_", "get_")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        if self.writes:
            self._options = self.checked(self.interface(), *args, **kwargs)

    def start_run(self, run_id: str | None) -> tuple[Any, str]:
        """Start a run, or go on with that of the id."""
        continued = {} if run_id is None else {"run_uuid": run_id, "is_new": False}
        run = self.interface()(**self._options | continued)
        return run, run.run_uuid

    def end_run(self, run: Any, error: type[BaseException] | None) -> None:
        """End the run, as failed after an exception."""
        if error is not None:
            run.log_failed(reason=error.__name__)
        run.end()

    def interface(self) -> Any:
        """Return the class of runs."""
        return import_module("polyaxon.tracking").Run

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Log each number; one by one, lest a name be taken for an argument."""
        for name, value in scalars.items():
            self._run.log_metric(name=name, value=value, step=step)

    def write_params(self, params: dict[str, object]) -> None:
        """Log the run's inputs."""
        self._run.log_inputs(**params)

    def write_image(self, image: Tensor, name: str, step: int) -> None:
        """Log an image."""
        array = pixels(image)
        layout = "HW" if array.ndim == 2 else "HWC"
        self._run.log_image(data=array, name=name, step=step, dataformats=layout)

    def write_figure(self, figure: Figure, name: str, step: int) -> None:
        """Log a figure as an image."""
        self._run.log_mpl_image(data=figure, name=name, close=False, step=step)

    def write_histogram(self, values: Tensor, name: str, step: int) -> None:
        """Log a distribution in 64 bins."""
        counts, edges = distribution(values)
        # Polyaxon calls the counts values, and the edges counts.
        self._run.log_np_histogram(
            name=name, values=counts.tolist(), counts=edges.tolist(), step=step
        )

    def write_artifact(self, path: Path, folder: str | None) -> None:
        """Copy a file or folder to the run's outputs."""
        place = f"{folder}/{path.name}" if folder and path.is_dir() else folder
        self._run.log_artifact(str(path), name=path.name, rel_path=place)
