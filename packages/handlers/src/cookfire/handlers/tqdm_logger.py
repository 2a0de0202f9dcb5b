"""A progress bar for an engine; plain lines where nobody looks at a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from inspect import signature
from math import ceil, inf
from time import monotonic
from typing import Any, Protocol, TextIO

from cookfire import distributed as idist
from cookfire.engine import CallableEventWithFilter, Engine, EventEnum, Events
from cookfire.handlers._log_values import EngineValues, WarnOnce, flatten

__all__ = ["ProgressBar"]

Event = EventEnum | CallableEventWithFilter

BAR_FORMAT = "{desc}[{n_fmt}/{total_fmt}] {percentage:3.0f}%|{bar}{postfix} [{elapsed}<{remaining}]"
ENDLESS_FORMAT = "{desc}[{n_fmt}]{postfix} [{elapsed}, {rate_fmt}]"  # where no total is known
SECONDS_BETWEEN_LINES = 30.0


class ProgressBar:
    """Shows how far an engine has come, with its output and metrics.

    A bar in a terminal and in a notebook. Where the output is no terminal (a log file, DVC, a CI
    job), a plain line every 30 seconds and one at the end of each bar. Silent on ranks other
    than 0. The bar is drawn every 0.1 seconds (tqdm's ``mininterval``) and reads the values only
    then, so that an iteration costs it a look at the clock and no value of a GPU is waited for.

    Args:
        persist: leave the finished bars on the screen.
        bar_format: tqdm's format of a bar.
        tqdm_kwargs: further arguments of ``tqdm.tqdm``, such as ``desc``, ``file``, ``ncols``,
            ``disable``; ``mininterval`` is also the time between plain lines.

    Raises:
        TypeError: tqdm has no such argument.

    Example:
        >>> trainer = Engine(lambda engine, batch: batch / 2)
        >>> progress = ProgressBar(desc="Training")
        >>> progress.attach(trainer, output_transform=lambda output: {"loss": output})
    """

    def __init__(
        self, persist: bool = False, bar_format: str | None = BAR_FORMAT, **tqdm_kwargs: Any
    ) -> None:
        if tqdm_kwargs:
            from tqdm.std import tqdm  # later, like the bar itself

            known = signature(tqdm.__init__).parameters
            if unknown := [name for name in tqdm_kwargs if name not in known]:
                raise TypeError(f"{unknown[0]}: neither ProgressBar nor tqdm has such an argument")
        self.persist = persist
        self.bar_format = bar_format
        self.tqdm_kwargs = tqdm_kwargs

    def attach(
        self,
        engine: Engine,
        metric_names: str | list[str] | None = None,
        output_transform: Callable[[Any], Any] | None = None,
        event_name: Event = Events.ITERATION_COMPLETED,
        closing_event_name: Event = Events.EPOCH_COMPLETED,
        state_attributes: list[str] | None = None,
    ) -> None:
        """Show the progress of ``engine``; one progress bar can be attached to several engines.

        Args:
            engine: the engine.
            metric_names: "all", or a list of names in ``engine.state.metrics``. Those that are
                not computed yet are left out; one that is missing at the end is said once.
            output_transform: function of ``engine.state.output`` that returns a number, or a
                dictionary of values by name; a single one is called ``output``.
            event_name: what is counted.
            closing_event_name: where a bar ends; the next one begins afterwards.
            state_attributes: names of attributes of ``engine.state``.

        Raises:
            TypeError: an argument is of the wrong kind.
            ValueError: the closing event does not come after what is counted.

        Example:
            One bar over all epochs in place of one for each:

            >>> engine = Engine(lambda engine, batch: None)
            >>> ProgressBar().attach(
            ...     engine,
            ...     event_name=Events.EPOCH_COMPLETED,
            ...     closing_event_name=Events.COMPLETED,
            ... )
        """
        values = EngineValues(metric_names, output_transform, state_attributes)
        bar = _Bar(self, values, _base(event_name), _base(closing_event_name))
        engine.add_event_handler(event_name, bar.tick)
        engine.add_event_handler(closing_event_name, bar.finish)
        # A run that ends early must not leave a bar open above what is printed next.
        ends = Events.COMPLETED | Events.TERMINATE | Events.INTERRUPT | Events.EXCEPTION_RAISED
        engine.add_event_handler(ends, bar.close)

    def log_message(self, message: str) -> None:
        """Print a line above the open bars, to the bars' ``file`` (default: stdout)."""
        if idist.get_rank() == 0:
            file = self.tqdm_kwargs.get("file") or sys.stdout
            _tqdm().write(message, file=file)
            file.flush()  # a log file is read while the run goes on


class _Bar:
    """The bars of one attachment, one after the other."""

    def __init__(
        self, owner: ProgressBar, values: EngineValues, event: EventEnum, closing_event: EventEnum
    ) -> None:
        order = list(Events)
        if event in order and closing_event in order[: order.index(event) + 1]:
            raise ValueError(
                f"a bar that counts '{event}' can't end at '{closing_event}', which comes before"
            )
        self._owner = owner
        self._values = values
        self._event, self._closing_event = event, closing_event
        self._is_of_an_epoch = closing_event is Events.EPOCH_COMPLETED
        self._warn_once = WarnOnce()
        self._display: _Display | None = None
        self._next = 0.0

    def tick(self, engine: Engine) -> None:
        """Draw if it is time to. Called at each iteration: the usual way out is the first line."""
        if monotonic() < self._next:
            return
        if self._display is None and not self._open(engine):
            return
        self._draw(engine)

    def finish(self, engine: Engine) -> None:
        """End the bar; say which metrics never came."""
        if self._display is not None:
            for name, sentence in self._values.missing(engine).items():
                self._warn_once(name, f"ProgressBar: {sentence}")
        self.close(engine)

    def close(self, engine: Engine) -> None:
        """Draw a last time and end the bar, if one is open."""
        if self._display is not None:
            self._draw(engine)
        if self._display is not None:
            self._display.close()
            self._display = None
            self._next = 0.0

    def _open(self, engine: Engine) -> bool:
        """Begin a bar; return whether it is to be drawn at once."""
        options = dict(self._owner.tqdm_kwargs)
        file = options.get("file") or sys.stderr
        drawn = _is_looked_at(file)
        off = options.get("disable", False)
        if idist.get_rank() != 0 or off or (off is None and not drawn):  # None: as tqdm has it
            self._next = inf
            return False
        total, first = self._total(engine), self._count(engine)
        bar_format = self._owner.bar_format
        if total is None and bar_format == BAR_FORMAT:
            bar_format = ENDLESS_FORMAT
        if drawn:
            options |= {"total": total, "initial": first, "bar_format": bar_format}
            self._display = _Drawn(options | {"leave": self._owner.persist})
        else:
            self._display = _Lines(file, total, first, bar_format, options.get("mininterval"))
            self._next = monotonic() + self._display.interval
        return drawn

    def _draw(self, engine: Engine) -> None:
        assert self._display is not None
        count, description, text = self._count(engine), self._name(engine), self._text(engine)
        try:
            self._display.show(count, description, text)
            self._next = monotonic() + self._display.interval
        except (OSError, ValueError) as error:  # the terminal is gone, or the file was closed
            self._display = None
            self._next = inf
            with suppress(OSError, ValueError):  # it may be where warnings go
                message = f"ProgressBar: nothing more is shown ({error}). The training goes on"
                self._warn_once("gone", message)

    def _text(self, engine: Engine) -> str:
        """Return the values, formatted like tqdm's own."""
        parts = []
        for path, value in flatten(self._values.read(engine)):
            if isinstance(value, int | float):
                value = _tqdm().format_num(value)
            if isinstance(value, str):
                parts.append(f"{'_'.join(path)}={value.strip()}")
        return ", ".join(parts)

    def _count(self, engine: Engine) -> int:
        if self._is_of_an_epoch and _counts_iterations(engine, self._event):
            return engine.epoch_iteration
        return engine.state.get_event_attrib_value(self._event)

    def _total(self, engine: Engine) -> int | None:
        state = engine.state
        if not _counts_iterations(engine, self._event):
            return _epochs(engine) if state.event_to_attr.get(self._event) == "epoch" else None
        if self._is_of_an_epoch or state.epoch_length is None:
            return state.epoch_length
        if state.max_iters is not None:
            return state.max_iters
        return None if state.max_epochs is None else state.epoch_length * state.max_epochs

    def _name(self, engine: Engine) -> str:
        """Name the bar: 'Epoch [2/5]: ', or 'Iteration: ' where there is one epoch only."""
        epochs = _epochs(engine)
        name = self._owner.tqdm_kwargs.get("desc") or ("Iteration" if epochs == 1 else "Epoch")
        if not self._is_of_an_epoch or epochs == 1:
            return f"{name}: "
        of = "" if epochs is None else f"/{epochs}"
        return f"{name} [{engine.state.epoch}{of}]: "


class _Display(Protocol):
    interval: float

    def show(self, count: int, name: str, values: str) -> None: ...

    def close(self) -> None: ...


class _Drawn:
    """A bar by tqdm, which draws whenever it is told to: when that is, is decided by the bar."""

    def __init__(self, options: dict[str, Any]) -> None:
        given = options.pop("mininterval", None)
        self.interval = float(os.environ.get("TQDM_MININTERVAL", 0.1) if given is None else given)
        # The delay keeps tqdm from drawing an empty bar before the first values are there.
        self._options = {"miniters": 0, "delay": 1e-9, **options, "mininterval": 0}
        self._bar: Any = None

    def show(self, count: int, name: str, values: str) -> None:
        if self._bar is None:
            self._bar = _tqdm()(**self._options)
        self._bar.set_description_str(name, refresh=False)
        self._bar.set_postfix_str(values, refresh=False)
        self._bar.update(count - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines:
    """Plain lines, some time apart."""

    def __init__(
        self,
        file: TextIO,
        total: int | None,
        first: int,
        bar_format: str | None,
        interval: float | None,
    ) -> None:
        self.interval = SECONDS_BETWEEN_LINES if interval is None else float(interval)
        self._file, self._total, self._first = file, total, first
        self._format = (bar_format or BAR_FORMAT).replace("|{bar}", "").replace("{bar}", "")
        self._begin = monotonic()
        self._last: tuple[int, str, str] | None = None

    def show(self, count: int, name: str, values: str) -> None:
        if self._last == (count, name, values):  # the last line came just before the end
            return
        self._last = (count, name, values)
        line = _tqdm().format_meter(
            count,
            self._total,
            monotonic() - self._begin,
            prefix=name,
            bar_format=self._format,
            postfix=values,
            initial=self._first,
        )
        print(line, file=self._file, flush=True)

    def close(self) -> None: ...


def _tqdm() -> Any:
    """Return the class that tqdm has for where we are; imported when the first bar begins."""
    from tqdm.auto import tqdm

    return tqdm


def _is_looked_at(file: TextIO) -> bool:
    """Tell whether bars can be drawn: on a terminal, or in a notebook."""
    if not getattr(file, "closed", False) and hasattr(file, "isatty") and file.isatty():
        return True
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _base(event: Event) -> EventEnum:
    if isinstance(event, CallableEventWithFilter):
        return event.event
    if not isinstance(event, EventEnum):
        raise TypeError(
            f"a bar counts one event and ends at one, got {event} ({type(event).__name__})"
        )
    return event


def _counts_iterations(engine: Engine, event: EventEnum) -> bool:
    return engine.state.event_to_attr.get(event) == "iteration"


def _epochs(engine: Engine) -> int | None:
    """Return how many epochs the run shall have, if that is known."""
    state = engine.state
    if state.max_epochs is None and state.max_iters is not None and state.epoch_length:
        return ceil(state.max_iters / state.epoch_length)
    return state.max_epochs
