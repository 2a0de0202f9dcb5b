"""Ending cleanly when the machine is wanted back."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers._checks import check_whole

__all__ = ["SIGNALS", "Preemption"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What clusters send, some seconds before they kill."""


_NOT_HEARD = (signal.SIGKILL, signal.SIGSTOP)


class Preemption:
    """Saves the run and ends the process when a signal asks for it.

    Clusters announce that they want a machine back by SIGTERM, or by a signal of one's choice
    (SLURM: ``--signal=USR1@60``), some seconds before they kill. The signal is only noted; after
    the iteration in progress, when its handlers have run, the run pauses (``engine.interrupt()``),
    ``save`` is called, and the process exits with the code 128 + the signal's number, which shells
    and schedulers know. A run that loads what was saved goes on with the very next batch.

    Several processes agree on the iteration, also if the signal reached only one of them: attach it
    on every rank. While the run lasts the signals are its own; afterwards they do again what they
    did before, also one that came after the last iteration.

    The processes that load the data should not get SIGTERM themselves, or they end at once, and
    with them the run. With SLURM, SIGUSR1 is the better choice.

    :meth:`RunState.keep` has one of these: a run that it keeps needs no other.

    Args:
        save: called with the engine, on every rank: a :class:`Checkpoint`, or a function.
        signals: what to listen to; SIGTERM and SIGUSR1 by default.
        exits: end the process by ``SystemExit``. If False, ``run()`` returns, and :attr:`received`
            tells that it is not finished.
        every: among several processes, iterations between their agreements: each is an exchange
            of a number.

    Attributes:
        received: the signal that ended the run, if any.

    Raises:
        TypeError: ``save`` is no function.
        ValueError: there are no signals; when the run begins: it is not in the main thread.

    Example:
        >>> run = RunState(trainer, model=model)
        >>> preemption = Preemption(lambda: run.save(folder / "run.pt"))
        >>> preemption.attach(trainer)
        >>> state = trainer.run(data)
        >>> preemption.received is None
        True
    """

    def __init__(
        self,
        save: Callable[..., Any],
        signals: Sequence[signal.Signals] = SIGNALS,
        exits: bool = True,
        every: int = 10,
    ) -> None:
        if not callable(save):
            raise TypeError(f"save must be a function or a handler, got {type(save).__name__}")
        if not signals:
            raise ValueError("signals: expected at least one")
        for number in signals:
            if not isinstance(number, signal.Signals) or number in _NOT_HEARD:
                raise ValueError(
                    f"signals: expected what a program can hear, as signal.SIGTERM, got {number!r}"
                )
        check_whole("every", every, "iteration")
        self.save = save
        self.signals = tuple(signals)
        self.exits = exits
        self.every = every
        self.received: signal.Signals | None = None
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")
        self._previous: dict[signal.Signals, Any] = {}
        self._looked_at = 0

    def attach(self, engine: Engine) -> None:
        """Listen while ``engine`` runs."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look)
        # By an event of its own, so that `save` may take the engine or not.
        engine.register_events(_SAVE)
        engine.add_event_handler(_SAVE, self.save)
        engine.add_event_handler(Events.INTERRUPT, self._pause)
        engine.add_event_handler(Events.TERMINATE | Events.COMPLETED, self._end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _begin(self) -> None:
        self.received = None
        self._looked_at = 0
        self._listen()

    def _listen(self) -> None:
        if self._previous:
            return
        if threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "Preemption: python lets only the main thread listen to signals; run the engine "
                "there, or without it (RunState.keep: signals=())"
            )
        for number in self.signals:
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)

    def _look(self, engine: Engine) -> None:
        self._listen()  # a run that goes on after an interrupt fires no STARTED
        if idist.get_world_size() > 1:
            iteration = engine.state.iteration
            if iteration // self.every == self._looked_at // self.every:
                return
            self._looked_at = iteration
            number = idist.all_reduce(self.received or 0, "MAX")
            self.received = signal.Signals(int(number)) if number else None
        if self.received is not None:
            engine.interrupt()

    def _pause(self, engine: Engine) -> None:
        if self.received is None:  # somebody else's interrupt
            self._restore()
            return
        try:
            engine.fire_event(_SAVE)
        finally:
            self._restore()
        state = engine.state
        self.logger.warning(
            "%s: saved at iteration %d (epoch %d), to be continued",
            self.received.name,
            state.iteration,
            state.epoch,
        )
        if self.exits:
            raise SystemExit(128 + self.received)

    def _end(self) -> None:
        came_too_late = self.received if self._previous else None
        self._restore()
        if came_too_late is not None:
            # The run has ended: let it do what it does without this handler.
            signal.raise_signal(came_too_late)

    def _fail(self) -> None:
        if self._previous and self.received is not None:
            self.logger.warning(
                "the run failed after %s, before it could be saved; the processes that load the "
                "data must not get the signal",
                self.received.name,
            )
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            # None: it was set by something that is not python, and can't be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


_SAVE = "cookfire.handlers.preemption.save"
