"""What all trackers share: one interface to write to, and the handlers that write to it.

A tracker is a :class:`BaseLogger` that implements some of ``write_scalars``, ``write_image``,
``write_figure``, ``write_histogram``, ``write_params`` and ``write_artifact``: about 50 lines; one
with runs derives from :class:`~cookfire.handlers.RunLogger`. The handlers here work with each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from cookfire import distributed as idist
from cookfire.engine import Engine, EventsList
from cookfire.engine import RemovableEventHandle as Handle
from cookfire.handlers._delivery import Delivery
from cookfire.handlers._log_handlers import (
    BaseHandler,
    BaseOptimizerParamsHandler,
    BaseOutputHandler,
    BaseWeightsHandler,
    BaseWeightsScalarHandler,
    Event,
    GradsHistHandler,
    GradsScalarHandler,
    OptimizerParamsHandler,
    OutputHandler,
    WeightsHistHandler,
    WeightsScalarHandler,
)
from cookfire.handlers._log_values import WarnOnce, flat_params, flatten
from cookfire.handlers.utils import global_step_from_engine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BaseHandler",
    "BaseLogger",
    "BaseOptimizerParamsHandler",
    "BaseOutputHandler",
    "BaseWeightsHandler",
    "BaseWeightsScalarHandler",
    "GradsHistHandler",
    "GradsScalarHandler",
    "OptimizerParamsHandler",
    "OutputHandler",
    "WeightsHistHandler",
    "WeightsScalarHandler",
    "global_step_from_engine",
]


class BaseLogger:
    """A tracker: ``log_*`` write to it, ``attach*`` make an engine's events do so.

    Only the process of rank 0 writes; on the others ``log_*`` do nothing. A tracker that fails
    never stops a training: it warns once, and what can be kept is written when it works again.

    A tracker of your own implements the ``write_*`` methods that it has a place for. They may
    raise: an ``OSError`` says that the tracker is out of reach for now, anything else that this
    one record can't be written.

    Example:
        >>> class Printer(BaseLogger):
        ...     def write_scalars(self, scalars, step):
        ...         print(step, scalars)
        >>> with Printer() as logger:
        ...     logger.log_metrics({"train": {"loss": torch.tensor(0.5)}}, step=3)
        3 {'train/loss': 0.5}
    """

    @cached_property
    def _warn_once(self) -> WarnOnce:
        return WarnOnce()

    @cached_property
    def _deliver(self) -> Delivery:
        return Delivery(type(self).__name__, self._warn_once, lambda: self.writing())

    @property
    def writes(self) -> bool:
        """Whether this process writes: that of rank 0 does."""
        return idist.get_rank() == 0

    # What a tracker implements.

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Write numbers by name."""
        raise NotImplementedError

    def write_image(self, image: Tensor, name: str, step: int) -> None:
        """Write an image: (C, H, W) or (H, W), uint8 or floating point in [0, 1]."""
        raise NotImplementedError

    def write_figure(self, figure: Figure, name: str, step: int) -> None:
        """Write a matplotlib figure."""
        raise NotImplementedError

    def write_histogram(self, values: Tensor, name: str, step: int) -> None:
        """Write the distribution of a tensor's values."""
        raise NotImplementedError

    def write_params(self, params: dict[str, object]) -> None:
        """Write what the run was started with."""
        raise NotImplementedError

    def write_artifact(self, path: Path, folder: str | None) -> None:
        """Store a file, or a folder with all that is in it."""
        raise NotImplementedError

    def writing(self) -> AbstractContextManager[object]:
        """Return the context in which each record is written.

        For what all of a tracker's ``write_*`` have in common: what must be open before, and which
        of the tracker's errors say that it is out of reach (they become an ``OSError``).
        """
        return nullcontext()

    def close_tracker(self) -> None:
        """Release what the tracker holds."""

    # What everybody calls.

    def log_metrics(self, metrics: Mapping[str, object], step: int = 0) -> None:
        """Log numbers by name.

        Args:
            metrics: numbers, tensors of at most one dimension, and lists or dictionaries of those;
                nested names are joined by ``/``, an empty one is left out.
            step: what to plot them over: an iteration or an epoch.
        """
        if not self.writes:
            return
        scalars: dict[str, float] = {}
        for path, value in flatten(metrics):
            name = "/".join(part for part in path if part)
            if isinstance(value, int | float):
                scalars[name] = value
            else:
                what = getattr(value, "shape", None)
                shape = "" if what is None else f" of shape {tuple(what)}"
                self._warn_once(
                    ("number", name),
                    f"{type(self).__name__} leaves out {name!r}: {type(value).__name__}{shape} is "
                    "not a number, nor a list, dictionary or one-dimensional tensor of numbers",
                )
        if scalars:
            self._deliver("metrics", partial(self.write_scalars, scalars, int(step)), keep=True)

    def log_image(self, image: Tensor, name: str, step: int = 0) -> None:
        """Log an image: (C, H, W) or (H, W), uint8 or floating point in [0, 1]."""
        if self.writes:
            self._deliver("an image", partial(self.write_image, image, name, int(step)))

    def log_figure(self, figure: Figure, name: str, step: int = 0) -> None:
        """Log a matplotlib figure."""
        if self.writes:
            self._deliver("a figure", partial(self.write_figure, figure, name, int(step)))

    def log_histogram(self, values: Tensor, name: str, step: int = 0) -> None:
        """Log the distribution of a tensor's values."""
        if self.writes:
            self._deliver("a histogram", partial(self.write_histogram, values, name, int(step)))

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log what the run was started with: names and values, nested names joined by ``.``."""
        if self.writes:
            flat = dict(flat_params(params))
            self._deliver("parameters", partial(self.write_params, flat), keep=True)

    def log_artifact(self, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Store a file or folder with the run, in its folder ``artifact_path``."""
        if self.writes:
            self._deliver("a file", partial(self.write_artifact, Path(local_path), artifact_path))

    def attach(
        self,
        engine: Engine,
        log_handler: Callable[..., Any],
        event_name: Event | EventsList,
        *args: Any,
        **kwargs: Any,
    ) -> Handle:
        """Call ``log_handler(engine, logger, event_name, *args, **kwargs)`` at an event.

        Args:
            engine: the engine whose event it is.
            log_handler: one of the handlers here, or any callable. It is called in every process,
                so it may communicate; what it writes through the logger is written by rank 0.
            event_name: an event, one with a filter, or several joined by ``|``: the handler gets
                the one that fired.
            args: handed over at each call.
            kwargs: handed over at each call.

        Returns:
            A handle that detaches it again.

        Example:
            >>> def log_learning_rate(engine, logger, event_name):
            ...     logger.log_metrics({"lr": optimizer.param_groups[0]["lr"]}, engine.state.epoch)
            >>> logger.attach(trainer, log_learning_rate, Events.EPOCH_STARTED)  # doctest: +SKIP
        """
        if not isinstance(event_name, EventsList):
            return engine.add_event_handler(
                event_name, log_handler, self, event_name, *args, **kwargs
            )
        handles = [
            engine.add_event_handler(event, log_handler, self, event, *args, **kwargs)
            for event in event_name
        ]
        return _Handles(engine, event_name, handles)

    def attach_output_handler(
        self, engine: Engine, event_name: Event | EventsList, *args: Any, **kwargs: Any
    ) -> Handle:
        """Attach an :class:`OutputHandler` made of the further arguments.

        Example:
            >>> logger.attach_output_handler(  # doctest: +SKIP
            ...     evaluator, Events.COMPLETED, tag="validation", metric_names="all",
            ...     global_step_transform=global_step_from_engine(trainer),
            ... )
        """
        return self.attach(engine, self._create_output_handler(*args, **kwargs), event_name)

    def attach_opt_params_handler(
        self, engine: Engine, event_name: Event | EventsList, *args: Any, **kwargs: Any
    ) -> Handle:
        """Attach an :class:`OptimizerParamsHandler` made of the further arguments.

        Example:
            >>> logger.attach_opt_params_handler(  # doctest: +SKIP
            ...     trainer, Events.ITERATION_STARTED(every=100), optimizer=optimizer
            ... )
        """
        return self.attach(engine, self._create_opt_params_handler(*args, **kwargs), event_name)

    def _create_output_handler(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return OutputHandler(*args, **kwargs)

    def _create_opt_params_handler(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return OptimizerParamsHandler(*args, **kwargs)

    def _forward(self, kind: str, find: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """Return a call of the tracker's own function that never stops a training.

        Arguments that the function does not take are the caller's mistake and raise TypeError.
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            results = []

            def write() -> None:
                function = find()
                try:
                    inspect.signature(function).bind(*args, **kwargs)
                except TypeError as error:
                    mistakes.append(error)
                else:
                    results.append(function(*args, **kwargs))

            mistakes: list[TypeError] = []
            if self.writes:
                self._deliver(kind, write)
            if mistakes:
                raise mistakes[0]
            return results[0] if results else None

        return call

    def close(self) -> None:
        """Write what waits and release the tracker; a second call does nothing."""
        if self.writes:
            self._deliver.finish()
            self._deliver.attempt("its end", self.close_tracker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Handles(Handle):
    """The handles of a handler on several events, as one."""

    def __init__(self, engine: Engine, event_name: EventsList, handles: Iterable[Handle]) -> None:
        super().__init__(engine, event_name, [])
        self._handles = tuple(handles)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
