"""Traces of torch's profiler."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import profile, record_function, schedule

import cookfire.distributed as idist
from cookfire.engine import Engine, EventEnum, Events
from cookfire.handlers._recorder import name_of

__all__ = ["TorchProfiler"]


class TorchProfiler:
    """Writes what a few iterations did, operator by operator, by ``torch.profiler``.

    Each window of ``active`` iterations becomes two files, named by rank and last iteration:
    ``rank0_iteration5.json``, a trace for Perfetto or ``chrome://tracing`` in which the handlers
    have their names, and ``rank0_iteration5.txt``, a table of the operators that took longest.
    When all windows are written, profiling ends and costs nothing any more.

    Args:
        folder: where to; made if need be.
        wait: iterations before each window, to pass over what only happens at first.
        warmup: iterations in which the profiler runs already and its first costs are thrown away.
        active: iterations of a window. Traces take about a megabyte each, so 3.
        repeat: number of windows.
        kwargs: for ``torch.profiler.profile``: ``activities``, ``record_shapes``,
            ``profile_memory``, ``with_stack``, ...

    Raises:
        ValueError: a number of iterations is negative, or there is no window.

    Example:
        >>> TorchProfiler(folder, wait=1, warmup=1, active=2).attach(trainer)
        >>> state = trainer.run([0] * 10)
        >>> sorted(path.name for path in folder.glob("rank*"))
        ['rank0_iteration4.json', 'rank0_iteration4.txt']
    """

    def __init__(
        self,
        folder: str | Path,
        wait: int = 1,
        warmup: int = 1,
        active: int = 3,
        repeat: int = 1,
        **kwargs: Any,
    ) -> None:
        for name, number, least in (
            ("wait", wait, 0), ("warmup", warmup, 0), ("active", active, 1), ("repeat", repeat, 1)
        ):  # fmt: skip
            if number < least:
                raise ValueError(f"{name} must be at least {least}, got {number!r}")
        self.folder = Path(folder)
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")
        self._schedule = schedule(wait=wait, warmup=warmup, active=active, repeat=repeat)
        self._left = self._length = (wait + warmup + active) * repeat
        self._kwargs = kwargs
        self._profile: profile | None = None
        self._unwrap: Callable[[], None] | None = None

    def attach(self, engine: Engine) -> None:
        """Profile the first iterations of a run of ``engine``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        ends = Events.COMPLETED | Events.TERMINATE | Events.INTERRUPT | Events.EXCEPTION_RAISED
        engine.add_event_handler(ends, self._stop)

    def _start(self, engine: Engine) -> None:
        self._stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._left = self._length

        def write(profiled: profile) -> None:
            self._write(profiled, engine.state.iteration)

        self._profile = profile(schedule=self._schedule, on_trace_ready=write, **self._kwargs)
        self._unwrap = engine.wrap_handlers(_named)
        self._profile.start()

    def _step(self) -> None:
        if self._profile is None:
            return
        with warnings.catch_warnings():
            # That a window has its own events alone is what is wanted.
            warnings.filterwarnings("ignore", message=".*clears events at the end of each cycle")
            self._profile.step()
        self._left -= 1
        if self._left == 0:
            self._stop()

    def _stop(self) -> None:
        if self._unwrap is not None:
            self._unwrap()
            self._unwrap = None
        if self._profile is not None:
            running, self._profile = self._profile, None
            running.stop()

    def _write(self, profiled: profile, iteration: int) -> None:
        path = self.folder / f"rank{idist.get_rank()}_iteration{iteration}.json"
        unfinished = path.with_suffix(".json.tmp")
        profiled.export_chrome_trace(str(unfinished))
        unfinished.replace(path)
        on_device = torch.accelerator.is_available()
        order = "self_device_time_total" if on_device else "self_cpu_time_total"
        table = profiled.key_averages().table(sort_by=order, row_limit=30)
        path.with_suffix(".txt").write_text(table)
        self.logger.info("trace written: %s", path)


def _named(
    event: EventEnum | str, handler: Callable[..., Any], call: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    name = f"{event}: {name_of(handler)}"

    def named(engine: Engine) -> None:
        with record_function(name):
            call(engine)

    # Its own step ends and begins the profiler's steps, which must not happen within a range.
    return call if getattr(handler, "__func__", None) is TorchProfiler._step else named
