"""What the package says aloud: once, on rank 0, and visible without any configuration."""

from __future__ import annotations

import logging

from ._group import (
    backend,
    device,
    get_rank,
    get_world_size,
    hostname,
    model_name,
    place,
)

_PACKAGE = __package__ or "cookfire.distributed"
_FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"


def announce(name: str, message: str, level: int = logging.INFO) -> None:
    """Log ``message`` on rank 0 under the logger ``name``.

    A program that configured logging decides where the line goes and whether it is shown. Where
    none did, the line goes to stderr, since a launcher that says nothing looks like one that
    hangs; ``logging.getLogger("cookfire").setLevel(logging.WARNING)`` silences it.
    """
    if get_rank() != 0:
        return
    logger = logging.getLogger(name)
    if logger.hasHandlers():
        logger.log(level, message)
    elif level >= _chosen_level(logger):
        handler = logging.StreamHandler()  # made anew, so that it writes to the stderr of now
        handler.setFormatter(logging.Formatter(_FORMAT))
        handler.handle(logger.makeRecord(name, level, __file__, 0, message, (), None))


def show_config() -> None:
    """Log this process's place, backend and device, on rank 0."""
    here = place()
    for line in (
        f"distributed configuration: {model_name()}",
        f"backend: {backend()}",
        f"device: {device()}",
        f"hostname: {hostname()}",
        f"world size: {get_world_size()}",
        f"rank: {get_rank()}",
        f"local rank: {here.local_rank}",
        f"num processes per_node: {here.nproc_per_node}",
        f"num nodes: {here.nnodes}",
        f"node rank: {here.node_rank}",
    ):
        announce(f"{_PACKAGE}.utils", line)


def _chosen_level(logger: logging.Logger) -> int:
    """The level that somebody set for us; the root's default of WARNING was not meant for us."""
    current: logging.Logger | None = logger
    while current is not None and current.parent is not None:
        if current.level:
            return current.level
        current = current.parent
    return logging.INFO
