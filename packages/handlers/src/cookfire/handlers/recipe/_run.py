"""What a recipe's function is given beside its parameters: where to read, write and go on."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cookfire import distributed as idist
from cookfire.engine import Engine
from cookfire.handlers._contents import to_host
from cookfire.handlers._files import load_file, write_atomically
from cookfire.handlers._keeping import position_of
from cookfire.handlers._run_state import RunState
from cookfire.handlers.mlflow_logger import MLflowLogger
from cookfire.handlers.recipe._errors import RecipeError, show_path
from cookfire.handlers.recipe._records import write_record

logger = logging.getLogger("cookfire.handlers.recipe")


def _nothing() -> None:
    """Stand for what nobody asked to be called; unlike a lambda it can be pickled."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The folders of one run of a profile; ``recipe.main`` makes it, a test may make its own.

    Example:
        >>> run = Run("tiny", outputs=folder, logs=folder / "logs", data=Path("data/tiny_mnist"))
    """

    profile: str
    """Name of the profile that runs."""

    outputs: Path
    """Where this run writes its outs; for a training a staging folder, published at the end."""

    logs: Path
    """For what is not an out: TensorBoard events, rotating checkpoints, the manifest."""

    data: Path
    """The data set's folder or file."""

    states: Path | None = None
    """Where ``keep`` keeps what an interrupted run needs to go on; None: nothing is kept."""

    save_every: int = 500
    """Iterations between two files there."""

    begins: Callable[[], None] = dataclasses.field(default=_nothing, repr=False)
    """Called by ``keep``: all that could be missing is there, and the training begins."""

    trackers: list[MLflowLogger] = dataclasses.field(default_factory=list, repr=False)
    """Those that ``keep`` was given; the manifest is logged into their runs at the end."""

    def keep(self, trainer: Engine, **objects: object) -> bool:
        """Go on with an interrupted run if there is one, and keep this one resumable.

        :meth:`~cookfire.handlers.RunState.keep` in the run's folder: call it when everything is
        attached, right before ``trainer.run``.

        Args:
            trainer: the engine whose position counts; handlers with a state that are attached to it
                are found by themselves.
            objects: by name, everything else with ``state_dict`` and ``load_state_dict`` that the
                run changes: model, optimizer, schedules, scaler, loggers.

        Returns:
            Whether an interrupted run goes on.

        Raises:
            RecipeError: the interrupted run's state does not fit these objects.

        Example:
            >>> run.keep(trainer, model=model, optimizer=optimizer)
            False
            >>> trainer.run(loader, max_epochs=config.epochs)
        """
        self.begins()
        self.trackers.extend(value for value in objects.values() if isinstance(value, MLflowLogger))
        if self.states is None:
            return False
        try:
            resumed = RunState(trainer, **objects).keep(self.states, every=self.save_every)
        except ValueError as error:
            raise RecipeError(
                f"{show_path(self.states)}: the interrupted run does not fit this program "
                f"({error}); delete that folder to start afresh"
            ) from error
        if resumed:
            logger.info("resuming at %s", position_of(trainer))
        return resumed

    def load(self, name: str) -> Any:
        """Return what an earlier run wrote into the out ``name`` with ``save``, on the CPU.

        Raises:
            RecipeError: there is no such file, or it is a dict with other keys than names.
            DamagedCheckpoint: it is not what was written.

        Example:
            >>> model.load_state_dict(run.load("model.pt"))
        """
        path = self.outputs / name
        if not path.exists():
            raise RecipeError(f"{show_path(path)}: no such file; train {self.profile!r} first")
        state = load_file(path, map_location="cpu")
        if isinstance(state, dict) and (odd := [key for key in state if not isinstance(key, str)]):
            raise RecipeError(f"{show_path(path)}: no weights: {odd[0]!r:.40} is no name")
        return state

    def save(self, name: str, state: object) -> None:
        """Write the out ``name`` with ``torch.save``, atomically, by the first process only.

        Equal states give equal bytes, whatever the name.

        Example:
            >>> run.save("model.pt", model.state_dict())
        """
        self.write(name, lambda file: torch.save(to_host(state), file))

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Write the out ``name`` atomically, by the first process only.

        Example:
            >>> run.write("predictions.png", lambda file: figure.savefig(file, format="png"))
        """
        if idist.get_rank() == 0:
            path = self.outputs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, write)

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write ``metrics.json``: sorted keys, atomically, by the first process only.

        Raises:
            RecipeError: a value is not finite, which no JSON and no baseline can hold.
        """
        numbers = {name: float(value) for name, value in metrics.items()}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise RecipeError(f"{show_path(self.outputs / 'metrics.json')}: {name} is {value}")
        if idist.get_rank() == 0:
            write_record(self.outputs / "metrics.json", numbers)
