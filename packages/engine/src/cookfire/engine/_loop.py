"""The loop. Everything that happens at each iteration is in :func:`iterate`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cookfire.engine._filters import NEVER
from cookfire.engine._handlers import describe
from cookfire.engine.events import Events

if TYPE_CHECKING:
    from cookfire.engine._engine import Engine


def run_epochs(engine: Engine) -> None:
    """Run from the engine's position to the end of the run, or to where it is told to leave."""
    state = engine.state
    begin = perf_counter()
    if engine._announce_run:
        engine._announce_run = False
        engine._fire(Events.STARTED)
    while not engine._leaving and not engine._is_done():
        run_epoch(engine)
    if engine.should_interrupt and not engine.should_terminate:
        engine._fire(Events.INTERRUPT)
        return
    if engine.should_terminate:
        engine._fire(Events.TERMINATE)
    state.times[Events.COMPLETED.name] = perf_counter() - begin
    if not engine._skip_completed:
        engine._fire(Events.COMPLETED)


def run_epoch(engine: Engine) -> None:
    """Run one epoch, or the rest of one."""
    state = engine.state
    begin = perf_counter()
    if not engine._position.in_epoch:
        state.epoch += 1
        engine._position.in_epoch = True
        engine._position.epoch_start = state.iteration
        engine._announce_epoch = True
        engine._skip_epoch = engine._skip_epoch_completed = False  # there was no epoch to end
    if engine._announce_epoch:
        engine._announce_epoch = False
        engine._fire(Events.EPOCH_STARTED)
    ended = not engine._wants_out and run_iterations(engine)
    state.times[Events.EPOCH_COMPLETED.name] = perf_counter() - begin
    if engine._leaving:
        return
    completed = True
    if engine._skip_epoch:
        completed = not engine._skip_epoch_completed
        engine._skip_epoch = engine._skip_epoch_completed = engine._attention = False
        if engine._position.pending:  # a batch was fetched for a step that is not to be
            engine._fetch_announced = False
        engine._restart_data()
        engine._fire(Events.TERMINATE_SINGLE_EPOCH, iter_counter=engine.epoch_iteration)
    elif not ended:
        return  # max_iters ends the run within the epoch
    engine._position.in_epoch = False
    if completed:
        engine._fire(Events.EPOCH_COMPLETED)


def run_iterations(engine: Engine) -> bool:
    """Run the rest of the epoch's iterations; begin the data again where it ends too early.

    Returns:
        Whether the epoch came to its end.
    """
    state, position = engine.state, engine._position
    if position.epoch_over:
        position.epoch_over = False
        return True
    restarted_at = None
    while (last := engine._last_iteration()) is None or state.iteration < last:
        batches = engine._batches()
        iterate(engine, batches if last is None else islice(batches, last - state.iteration), last)
        if engine._attention:
            engine._attention = False
            if engine._wants_out:
                return False
            continue
        if last is not None and state.iteration >= last:
            break
        pass_ended = engine._position.data_pass
        engine._fire(Events.DATALOADER_STOP_ITERATION)
        engine._attention = False
        if engine._position.data_pass == pass_ended:  # else a handler has called set_data
            engine._restart_data()
        if engine._wants_out:
            position.epoch_over = engine._leaving and not engine._epoch_length_known
            return False
        if not engine._epoch_length_known:
            state.epoch_length = engine.epoch_iteration
            if state.epoch_length == 0:
                engine._raise_no_data()
            return True
        if restarted_at == state.iteration:
            engine._raise_no_data()
        restarted_at = state.iteration
    return engine._epoch_length_known and engine.epoch_iteration == state.epoch_length


def iterate(engine: Engine, batches: Iterator[Any], last: int | None) -> None:
    """Feed batches to the step until they end or the engine wants attention.

    This is where the time goes: what nobody listens to costs one test of a local, and all the
    engine's wishes (terminate, interrupt, other data, other handlers) are one flag.
    """
    state, step = engine.state, engine._process_function
    fetching = engine._dispatch(Events.GET_BATCH_STARTED)
    fetched = engine._dispatch(Events.GET_BATCH_COMPLETED)
    started = engine._dispatch(Events.ITERATION_STARTED)
    completed = engine._dispatch(Events.ITERATION_COMPLETED)
    unfiltered = completed.unfiltered if completed is not None else ()
    due = completed.due if completed is not None else NEVER

    if fetching is not None and not engine._fetch_announced:
        engine._fetch_announced = True  # it is heard once, also if the data must begin again
        engine.last_event_name = Events.GET_BATCH_STARTED
        fetching(engine, state.iteration)
        if engine._attention:
            return
    for batch in batches:
        state.batch = batch
        if fetched is not None:
            engine.last_event_name = Events.GET_BATCH_COMPLETED
            data_pass = engine._position.data_pass
            with engine._position.keeping(batch, counted=False):
                fetched(engine, state.iteration)
            if engine._position.data_pass != data_pass:
                engine._position.data_start += 1  # the new data begin after this batch
            if engine._wants_out:
                engine._position.put_back(batch, counted=False)
                engine._attention = True
                return
            if engine._attention:
                started = engine._dispatch(Events.ITERATION_STARTED)
        state.iteration = iteration = state.iteration + 1
        if started is not None:
            engine.last_event_name = Events.ITERATION_STARTED
            with engine._position.keeping(batch, counted=True):
                started(engine, iteration)
            if engine._wants_out:
                engine._position.put_back(batch, counted=True)
                engine._attention = True
                return
        try:
            state.output = step(engine, batch)
        except BaseException as error:  # raised again, with where
            engine._position.put_back(batch, counted=True)
            error.add_note(
                f"raised by the step {describe(step)} (epoch {state.epoch}, iteration {iteration})"
            )
            raise
        if engine._attention:  # the step or a handler may have attached or removed handlers
            completed = engine._dispatch(Events.ITERATION_COMPLETED)
            unfiltered = completed.unfiltered if completed is not None else ()
            due = completed.due if completed is not None else NEVER
        if completed is not None:
            if iteration >= due:
                engine.last_event_name = Events.ITERATION_COMPLETED
                completed(engine, iteration)
                due = completed.due
            elif unfiltered:  # what completed() would do, without the price of a call
                engine.last_event_name = Events.ITERATION_COMPLETED
                calls = iter(unfiltered)
                try:
                    for call in calls:
                        call(engine)
                except BaseException as error:  # raised again, with where
                    completed.explain(error, engine, calls)
                    raise
        if fetching is not None:
            engine._fetch_announced = False
            if iteration != last and not engine._attention:
                engine._fetch_announced = True
                engine.last_event_name = Events.GET_BATCH_STARTED
                fetching(engine, iteration)
        if engine._attention:
            return
