"""Code that runs on one process only, or on one process first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from ._checks import check_whole
from ._collectives import barrier
from ._group import get_local_rank, get_nproc_per_node, get_rank, get_world_size

P = ParamSpec("P")
R = TypeVar("R")


def one_rank_only(
    rank: int = 0, with_barrier: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """Decorate a function so that only process ``rank`` runs it; the others return None.

    Args:
        rank: Which process. Where there are fewer processes, none runs the function.
        with_barrier: All processes wait until ``rank`` is done (or has failed).

    Raises:
        TypeError: ``rank`` is no whole number, as of ``@one_rank_only`` without parentheses.

    Example:
        >>> @one_rank_only()
        ... def report(text):
        ...     print(text)
        >>> report("once, however many processes there are")
        once, however many processes there are
    """
    check_whole("one_rank_only: rank", rank, 0)

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
            try:
                return function(*args, **kwargs) if get_rank() == rank else None
            finally:
                if with_barrier:
                    barrier()

        return guarded

    return decorate


@contextmanager
def one_rank_first(rank: int = 0, local: bool = False) -> Iterator[None]:
    """Let process ``rank`` run the body first and the others after it, as for a download.

    Args:
        rank: Which process.
        local: ``rank`` is a local rank: one process of each node goes first.

    Raises:
        ValueError: There is no such rank.

    Example:
        >>> with one_rank_first():
        ...     data = "downloaded by rank 0, then found by the others"
    """
    check_whole("one_rank_first: rank", rank, 0)
    mine, count = (
        (get_local_rank(), get_nproc_per_node()) if local else (get_rank(), get_world_size())
    )
    if not 0 <= rank < count:
        raise ValueError(f"one_rank_first: rank {rank}: expected a rank from 0 to {count - 1}")
    first = mine == rank
    if not first:
        barrier()
    try:
        yield
    finally:
        # If the first one fails, the others must not wait for it for ever.
        if first:
            barrier()
