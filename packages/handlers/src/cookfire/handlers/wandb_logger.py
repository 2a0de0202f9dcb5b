"""Weights & Biases."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from cookfire.handlers import base_logger
from cookfire.handlers._arrays import distribution, pixels
from cookfire.handlers._log_handlers import OutputTransform, StepTransform
from cookfire.handlers._run_logger import RunLogger
from cookfire.handlers.base_logger import (
    GradsHistHandler,
    GradsScalarHandler,
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
    "WandBLogger",
    "WeightsHistHandler",
    "WeightsScalarHandler",
    "global_step_from_engine",
]

# W&B's own step only grows, and drops what comes for a smaller one: an evaluator's epoch after the
# trainer's iterations. So the step is a value of each record, and what W&B plots over.
STEP = "global_step"


class WandBLogger(RunLogger):
    """Logs metrics, parameters, images, figures, histograms and files into a run of W&B.

    Each metric is plotted over the step that it was logged with (``global_step``), so epochs and
    iterations mix freely. Without a network: ``mode="offline"`` (or WANDB_MODE), and
    ``wandb sync`` later. A run that is active before belongs to the caller: it is used, and left
    open. ``logger.watch(model)``, ``logger.log_artifact(...)`` and the like are those of the run.

    Args:
        args: those of ``wandb.init``.
        kwargs: likewise, such as ``project``, ``name``, ``config``, ``mode``; ``init=False`` uses
            the active run and starts none.

    Raises:
        ModuleNotFoundError: wandb is not installed.
        TypeError: ``wandb.init`` takes no such argument.

    Example:
        >>> with WandBLogger(project="cifar10", mode="offline") as logger:  # doctest: +SKIP
        ...     logger.attach_output_handler(
        ...         trainer, Events.ITERATION_COMPLETED(every=100), tag="training",
        ...         output_transform=lambda loss: {"loss": loss},
        ...     )
        ...     trainer.run(data, max_epochs=5)
    """

    package = "wandb"
    forwarded = ("log", "watch", "unwatch", "save", "alert", "define_metric", "use_")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self._may_start = kwargs.pop("init", True)
        if self.writes:
            self._options = self.checked(self.library.init, *args, **kwargs)

    def start_run(self, run_id: str | None) -> tuple[Any, str]:
        """Start a run, go on with that of the id, or take the active one."""
        wandb = self.library
        run = wandb.run
        self._is_ours = run is None
        if run is None:
            if not self._may_start:
                raise RuntimeError("init=False, and no run of W&B is active")
            continued = {} if run_id is None else {"id": run_id, "resume": "allow"}
            run = wandb.init(**self._options | continued)
        run.define_metric("*", step_metric=STEP)
        return run, run.id

    def end_run(self, run: Any, error: type[BaseException] | None) -> None:
        """Finish the run, as failed after an exception."""
        run.finish(exit_code=0 if error is None else 1)

    def interface(self) -> Any:
        """Return the class of runs."""
        return self.library.Run

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Log all metrics of an event as one record."""
        self._run.log(scalars | {STEP: step})

    def write_params(self, params: dict[str, object]) -> None:
        """Put parameters into the run's configuration."""
        self._run.config.update(params, allow_val_change=True)

    def write_image(self, image: Tensor, name: str, step: int) -> None:
        """Log an image."""
        self._run.log({name: self.library.Image(pixels(image)), STEP: step})

    def write_figure(self, figure: Figure, name: str, step: int) -> None:
        """Log a figure as an image."""
        self._run.log({name: self.library.Image(figure), STEP: step})

    def write_histogram(self, values: Tensor, name: str, step: int) -> None:
        """Log a distribution in 64 bins."""
        histogram = self.library.Histogram(np_histogram=distribution(values))
        self._run.log({name: histogram, STEP: step})

    def write_artifact(self, path: Path, folder: str | None) -> None:
        """Log an artifact named after the file or folder; W&B counts its versions."""
        artifact = self.library.Artifact(re.sub(r"[^\w.\-]", "_", path.name), type="file")
        if path.is_dir():
            artifact.add_dir(str(path), name=folder)
        else:
            artifact.add_file(str(path), name=f"{folder}/{path.name}" if folder else None)
        self._run.log_artifact(artifact)

    def _create_output_handler(self, *args: Any, **kwargs: Any) -> OutputHandler:
        return OutputHandler(*args, **kwargs)

    def _create_opt_params_handler(self, *args: Any, **kwargs: Any) -> OptimizerParamsHandler:
        return OptimizerParamsHandler(*args, **kwargs)


class OutputHandler(base_logger.OutputHandler):
    """The shared handler, with W&B's retired ``sync``: it warns, and does nothing.

    Example:
        >>> handler = OutputHandler("validation", metric_names=["accuracy"])
    """

    def __init__(
        self,
        tag: str,
        metric_names: str | list[str] | None = None,
        output_transform: OutputTransform | None = None,
        global_step_transform: StepTransform | None = None,
        sync: bool | None = None,
        state_attributes: list[str] | None = None,
    ) -> None:
        super().__init__(
            tag, metric_names, output_transform, global_step_transform, state_attributes
        )
        _refuse(sync)


class OptimizerParamsHandler(base_logger.OptimizerParamsHandler):
    """The shared handler, with W&B's retired ``sync``: it warns, and does nothing.

    Example:
        >>> handler = OptimizerParamsHandler(optimizer, "momentum")
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str = "lr",
        tag: str | None = None,
        sync: bool | None = None,
    ) -> None:
        super().__init__(optimizer, param_name, tag)
        _refuse(sync)


def _refuse(sync: bool | None) -> None:
    if sync is not None:
        warnings.warn("sync has no effect: W&B's log never waits", UserWarning, stacklevel=3)
