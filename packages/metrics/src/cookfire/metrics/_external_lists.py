"""Lists in torchmetrics' states, of which a rank without data knows neither dtype nor shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import cookfire.distributed as idist

Described = tuple[str, list[int]] | None


@contextmanager
def lists_filled(metric: Any) -> Iterator[None]:
    """Let a rank without data have lists of no rows, of the dtype and shape that other ranks have.

    torchmetrics gathers a list's rows from all ranks; if dtypes or dimensions differ, processes
    abort. A collective, for which all ranks must come.

    Raises:
        ValueError: a list whose elements are gathered one by one, so that ranks must have equally
            many; raised on all ranks.
    """
    lists = list(_find_lists(metric))
    everyone = idist.all_gather([_describe(getattr(owner, name)) for owner, name in lists])
    filled: list[tuple[Any, str]] = []
    for (owner, name), described in zip(lists, zip(*everyone, strict=True), strict=True):
        known = next((rows for rows in described if rows is not None), None)
        if known is None or None not in described:
            continue
        if getattr(owner._reductions[name], "__name__", "") != "dim_zero_cat":
            raise ValueError(
                f"{type(owner).__name__} gathers its list {name!r} element by element, for which "
                f"every rank must have data; rank {described.index(None)} has none"
            )
        if not getattr(owner, name):
            dtype = getattr(torch, known[0])
            empty = torch.empty((0, *known[1]), dtype=dtype, device=owner.device)
            setattr(owner, name, [empty])
            filled.append((owner, name))
    try:
        yield
    finally:
        for owner, name in filled:
            setattr(owner, name, [])


def _find_lists(metric: Any) -> Iterator[tuple[Any, str]]:
    """Iterate over the states that are lists, in the same order on all ranks."""
    for owner in metric.modules() if isinstance(metric, nn.Module) else ():
        for name, default in getattr(owner, "_defaults", {}).items():
            if isinstance(default, list):
                yield owner, name


def _describe(rows: Any) -> Described:
    """Return dtype and shape of a row, None if there is none."""
    first = rows[0] if isinstance(rows, list) and rows else rows
    if not isinstance(first, Tensor):
        return None
    return str(first.dtype).removeprefix("torch."), list(first.shape[1:])
