"""What trackers share whose records belong to a run: started late, continued by a checkpoint."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import TracebackType
from typing import Any, ClassVar

from cookfire.handlers._delivery import SILENCE, require
from cookfire.handlers._log_values import flat_params
from cookfire.handlers.base_logger import BaseLogger

__all__ = ["RunLogger"]


class RunLogger(BaseLogger, ABC):
    """A tracker whose records belong to a run.

    The run is started when the first thing but parameters is logged, or when ``run`` is read.
    Parameters wait until then: a checkpoint that is loaded meanwhile (a logger has a
    ``state_dict``) lets the tracker go on with the run that it was saved in. ``close`` ends the
    run, unless it is the caller's; leaving a ``with`` block by an exception marks it as failed.

    An adapter says how a run starts and ends, and implements the ``write_*`` that it has a place
    for; there, ``self._run`` is the tracker's own object.
    """

    package: ClassVar[str]  # what has to be installed
    extra: ClassVar[bool] = True  # whether cookfire-handlers has an extra of that name
    forwarded: ClassVar[tuple[str, ...]] = ()  # beginnings of the functions that logger.* calls

    def __init__(self) -> None:
        require(self.package, type(self).__name__, extra=self.extra)
        self._run: Any = None
        self._run_id: str | None = None
        self._is_ours = True
        self._error: type[BaseException] | None = None
        self._held_params: dict[str, object] = {}

    # What an adapter implements.

    @abstractmethod
    def start_run(self, run_id: str | None) -> tuple[Any, str | None]:
        """Start a run, or go on with that of the id; return the tracker's object and its id.

        Whatever is raised counts as an outage: it is tried again later. A run that was there before
        is the caller's: set ``self._is_ours`` to False, and it stays open.
        """

    def end_run(self, run: Any, error: type[BaseException] | None) -> None:
        """End the run; ``error`` is what the training ended by, if by any."""

    def discard_run(self, run: Any) -> None:
        """End a run that was started before a checkpoint of another was loaded."""
        self.end_run(run, None)

    def is_outage(self, error: Exception) -> bool:
        """Tell whether an error says that the tracker is out of reach for now."""
        return isinstance(error, OSError)

    @abstractmethod
    def interface(self) -> Any:
        """Return the class or module with the functions that ``logger.*`` calls."""

    def functions(self) -> Any:
        """Return the object whose functions those are; the run by default."""
        return self._run

    # What they share.

    @property
    def library(self) -> Any:
        """The tracker's package, imported when it is first used: that takes up to seconds."""
        return import_module(self.package)

    @staticmethod
    def checked(function: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the arguments of a later call by name.

        Raises:
            TypeError: the function does not take them.
        """
        signature = inspect.signature(function)
        arguments = signature.bind(*args, **kwargs).arguments
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments |= arguments.pop(name, {})
        return dict(arguments)

    @property
    def run(self) -> Any:
        """The tracker's own run, started if need be; what fails there, raises.

        In processes that don't write, and where no run can be started, an object whose functions
        do nothing.
        """
        if self.writes:
            self._deliver("its run", lambda: None)
        return SILENCE if self._run is None else self._run

    @property
    def run_id(self) -> str | None:
        """The run's id, after starting it if it has none; None where nothing can be written."""
        if self.writes and self._run_id is None:
            self._deliver("its run", lambda: None)
        return self._run_id

    def __getattr__(self, name: str) -> Any:
        """Forward to the tracker's function of that name."""
        wanted = bool(self.forwarded) and name.startswith(self.forwarded)
        if wanted and self.writes:
            wanted = hasattr(self.interface(), name)
        if not wanted:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._forward(f"what {name} was given", lambda: getattr(self.functions(), name))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Start the run before a record is written, and tell outages from faults of a record."""
        self._start()
        with self._outages():
            yield

    @contextmanager
    def _outages(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # sorted out by the adapter, and raised again
            if self.is_outage(error) and not isinstance(error, OSError):
                raise ConnectionError(str(error)) from error
            raise

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log what the run was started with: names and values, nested names joined by ``.``."""
        if self._run is None and self.writes:
            self._held_params |= params
        else:
            super().log_params(params)

    def close_tracker(self) -> None:
        """End the run, unless it is the caller's."""
        if self._held_params:
            self._start()
            self._write_held_params()
        run, self._run = self._run, None
        if run is not None and self._is_ours:
            with self._outages():
                self.end_run(run, self._error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._error = kind
        super().__exit__(kind, error, traceback)

    def state_dict(self) -> dict[str, Any]:
        """Return the run's id, after starting the run if need be."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the run of the checkpoint."""
        run_id = state_dict["run_id"]
        if run_id is None or run_id == self._run_id or not self.writes:
            return
        run, self._run, self._run_id = self._run, None, run_id
        if run is not None and self._is_ours:  # started too early
            self._deliver.attempt(
                "the end of a run that is not needed", lambda: self.discard_run(run)
            )

    def _start(self) -> None:
        if self._run is not None:
            return
        try:
            self._run, self._run_id = self.start_run(self._run_id)
        except Exception as error:  # each library has its own, and the training is to go on
            raise ConnectionError(f"no run could be started ({error})") from error
        self._write_held_params()

    def _write_held_params(self) -> None:
        # Apart from what waits to be delivered: this may be called while that is.
        held = dict(flat_params(self._held_params))
        if held and self._deliver.attempt("parameters", lambda: self.write_params(held)):
            self._held_params = {}
