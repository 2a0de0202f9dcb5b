"""Where an engine's run is: how it begins, goes on, ends, is saved and loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, ClassVar, NoReturn

from cookfire.distributed import get_world_size
from cookfire.engine._emitter import Emitter
from cookfire.engine._position import Position, begin_walk, length
from cookfire.engine.base import Serializable


class Status(Enum):
    """Where an engine is between its runs."""

    FRESH = "fresh"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"


class Progress(Emitter, Serializable):
    """What an engine knows of its run besides the step: limits, position, wishes to leave.

    Attributes:
        status: where the engine is between its runs.
        logger: says where runs begin and go on.
        state_dict_user_keys: attributes of ``state`` that are saved too.
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("epoch_length",)
    _state_dict_one_of_opt_keys: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("max_epochs", "max_iters"),
    )

    def __init__(self) -> None:
        super().__init__()
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

    @property
    def epoch_iteration(self) -> int:
        """Iterations of the current epoch so far (of the last one, between epochs)."""
        return self.state.iteration - self._position.epoch_start

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
