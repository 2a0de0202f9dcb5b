"""Where a run is: in which epoch, and where in which walk over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from itertools import chain, islice, repeat
from typing import Any

from cookfire.distributed import set_position

Walk = Callable[[Iterable[Any], int, int], Iterator[Any]]
"""Begins a walk: ``(data, number of the walk, batches to skip) -> iterator``."""


class Position:
    """The exact position of a run, besides ``state.epoch`` and ``state.iteration``.

    Counts are differences to ``state.iteration``, so the loop has nothing to keep up.

    Attributes:
        in_epoch: an epoch is in progress.
        epoch_start: iterations before the current epoch.
        data_pass: number of the current walk over the data, from 1.
        data_start: iterations before that walk's first batch.
        pending: the batch that was fetched but not processed when the run was left, if any.
    """

    def __init__(self) -> None:
        self.in_epoch = False
        self.epoch_start = 0
        self.data_pass = 1
        self.data_start = 0
        self.pending: tuple[Any, ...] = ()
        self.epoch_over = False  # data without a length has ended, and the epoch with it
        self._pending_counted = False
        self._walk: Iterator[Any] | None = None

    @property
    def uncounted(self) -> int:
        """Iterations that ``state.iteration`` counts although their step did not end (0 or 1)."""
        return int(bool(self.pending) and self._pending_counted)

    @property
    def walking(self) -> bool:
        """Whether a walk over the data has begun."""
        return self._walk is not None

    def batches(self, data: Iterable[Any] | None, iteration: int, begin: Walk) -> Iterator[Any]:
        """Return the rest of the walk over ``data``, what was put back first."""
        if self._walk is None:
            skip = iteration - self.data_start
            self._walk = repeat(None) if data is None else begin(data, self.data_pass, skip)
        if self.pending:
            self._walk = chain(self.pending, self._walk)
            self.pending = ()
        return self._walk

    def restart(self, iteration: int) -> None:
        """Make the next batch the first of a new walk."""
        self.forget_walk()
        self.data_pass += 1
        self.data_start = iteration

    def release(self, data: Iterable[Any] | None, iteration: int) -> None:
        """Let a walk go that has given all it had: a loader's workers wait for its end."""
        size = length(data)
        if self.walking and not self.pending and size == iteration - self.data_start:
            self._walk = iter(())

    def forget_walk(self) -> None:
        """Drop the walk in progress; a new one is brought to this position."""
        self._walk = None
        self.pending = ()

    def settle(self) -> int:
        """Return the iterations to take back from ``state.iteration``; they are then settled."""
        uncounted = self.uncounted
        self._pending_counted = False
        return uncounted

    def put_back(self, batch: Any, *, counted: bool) -> None:
        """Keep a batch that was not processed for the run that continues this one."""
        self.pending = (batch,)
        self._pending_counted = counted

    @contextmanager
    def keeping(self, batch: Any, *, counted: bool) -> Iterator[None]:
        """Put ``batch`` back if the block raises."""
        try:
            yield
        except BaseException:  # whatever ends it, no batch is lost
            self.put_back(batch, counted=counted)
            raise

    def state_dict(self, iteration: int) -> dict[str, int | bool | None]:
        """Return the position as plain numbers."""
        return {
            "batch": iteration - self.epoch_start if self.in_epoch else None,
            "data_pass": self.data_pass,
            "data_batch": iteration - self.data_start,
            "epoch_over": self.epoch_over,
        }

    @classmethod
    def from_state_dict(cls, saved: Mapping[str, Any]) -> tuple[int, int, Position]:
        """Return (epoch, iteration, position) of a saved engine.

        What an older or foreign state lacks follows from its epoch length.

        Raises:
            ValueError: it says too little.
        """
        epoch, iteration, batch = _read(saved)
        position = cls()
        done = batch or 0
        position.in_epoch = batch is not None
        position.epoch_start = iteration - done
        position.data_pass = saved.get("data_pass", epoch if position.in_epoch else epoch + 1)
        position.data_start = iteration - saved.get("data_batch", done)
        position.epoch_over = saved.get("epoch_over", False)
        return epoch, iteration, position


def begin_walk(data: Iterable[Any], data_pass: int, skip: int) -> Iterator[Any]:
    """Begin walk number ``data_pass`` over ``data`` after its first ``skip`` batches.

    Data that knows its position jumps there; an iterator has a position of its own; from anything
    else the skipped batches are fetched and dropped.
    """
    size = length(data)
    if size is not None and skip >= size:
        return iter(())  # a walk that had just ended when the run was saved
    if set_position(data, data_pass, skip):
        return iter(data)
    walk = iter(data)
    return walk if walk is data or not skip else islice(walk, skip, None)


def length(data: object) -> int | None:
    """Return the number of batches, None where it is unknown."""
    if not isinstance(data, Sized):
        return None
    try:
        return len(data)
    except TypeError:  # a DataLoader over an iterable dataset has __len__ but no length
        return None


def _read(saved: Mapping[str, Any]) -> tuple[int, int, int | None]:
    if "iteration" in saved and "epoch" in saved:
        batch = saved.get("batch")
        return int(saved["epoch"]), int(saved["iteration"]), None if batch is None else int(batch)
    if "iteration" not in saved and "epoch" not in saved:
        raise ValueError("Engine: the state lacks 'iteration' and 'epoch'; one of them is needed")
    epoch_length = saved["epoch_length"]
    if epoch_length is None:
        raise ValueError(
            "Engine: a state with only one of 'iteration' and 'epoch' needs 'epoch_length', "
            "which is None"
        )
    if "epoch" in saved:
        return int(saved["epoch"]), int(saved["epoch"]) * epoch_length, None
    epoch, batch = divmod(int(saved["iteration"]), epoch_length)
    if batch:
        return epoch + 1, int(saved["iteration"]), batch
    return epoch, int(saved["iteration"]), None
