"""TensorBoard."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cookfire.handlers._delivery import SILENCE, require
from cookfire.handlers._event_files import cut_back, lengths
from cookfire.handlers.base_logger import (
    BaseLogger,
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
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "GradsHistHandler",
    "GradsScalarHandler",
    "OptimizerParamsHandler",
    "OutputHandler",
    "TensorboardLogger",
    "WeightsHistHandler",
    "WeightsScalarHandler",
    "global_step_from_engine",
]


class TensorboardLogger(BaseLogger):
    """Logs scalars, images, figures, histograms and parameters for TensorBoard.

    The event file is begun when the first thing is logged. In a checkpoint (it has a
    ``state_dict``), the logger lets a continued run go on in the same folder: what was logged
    after the checkpoint was saved is removed, as it will be logged again.

    ``logger.writer`` is TensorBoard's own: what fails there, raises. ``logger.add_text`` and the
    like do the same, but warn in place of raising when the disk is full or the like.

    Args:
        args: those of ``torch.utils.tensorboard.SummaryWriter``; the first is ``log_dir``, by
            default a folder in ``runs`` named after date and host.
        kwargs: likewise.

    Raises:
        ModuleNotFoundError: tensorboard is not installed.

    Example:
        >>> with TensorboardLogger(log_dir="logs") as logger:  # doctest: +SKIP
        ...     logger.attach_output_handler(
        ...         trainer, Events.ITERATION_COMPLETED(every=100), tag="training",
        ...         output_transform=lambda loss: {"loss": loss},
        ...     )
        ...     trainer.run(data, max_epochs=5)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require("tensorboard", type(self).__name__)
        if args:
            kwargs["log_dir"], *rest = args
            if rest:
                names = ("comment", "purge_step", "max_queue", "flush_secs", "filename_suffix")
                kwargs |= dict(zip(names, rest, strict=False))
        if kwargs.get("log_dir") is not None:
            kwargs["log_dir"] = _absolute(str(kwargs["log_dir"]))
        self._options = kwargs
        self._mark = f".{secrets.token_hex(4)}"  # what the names of this run's files end in
        self._writer: SummaryWriter | None = None

    @property
    def writer(self) -> SummaryWriter:
        """TensorBoard's writer, for what has no method here; it writes nothing on other ranks."""
        if not self.writes:
            return SILENCE  # type: ignore[return-value] # stands for a writer in every call
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            suffix = self._options.get("filename_suffix", "") + self._mark
            self._writer = SummaryWriter(**self._options | {"filename_suffix": suffix})
            self._options["log_dir"] = _absolute(self._writer.log_dir)
        return self._writer

    def __getattr__(self, name: str) -> Any:
        """Forward ``add_text`` and the like to the writer."""
        if not (name.startswith("add_") or name in ("flush", "get_logdir")):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._forward(f"what {name} was given", lambda: getattr(self.writer, name))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Begin another file after a full disk and the like: a writer that failed stays so."""
        try:
            yield
        except OSError:
            self._writer = None
            raise

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Add a point to each scalar's plot."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

    def write_image(self, image: Tensor, name: str, step: int) -> None:
        """Add an image."""
        layout = "HW" if image.ndim == 2 else "CHW"
        self.writer.add_image(name, image, step, dataformats=layout)

    def write_figure(self, figure: Figure, name: str, step: int) -> None:
        """Add a figure, and close it for pyplot."""
        self.writer.add_figure(name, figure, step)

    def write_histogram(self, values: Tensor, name: str, step: int) -> None:
        """Add a histogram."""
        self.writer.add_histogram(name, values.float(), step)

    def write_params(self, params: dict[str, object]) -> None:
        """Add the parameters, as a table among the texts."""
        rows = "\n".join(f"|{name}|{value}|" for name, value in params.items())
        self.writer.add_text("parameters", f"|name|value|\n|-|-|\n{rows}")

    def close_tracker(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            with self.writing():
                self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a continued run needs: the folder and the lengths of the event files."""
        if not self.writes:
            return {}
        state: dict[str, Any] = {"log_dir": None, "mark": self._mark, "lengths": {}}

        def measure() -> None:
            self.writer.flush()
            state["log_dir"] = folder = self._options["log_dir"]
            state["lengths"] = lengths(Path(folder), self._mark)

        self._deliver("its state", measure)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the checkpoint was saved; what was logged afterwards is removed.

        The folder is that of the checkpoint, unless this logger was given another.
        """
        if not self.writes or not state_dict:
            return
        self._deliver("its state", lambda: self._restore(state_dict))

    def _restore(self, state: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.close()
            if self._mark != state["mark"]:  # begun too early: it will all be written again
                cut_back(Path(self._options["log_dir"]), self._mark, {})
            self._writer = None
        if self._options.get("log_dir") is None:
            self._options["log_dir"] = state["log_dir"]
        self._mark = state["mark"]
        if self._options["log_dir"] is not None:
            cut_back(Path(self._options["log_dir"]), self._mark, state["lengths"])


def _absolute(folder: str) -> str:
    """Return the path from the root, so that a later change of folder means nothing."""
    return folder if "://" in folder else str(Path(folder).absolute())
