"""What an epoch put out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cookfire.engine import Engine, Events
from cookfire.handlers._checks import check_free_in_state

__all__ = ["EpochOutputStore"]


class EpochOutputStore:
    """Keeps the outputs of all iterations of an epoch.

    A run that is saved in the middle of an epoch takes them with it, so they should be tensors,
    numbers, strings, and lists and dicts of these. Outputs that hang on a graph keep it in memory:
    detach them in ``output_transform``.

    Args:
        output_transform: takes ``engine.state.output``, returns what to keep.

    Attributes:
        data: what was kept since the epoch began.

    Example:
        >>> store = EpochOutputStore(output_transform=lambda loss: 2 * loss)
        >>> store.attach(trainer, "losses")
        >>> trainer.run([0, 1, 2]).losses
        [1.0, 1.0, 1.0]
    """

    def __init__(self, output_transform: Callable[[Any], Any] = lambda x: x) -> None:
        if not callable(output_transform):
            raise TypeError(f"output_transform must be a function, got {output_transform!r}")
        self.output_transform = output_transform
        self.data: list[Any] = []
        self.name: str | None = None

    def attach(self, engine: Engine, name: str | None = None) -> None:
        """Keep the outputs of ``engine``.

        Args:
            engine: whose outputs.
            name: when an epoch is complete they are put into ``engine.state`` under this name.

        Raises:
            ValueError: it is the name of one of the state's own attributes.
        """
        if name is not None:
            check_free_in_state("name", name)
        self.name = name
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        if name is not None:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.store)

    def reset(self) -> None:
        """Forget what was kept."""
        self.data = []

    def update(self, engine: Engine) -> None:
        """Keep an output."""
        self.data.append(self.output_transform(engine.state.output))

    def store(self, engine: Engine) -> None:
        """Put what was kept into the engine's state, if it was attached with a name."""
        if self.name is not None:
            setattr(engine.state, self.name, self.data)

    def state_dict(self) -> dict[str, Any]:
        """Return what was kept."""
        return {"data": list(self.data)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with what :meth:`state_dict` returned."""
        self.data = list(state_dict["data"])

    def _begin(self, engine: Engine) -> None:
        if engine.epoch_iteration == 0:  # else the run goes on in the middle of the epoch
            self.reset()
