"""Images that can't be decoded: counted, named, and never a crash after hours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cookfire import distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from .sources import UNREADABLE, Source

SHOWN = 5  # names in a message
logger = logging.getLogger("cookfire.handlers.recipe")


class CorruptImages:
    """Notes which images of a data set could not be decoded: a handler, whose state is kept.

    Args:
        sources: the data set's images, by split.
        say: what to do with a line of text; it is called by the first process.
    """

    def __init__(
        self, sources: Mapping[str, Source], say: Callable[[str], object] = logger.warning
    ) -> None:
        self._sources = sources
        self._say = say
        self._said = dict.fromkeys(sources, 0)
        self._found: dict[str, set[int]] = {split: set() for split in sources}

    def attach(self, engine: Engine, split: str) -> None:
        """Watch the batches of an engine that runs over the images of ``split``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look, split)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._exchange, split)

    def names(self, split: str) -> list[str]:
        """Return the corrupt images of all processes, as of the last epoch's end."""
        return [self._sources[split].name(index) for index in sorted(self._found[split])]

    def table(self) -> str:
        """Return a line for each, below a head."""
        names = [name for split in self._sources for name in self.names(split)]
        return "".join(f"{name}\n" for name in ["corrupt", *names])

    def state_dict(self) -> dict[str, Any]:
        """Return what was found."""
        return {split: sorted(found) for split, found in self._found.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with what :meth:`state_dict` returned."""
        self._found = {split: set(found) for split, found in state_dict.items()}
        self._said = {split: len(found) for split, found in self._found.items()}

    def _look(self, engine: Engine, split: str) -> None:
        # Those of a batch are on the host; most batches have none.
        if len(corrupt := engine.state.batch.corrupt):
            found = self._found[split]
            new = [index for index in corrupt.tolist() if index not in found]
            found.update(new)
            for index in new:
                try:
                    with self._sources[split].open(index) as image:
                        image.load()
                except UNREADABLE as error:
                    name = self._sources[split].name(index)
                    logger.warning("skipped %s: %s", name, " ".join(str(error).split()))

    def _exchange(self, _: Engine, split: str) -> None:
        for found in idist.all_gather(sorted(self._found[split])):
            self._found[split].update(found)
        if idist.get_rank() == 0 and len(self._found[split]) > self._said[split]:
            self._said[split] = len(self._found[split])
            self._say(f"{split}: {_count(self.names(split))}")


def refuse_corrupt(sources: Mapping[str, Source]) -> None:
    """Decode all images, shared by all processes.

    Raises:
        RecipeError: there are corrupt ones; names them.
    """
    names = []
    for source in sources.values():

        def look(index: int, source: Source = source) -> str | None:
            try:
                with source.open(index) as image:
                    image.load()
            except UNREADABLE:
                return source.name(index)
            return None

        mine = range(idist.get_rank(), len(source.labels), idist.get_world_size())
        with ThreadPoolExecutor() as pool:
            found = [name for name in pool.map(look, mine) if name is not None]
        names += sorted(name for part in idist.all_gather(found) for name in part)
    if names:
        raise recipe.RecipeError(f"{_count(names)}; replace them, or train with `corrupt: skip`")


def _count(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    images = "image" if len(names) == 1 else "images"
    return f"{len(names)} corrupt {images}: {', '.join(names[:SHOWN])}{more}"
