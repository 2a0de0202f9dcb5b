"""Lines about a training, as the detection projects of Facebook AI Research print them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any

import torch
from torch.optim import Optimizer

from cookfire import distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers._log_values import EngineValues, WarnOnce, flatten

__all__ = ["FBResearchLogger"]


class FBResearchLogger:
    """Writes lines with the epoch, the time to go, values and times of an iteration to a logger.

    An iteration's time and that of its data are averages since the last line; on a GPU they are
    right on the whole, as reading the values waits for it.

    Args:
        logger: a ``logging.Logger``, such as that of ``cookfire.engine.utils.setup_logger``; on
            ranks other than 0 nothing is written.
        delimiter: between the parts of a line.
        show_output: add the output of the step, as far as it is numbers.

    Raises:
        TypeError: ``logger`` has no ``info``.

    Example:
        >>> logger = FBResearchLogger(logging.getLogger("train"), show_output=True)
        >>> logger.attach(trainer, "Training", every=100, optimizer=optimizer)
    """

    def __init__(
        self, logger: logging.Logger, delimiter: str = "  ", show_output: bool = False
    ) -> None:
        if not callable(getattr(logger, "info", None)):
            raise TypeError(f"logger must be a logging.Logger, got {type(logger).__name__}")
        self.logger = logger
        self.delimiter = delimiter
        self.show_output = show_output

    def attach(
        self,
        engine: Engine,
        name: str,
        every: int = 1,
        output_transform: Callable[[Any], Any] | None = None,
        state_attributes: list[str] | None = None,
        optimizer: Optimizer | None = None,
    ) -> None:
        """Write lines about ``engine``; one logger can be attached to several.

        Args:
            engine: the engine.
            name: what to call it in the lines.
            every: iterations between lines.
            output_transform: function of the step's output that returns a number, or a dictionary
                of numbers by name; shows them whatever ``show_output`` says.
            state_attributes: names of attributes of ``engine.state`` to show.
            optimizer: whose learning rates to show.

        Raises:
            TypeError: an argument is of the wrong kind.
        """
        if output_transform is None and self.show_output:
            output_transform = _as_it_is
        values = EngineValues(None, output_transform, state_attributes)
        if idist.get_rank() == 0:
            lines = _Lines(self.logger, self.delimiter, name, values, optimizer)
            engine.add_event_handler(Events.EPOCH_STARTED, lines.begin_epoch)
            engine.add_event_handler(Events.GET_BATCH_STARTED, lines.begin_batch)
            engine.add_event_handler(Events.GET_BATCH_COMPLETED, lines.end_batch)
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=every), lines.say_iteration)
            engine.add_event_handler(Events.EPOCH_COMPLETED, lines.say_epoch)
            engine.add_event_handler(Events.STARTED, lines.begin)
            engine.add_event_handler(Events.COMPLETED, lines.say_end)


class _Lines:
    """The lines about one engine."""

    def __init__(
        self,
        logger: logging.Logger,
        delimiter: str,
        name: str,
        values: EngineValues,
        optimizer: Optimizer | None,
    ) -> None:
        self._logger, self._delimiter, self._name = logger, delimiter, name
        self._values, self._optimizer = values, optimizer
        self._warn_once = WarnOnce()
        self._run_begin = self._epoch_begin = self._batch_begin = self._last = monotonic()
        self._first = self._count = 0  # of the epoch, and of the last line
        self._data_seconds = 0.0

    def begin(self) -> None:
        """Note when the run began."""
        self._run_begin = monotonic()

    def begin_epoch(self, engine: Engine) -> None:
        """Say that an epoch begins."""
        self._epoch_begin = self._last = monotonic()
        self._first = self._count = engine.state.iteration
        self._data_seconds = 0.0
        self._logger.info(f"{self._name}: start epoch {_epoch(engine)}")

    def begin_batch(self) -> None:
        """Note when the loader was asked."""
        self._batch_begin = monotonic()

    def end_batch(self) -> None:
        """Note how long it took."""
        self._data_seconds += monotonic() - self._batch_begin

    def say_iteration(self, engine: Engine) -> None:
        """Say how far the epoch is."""
        for name, sentence in self._values.missing(engine).items():
            self._warn_once(name, f"FBResearchLogger ({self._name}): {sentence}")
        values = self._read(engine)
        now, state = monotonic(), engine.state
        count = max(state.iteration - self._count, 1)
        seconds = (now - self._last) / count
        of = _of(state.epoch_length)
        parts = [f"Epoch {_epoch(engine)}", f"[{engine.epoch_iteration}{of}]:"]
        if state.epoch_length is not None:
            left = (state.epoch_length - engine.epoch_iteration) * seconds
            parts.append(f"ETA: {_duration(left)}")
        parts += values
        parts.append(f"Iter time: {seconds:.4f} s")
        parts.append(f"Data prep time: {self._data_seconds / count:.4f} s")
        if torch.cuda.is_available():
            parts.append(f"GPU Max Mem: {torch.cuda.max_memory_allocated() / 2**20:.0f} MB")
        self._last, self._count, self._data_seconds = now, state.iteration, 0.0
        self._logger.info(self._delimiter.join(parts))

    def say_epoch(self, engine: Engine) -> None:
        """Say how long the epoch took, and its metrics."""
        seconds = monotonic() - self._epoch_begin
        each = seconds / max(engine.state.iteration - self._first, 1)
        parts = [f"{self._name}: Epoch {_epoch(engine)}", f"Total time: {_duration(seconds)}"]
        parts.append(f"({each:.4f} s / it)")
        parts += _named(engine.state.metrics)
        self._logger.info(self._delimiter.join(parts))

    def say_end(self) -> None:
        """Say how long the run took."""
        seconds = monotonic() - self._run_begin
        self._logger.info(
            f"{self._name}: run completed{self._delimiter}Total time: {_duration(seconds)}"
        )

    def _read(self, engine: Engine) -> list[str]:
        groups = [] if self._optimizer is None else self._optimizer.param_groups
        rates = [float(group["lr"]) for group in groups if "lr" in group]
        shown = [f"lr: {', '.join(f'{rate:.5g}' for rate in rates)}"] if rates else []
        return shown + _named(self._values.read(engine))


def _named(values: Any) -> list[str]:
    return [
        f"{'/'.join(path)}: {value if isinstance(value, int) else f'{value:.4f}'}"
        for path, value in flatten(values)
        if isinstance(value, int | float)
    ]


def _as_it_is(output: Any) -> Any:
    return output


def _epoch(engine: Engine) -> str:
    return f"[{engine.state.epoch}{_of(engine.state.max_epochs)}]"


def _of(total: int | None) -> str:
    return "" if total is None else f"/{total}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
