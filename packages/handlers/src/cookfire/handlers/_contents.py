"""What may be in a checkpoint: what ``weights_only`` loading builds again, on any machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch

from cookfire.distributed import xla

__all__ = ["plain", "refused", "to_host"]


def to_host(state: Any) -> Any:
    """Return ``state`` with XLA's tensors in main memory, so that it loads where there is no XLA.

    Other devices' tensors stay: ``map_location`` finds them a place.
    """
    if not xla.in_use():
        return state
    moved: dict[int, torch.Tensor] = {}

    def move(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.device.type != "xla":
            return value
        if not moved:
            xla.sync()  # one graph for all, in place of one for each
        if id(value) not in moved:  # one that occurs twice is kept once
            moved[id(value)] = value.detach().cpu()
        return moved[id(value)]

    return _replace_in(state, move)


def plain(state: Any) -> Any:
    """Return ``state`` as files have it: in main memory, numpy's scalars as Python's numbers."""
    return _replace_in(to_host(state), _plain_number)


def refused(state: object) -> tuple[str, type]:
    """Return where ``state`` holds what weights-only loading refuses, and of which type that is."""
    return next(_not_plain(state, ""), ("", type(state)))


def _plain_number(value: Any) -> Any:
    return value.item() if isinstance(value, numpy.generic) else value


def _replace_in(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Return ``value`` with other leaves; what needs no other is returned as it is."""
    if isinstance(value, dict):
        changed = {
            key: new for key, old in value.items() if (new := _replace_in(old, replace)) is not old
        }
        if changed:
            value = copy.copy(value)  # keeps the kind of dict, and with it the file's bytes
            value.update(changed)
        return value
    if type(value) in (list, tuple):
        items = [_replace_in(item, replace) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)
    return replace(value)


_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, bytearray,
    torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device,
)  # fmt: skip


def _not_plain(value: Any, where: str) -> Iterator[tuple[str, type]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_plain(key, f"the key {key!r} of {where or 'the state'}")
            yield from _not_plain(item, f"{where}.{key}" if where else str(key))
    elif type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            yield from _not_plain(item, f"{where}[{index}]")
    elif type(value) not in _PLAIN:
        yield where, type(value)
