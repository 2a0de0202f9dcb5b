"""The engine: a step, the data, and handlers on what happens in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from numbers import Integral
from typing import Any, ClassVar, NoReturn

from cookfire.distributed import get_world_size
from cookfire.engine import _loop
from cookfire.engine._emitter import Emitter
from cookfire.engine._handlers import Attachment, describe
from cookfire.engine._position import Position, begin_walk, length
from cookfire.engine._runs import in_progress
from cookfire.engine.base import Serializable
from cookfire.engine.events import Events, State


class Status(Enum):
    """Where an engine is between its runs."""

    FRESH = "fresh"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"


class Engine(Emitter, Serializable):
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

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("epoch_length",)
    _state_dict_one_of_opt_keys: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("max_epochs", "max_iters"),
    )

    def __init__(self, process_function: Callable[[Any, Any], Any]) -> None:
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
        self.logger = logging.getLogger(f"{__package__}.{type(self).__name__}")
        self.status = Status.FRESH
        self.state_dict_user_keys: list[str] = []

        self.should_terminate = False
        self.should_interrupt = False
        self._skip_completed = False
        self._skip_epoch = False
        self._skip_epoch_completed = False

        self._position = Position()
        self._epoch_length_known = False
        self._length_from_data = False  # it is len(data), so other data must have it too
        self._fetch_announced = False  # GET_BATCH_STARTED has been fired for the next batch
        self._announce_run = True  # STARTED is to be fired
        self._announce_epoch = True  # EPOCH_STARTED is to be fired, also if an epoch goes on

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

    @property
    def epoch_iteration(self) -> int:
        """Iterations of the current epoch so far (of the last one, between epochs)."""
        return self.state.iteration - self._position.epoch_start

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
            with in_progress(self):
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
        except BaseException as error:
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
            except BaseException as raised:
                if raised is not error:
                    item.explain(raised, self)
                    other = other or raised
        if other is not None:
            raise other from error
        return self.should_terminate

    def _continues(self, max_epochs: int | None, max_iters: int | None) -> bool:
        state = self.state
        if self.status is Status.FRESH or (state.max_epochs is None and state.max_iters is None):
            return False
        if self.status is Status.PAUSED:
            return True
        self._check_limits(max_epochs, max_iters)
        if max_epochs is not None:
            return max_epochs > state.epoch or self._position.in_epoch
        return max_iters is not None and max_iters > state.iteration

    def _check_limits(self, max_epochs: int | None, max_iters: int | None) -> None:
        for name, limit, position, done in (
            ("max_epochs", max_epochs, self.state.epoch, "epoch"),
            ("max_iters", max_iters, self.state.iteration, "iteration"),
        ):
            if limit is not None and limit < position:
                raise ValueError(
                    f"{name}={limit} is below the position of the engine's run ({done} "
                    f"{position}); give more to continue it, or set engine.state.max_epochs = "
                    "engine.state.max_iters = None to begin anew"
                )

    def _begin(
        self,
        data: Iterable[Any] | None,
        max_epochs: int | None,
        max_iters: int | None,
        epoch_length: int | None,
    ) -> None:
        if data is None and self.status is Status.FRESH:
            data = self.state.dataloader  # of set_data
        batches = epoch_length if epoch_length is not None else length(data)
        if data is None and batches is None:
            raise ValueError("without data, run() needs epoch_length")
        if batches == 0 and get_world_size() == 1:  # else the other processes may have some
            raise ValueError(
                f"the data is empty: len({type(data).__name__}) is 0; check the dataset's path, "
                "split, and batch size with drop_last"
            )
        state = self.state
        state.iteration = state.epoch = 0
        state.epoch_length = batches
        state.max_iters = max_iters
        state.max_epochs = None if max_iters is not None else max_epochs or 1
        state.dataloader = data
        state.event_counts.clear()
        self._seen_counts.clear()
        self._epoch_length_known = batches is not None
        self._length_from_data = epoch_length is None and batches is not None
        self._position = Position()
        self._fetch_announced = False
        self._announce_run = self._announce_epoch = True
        self.logger.info(
            "run starts: %s, epoch length %s", self._limit(), batches or "as long as the data"
        )

    def _continue(
        self,
        data: Iterable[Any] | None,
        max_epochs: int | None,
        max_iters: int | None,
        epoch_length: int | None,
    ) -> None:
        state = self.state
        self._check_limits(max_epochs, max_iters)
        if max_epochs is not None or max_iters is not None:
            state.max_epochs, state.max_iters = max_epochs, max_iters
        if epoch_length is not None and epoch_length != state.epoch_length:
            raise ValueError(
                f"epoch_length={epoch_length} differs from that of the run to continue, "
                f"{state.epoch_length}"
            )
        if data is not None and data is not state.dataloader:
            if self._length_from_data and length(data) != state.epoch_length:
                raise ValueError(
                    f"the run to continue has epochs of {state.epoch_length} iterations, the data "
                    f"({type(data).__name__}) has {length(data)}; set engine.state.max_epochs = "
                    "engine.state.max_iters = None to begin anew"
                )
            state.dataloader = data
            state.iteration -= self._position.settle()
            self._position.forget_walk()
        state.iteration -= self._position.settle()
        if state.dataloader is None and not self._epoch_length_known:
            raise ValueError("the run to continue needs its data: run(data)")
        self.logger.info(
            "run continues at iteration %d, epoch %d, of %s",
            state.iteration,
            state.epoch,
            self._limit(),
        )

    def _limit(self) -> str:
        state = self.state
        if state.max_iters is not None:
            return f"{state.max_iters} iterations"
        return f"{state.max_epochs} epochs"

    def _is_done(self) -> bool:
        state = self.state
        if state.max_iters is not None:
            return state.iteration >= state.max_iters
        return not self._position.in_epoch and state.epoch >= (state.max_epochs or 0)

    def _last_iteration(self) -> int | None:
        """Return the last iteration of this epoch; None where its data will tell."""
        state = self.state
        if not self._epoch_length_known or state.epoch_length is None:
            return state.max_iters
        last = self._position.epoch_start + state.epoch_length
        return last if state.max_iters is None else min(last, state.max_iters)

    @property
    def _leaving(self) -> bool:
        return self.should_terminate or self.should_interrupt

    @property
    def _wants_out(self) -> bool:
        return self.should_terminate or self.should_interrupt or self._skip_epoch

    # Data

    def _batches(self) -> Iterator[Any]:
        state = self.state
        return self._position.batches(state.dataloader, state.iteration, self._begin_walk)

    def _begin_walk(self, data: Iterable[Any], data_pass: int, skip: int) -> Iterator[Any]:
        return begin_walk(data, data_pass, skip)

    def _restart_data(self) -> None:
        self._position.restart(self.state.iteration)

    def _raise_no_data(self) -> NoReturn:
        state = self.state
        if isinstance(state.dataloader, Iterator):
            advice = (
                "it is an iterator that can be read only once; give something that can be iterated "
                "again, or call set_data at DATALOADER_STOP_ITERATION"
            )
        else:
            advice = "it is empty; check the dataset's path, split and filters"
        raise ValueError(
            f"the data ({type(state.dataloader).__name__}) gave no batch in epoch {state.epoch} "
            f"after iteration {state.iteration}: {advice}"
        )

    # Saving and continuing

    def state_dict(self) -> dict[str, Any]:
        """Return the exact position: plain numbers, loadable with ``weights_only=True``.

        ``iteration``, ``epoch`` and the limits are ignite's; ``batch`` counts the batches done of
        an epoch in progress (None between epochs), ``data_pass`` and ``data_batch`` say where in
        which walk over the data that is. State attributes named in ``state_dict_user_keys`` go
        with it.
        """
        state = self.state
        iteration = state.iteration - self._position.uncounted
        limit = "max_epochs" if state.max_iters is None else "max_iters"
        saved: dict[str, Any] = {
            "epoch_length": state.epoch_length if self._epoch_length_known else None,
            limit: getattr(state, limit),
            "iteration": iteration,
            "epoch": state.epoch,
            **self._position.state_dict(iteration),
            "event_counts": dict(state.event_counts),
        }
        for key in self.state_dict_user_keys:
            saved[key] = getattr(state, key, None)
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the position of a saved run; ``run(data)`` continues it.

        A dict with ``iteration`` or ``epoch`` alone (and ``epoch_length`` and a limit), as ignite
        writes it, also loads: the rest follows from the epoch's length.

        Raises:
            RuntimeError: the engine is running.
            ValueError: a key is missing, or the position can't be derived.
        """
        if self.status is Status.RUNNING:
            raise RuntimeError("a running engine can't take another position; load before run()")
        super().load_state_dict(state_dict)
        missing = [key for key in self.state_dict_user_keys if key not in state_dict]
        if missing:
            raise ValueError(
                f"{type(self).__name__}: the state lacks the user's key {missing[0]!r}"
            )
        state = self.state
        state.epoch, state.iteration, self._position = Position.from_state_dict(state_dict)
        state.epoch_length = state_dict["epoch_length"]
        state.max_epochs = state_dict.get("max_epochs")
        state.max_iters = state_dict.get("max_iters")
        state.event_counts = dict(state_dict.get("event_counts", {}))
        state.dataloader = None
        for key in self.state_dict_user_keys:
            setattr(state, key, state_dict[key])
        self._epoch_length_known = state.epoch_length is not None
        self._length_from_data = False
        self._fetch_announced = False
        self._announce_run = self._announce_epoch = True
        self.status = Status.PAUSED


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
