"""The engine: a step, the data, and handlers on what happens in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any, Self

from cookfire.distributed import refuse_uneven
from cookfire.engine import _loop
from cookfire.engine._handlers import Attachment, describe
from cookfire.engine._progress import Progress, Status
from cookfire.engine._runs import in_progress
from cookfire.engine.events import Events, State


class Engine(Progress):
    """Runs a step over data for some epochs and fires events on the way.

    .. code-block:: text

        STARTED
        for each epoch:
            EPOCH_STARTED
            for each batch of the data:              # DATALOADER_STOP_ITERATION where it ends
                GET_BATCH_STARTED
                state.batch = next batch
                GET_BATCH_COMPLETED
                ITERATION_STARTED
                state.output = step(engine, state.batch)
                ITERATION_COMPLETED
            EPOCH_COMPLETED                          # TERMINATE_SINGLE_EPOCH before, if told so
        COMPLETED                                    # TERMINATE before, if told so

        anywhere:  EXCEPTION_RAISED, then the error goes on;  INTERRUPT, then run() returns

    Args:
        process_function: the step, ``step(engine, batch) -> output``; its result is in
            ``engine.state.output`` until the next.

    Attributes:
        state: the run's :class:`~cookfire.engine.State`.
        status: ``fresh``, ``running``, ``paused`` (interrupted, terminated, or loaded from a
            checkpoint: ``run`` continues there) or ``finished``.
        last_event_name: the event whose handlers ran last.
        logger: the engine's logger.

    Raises:
        TypeError: the step is no callable, or can't take ``(engine, batch)``.

    Example:
        >>> engine = Engine(lambda engine, batch: 2 * batch)
        >>> @engine.on(Events.ITERATION_COMPLETED(every=2))
        ... def show(engine):
        ...     print(engine.state.iteration, engine.state.output)
        >>> state = engine.run([1, 2, 3, 4], max_epochs=1)
        2 4
        4 8
    """

    def __init__(self, process_function: Callable[[Self, Any], Any]) -> None:
        if not callable(process_function):
            raise TypeError(
                "Engine expects a step, a function (engine, batch) -> output, "
                f"got {process_function!r} ({type(process_function).__name__})"
            )
        # The step is called like a handler that takes the batch.
        if not Attachment("step", None, process_function, (None,), {}).takes_engine:
            raise TypeError(f"the step {describe(process_function)} must take (engine, batch)")
        super().__init__()
        self._process_function = process_function

    # What handlers and steps ask for

    def terminate(self, *, skip_completed: bool = False) -> None:
        """End the run after the current event's handlers: TERMINATE, then COMPLETED.

        A later ``run`` continues where this one ended.

        Args:
            skip_completed: do not fire COMPLETED.
        """
        self.should_terminate = True
        self._skip_completed = skip_completed
        self._attention = True

    def terminate_epoch(self, *, skip_epoch_completed: bool = False) -> None:
        """End the epoch after the current event's handlers; the next begins with fresh data.

        Between two epochs there is none to end: the call has no effect. In ITERATION_STARTED the
        iteration counts although its step is not run.

        Args:
            skip_epoch_completed: do not fire EPOCH_COMPLETED.
        """
        self._skip_epoch = True
        self._skip_epoch_completed = skip_epoch_completed
        self._attention = True

    def interrupt(self) -> None:
        """Pause the run after the current event's handlers: INTERRUPT, then ``run`` returns.

        A later ``run`` goes on with the very next batch, as if nothing had been.

        Example:
            >>> engine = Engine(lambda engine, batch: print(batch, end=""))
            >>> handle = engine.add_event_handler(
            ...     Events.ITERATION_COMPLETED(once=2), engine.interrupt)
            >>> state = engine.run(iter("abcd"))
            ab
            >>> state = engine.run()
            cd
        """
        self.should_interrupt = True
        self._attention = True

    def set_data(self, data: Iterable[Any]) -> None:
        """Go on with other data from the next batch on; the epoch keeps its length.

        Before the first run it says what that run iterates over if it is given no data.

        Raises:
            TypeError: ``data`` can't be iterated over.
        """
        _check_iterable(data)
        if not self._running:
            self.state.iteration -= self._position.settle()
        if self._position.walking:
            self._restart_data()
        self.state.dataloader = data
        self._attention = True

    # The run

    def run(
        self,
        data: Iterable[Any] | None = None,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        epoch_length: int | None = None,
    ) -> State:
        """Run over ``data``, or continue a run that was paused.

        A paused run (interrupted, terminated, failed, or loaded) continues at its exact position.
        A finished one continues if a larger limit is given, and begins anew with the same or none;
        setting ``state.max_epochs = state.max_iters = None`` makes it begin anew in any case.

        Args:
            data: batches: a loader, a list, an iterator, or None (then the step gets None, and
                ``epoch_length`` is needed; when continuing, None means the same data).
            max_epochs: epochs of the whole run; 1 unless ``max_iters`` is given.
            max_iters: iterations of the whole run, in place of ``max_epochs``.
            epoch_length: iterations an epoch; ``len(data)`` by default. Data without a length
                makes epochs end where it ends. Where data is shorter than an epoch it is begun
                again; where it is longer, the next epoch goes on with it.

        Returns:
            The state.

        Raises:
            RuntimeError: the engine is running already.
            TypeError: ``data`` can't be iterated over.
            ValueError: arguments contradict each other or the run to continue (a limit below
                its position, data of another length), or there is no data.
        """
        if self.status is Status.RUNNING:
            raise RuntimeError(
                "the engine is running already: a handler or the step called its run(); "
                "use a second engine"
            )
        if data is not None:
            _check_iterable(data)
        if max_epochs is not None and max_iters is not None:
            raise ValueError(
                f"give max_epochs or max_iters, not both; got {max_epochs} and {max_iters}"
            )
        max_epochs = _check_count("max_epochs", max_epochs)
        max_iters = _check_count("max_iters", max_iters)
        epoch_length = _check_count("epoch_length", epoch_length)
        if self._continues(max_epochs, max_iters):
            self._continue(data, max_epochs, max_iters, epoch_length)
        else:
            self._begin(data, max_epochs, max_iters, epoch_length)
        self.status = Status.RUNNING
        self._running = True
        self.should_terminate = self.should_interrupt = self._skip_completed = False
        self._skip_epoch = self._skip_epoch_completed = self._attention = False
        self._dispatches.clear()
        failed = True
        try:
            with in_progress(self), refuse_uneven(self.state.dataloader):
                failed = self._run()
        finally:
            self._running = False
            interrupted = not failed and self.should_interrupt and not self.should_terminate
            finished = not failed and not interrupted and self._is_done()
            self.status = Status.FINISHED if finished else Status.PAUSED
            if finished:
                self._position.release(self.state.dataloader, self.state.iteration)
            if not interrupted:
                self._announce_run = self._announce_epoch = True
            self._dispatches.clear()
        return self.state

    def _run(self) -> bool:
        """Run to the end; tell whether an error was handled on the way."""
        try:
            _loop.run_epochs(self)
        except BaseException as error:  # handlers hear of all that ends a run
            if not self._position.pending:
                # The data may have raised: what it gave before is no walk to go on with.
                self._position.forget_walk()
            if not self._raise_to_handlers(error):
                raise
            self._fire(Events.TERMINATE)
            if not self._skip_completed:
                self._fire(Events.COMPLETED)
            return True
        return False

    def _raise_to_handlers(self, error: BaseException) -> bool:
        """Show ``error`` to every EXCEPTION_RAISED handler; tell whether one called terminate."""
        self.should_terminate = False
        self.last_event_name = Events.EXCEPTION_RAISED
        self._count(Events.EXCEPTION_RAISED)
        other: BaseException | None = None
        for item in list(self._handlers[Events.EXCEPTION_RAISED]):
            count = self.state.get_event_attrib_value(Events.EXCEPTION_RAISED)
            if item.filter is not None and not item.filter.is_due(self, count):
                continue
            try:
                item.call(self, (error,), {})
            except BaseException as raised:  # what a handler raises replaces it
                if raised is not error:
                    item.explain(raised, self)
                    other = other or raised
        if other is not None:
            raise other from error
        return self.should_terminate


def _check_count(name: str, value: object) -> int | None:
    """Return a limit of :meth:`Engine.run` as a plain int; numpy's integers are welcome."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def _check_iterable(data: object) -> None:
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise TypeError(
            f"data must be something to iterate over (a loader, a list, ...), "
            f"got {type(data).__name__}"
        )
