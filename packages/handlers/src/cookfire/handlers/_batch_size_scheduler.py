"""A schedule of the batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch.utils.data import BatchSampler, DataLoader

import cookfire.distributed as idist
from cookfire.distributed import DataOrder
from cookfire.engine import Engine, Events
from cookfire.handlers._base_scheduler import AnyEvent, BaseParamScheduler

__all__ = ["BatchSizeScheduler"]


class BatchSizeScheduler(BaseParamScheduler):
    """Changes the batch size from epoch to epoch.

    Batch ``k`` of epoch ``e`` stays a pure function of (seed, ``e``, ``k``): the order of the
    samples does not depend on the batch size, only where it is cut does. A run that goes on in the
    middle of an epoch goes on with the size of that epoch, at the very next batch.

    An epoch stays one pass over the data: where the engine's ``epoch_length`` was the loader's
    length, it follows it.

    Args:
        dataloader: of ``cookfire.distributed.auto_dataloader``, whose batch size is that of the
            global batch over all processes; or one with torch's own ``BatchSampler``, whose batch
            size is that of each process.
        scheduler_fn: from the number of the epoch, from 0, to the batch size: a whole number that
            the number of processes divides, if it is that of the global batch.
        save_history: keep the sizes in ``engine.state.param_history["batch_size"]``.

    Raises:
        TypeError: ``dataloader`` is no ``DataLoader``, or ``scheduler_fn`` no function.
        ValueError: it has no batch sampler of these kinds; when called: the size is no such number.

    Example:
        >>> loader = auto_dataloader(range(100), batch_size=10, shuffle=True)
        >>> scheduler = BatchSizeScheduler(loader, lambda epoch: 10 * 2**epoch)
        >>> scheduler.attach(trainer)
        >>> trainer.run(loader, max_epochs=3).iteration  # 10 + 5 + 3
        18
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ("event_index", "history", "batch_size")

    def __init__(
        self,
        dataloader: DataLoader[Any],
        scheduler_fn: Callable[[int], int],
        save_history: bool = False,
    ) -> None:
        super().__init__("batch_size", save_history)
        if not isinstance(dataloader, DataLoader):
            raise TypeError(f"dataloader must be a DataLoader, got {type(dataloader).__name__}")
        sampler = dataloader.batch_sampler
        # The sampler behind batches that are shared out is the user's.
        sampler = getattr(sampler, "batches", sampler)
        if not isinstance(sampler, DataOrder | BatchSampler):
            raise ValueError(
                "dataloader: its batches must come from auto_dataloader or torch's BatchSampler, "
                f"got {type(sampler).__name__}"
            )
        if not callable(scheduler_fn):
            raise TypeError(f"scheduler_fn must be a function of the epoch, got {scheduler_fn!r}")
        self.dataloader = dataloader
        self.scheduler_fn = scheduler_fn
        self._sampler = sampler

    def attach(self, engine: Engine, event: AnyEvent = Events.EPOCH_STARTED) -> None:
        """Set the next size at ``event`` of ``engine``: EPOCH_STARTED, with a filter if you like.

        What is set during an epoch takes effect with the next pass over the data.
        """
        engine.add_event_handler(event, self)

    def get_param(self) -> int:
        """Return the size for ``event_index``."""
        return self.scheduler_fn(self.event_index)

    def state_dict(self) -> dict[str, Any]:
        """Return the count of calls, the history, and the size in force."""
        return {**super().state_dict(), "batch_size": self._sampler.batch_size}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned; the loader has that size at once."""
        super().load_state_dict(state_dict)
        self._sampler.batch_size = state_dict["batch_size"]

    @classmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """Return the first ``num_events`` sizes: ``[index, size]`` for each.

        Args:
            num_events: how many.
            scheduler_kwargs: ``scheduler_fn``.

        Raises:
            ValueError: there is no ``scheduler_fn``.

        Example:
            >>> BatchSizeScheduler.simulate_values(3, scheduler_fn=lambda epoch: 32 * 2**epoch)
            [[0, 32], [1, 64], [2, 128]]
        """
        if "scheduler_fn" not in scheduler_kwargs:
            raise ValueError("simulate_values needs scheduler_fn=, a function of the epoch")
        return [[index, scheduler_kwargs["scheduler_fn"](index)] for index in range(num_events)]

    def _advance(self, engine: Engine | None) -> None:
        if engine is not None and engine.state.dataloader is not self.dataloader:
            raise ValueError(
                "the engine runs on other data than the dataloader whose batch size is scheduled; "
                "give BatchSizeScheduler the loader that run() gets"
            )
        size = self.get_param()
        self._check(size)
        length = len(self.dataloader)
        self._sampler.batch_size = size
        self.event_index += 1
        if (
            engine is not None
            and engine.last_event_name is Events.EPOCH_STARTED
            and engine.state.epoch_length == length
        ):
            engine.state.epoch_length = len(self.dataloader)

    def _values(self) -> int:
        return self._sampler.batch_size

    def _check(self, size: Any) -> None:
        is_torchs = isinstance(self.dataloader.batch_sampler, BatchSampler)  # of each process
        world_size = 1 if is_torchs else idist.get_world_size()
        if type(size) is not int or size < 1 or size % world_size:
            raise ValueError(
                f"scheduler_fn({self.event_index}) returned {size!r}: expected a batch size, a "
                f"positive whole number"
                + (f" that {world_size} processes can share equally" if world_size > 1 else "")
            )
