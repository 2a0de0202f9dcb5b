"""For metrics that keep their state in plain attributes, as in pytorch-ignite.

A metric with declared states (:class:`~cookfire.metrics.metric.MetricState`) needs none of this.
"""

from __future__ import annotations

import copy
import functools
import math
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

import cookfire.distributed as idist

if TYPE_CHECKING:
    from cookfire.metrics.metric import Metric

P = ParamSpec("P")
M = TypeVar("M", bound="Metric")
R = TypeVar("R")

_OPERATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "SUM": sum,
    "MIN": min,
    "MAX": max,
    "PRODUCT": math.prod,
}
_INT, _FLOAT, _TENSOR = range(3)
_KINDS = ("an int", "a float", "a tensor")
_MISSING = object()


def sync_all_reduce(
    *attrs: str,
) -> Callable[[Callable[Concatenate[M, P], R]], Callable[Concatenate[M, P], R]]:
    """Let a metric's ``compute`` see attributes combined over all ranks.

    Nothing is written into the metric: ``compute`` runs on a shallow copy that has the combined
    values. Whatever else it sets stays on the metric.

    Args:
        *attrs: names of attributes that are numbers or tensors (of one shape and dtype on all
            ranks), each with its operation if that is not a sum: ``"_sum"``, ``"_largest:MAX"``;
            ``SUM``, ``MIN``, ``MAX`` or ``PRODUCT``.

    Raises:
        ValueError: an unknown operation; when computing, a missing attribute, or one that differs
            between ranks in kind or size.
        TypeError: when computing, an attribute that is neither number nor tensor.

    Example:
        >>> class Mean(Metric):
        ...     @reinit__is_reduced
        ...     def reset(self):
        ...         self._sum, self._count = torch.tensor(0.0), 0
        ...     @reinit__is_reduced
        ...     def update(self, output):
        ...         self._sum += output.sum()
        ...         self._count += output.numel()
        ...     @sync_all_reduce("_sum", "_count:SUM")
        ...     def compute(self):
        ...         return self._sum.item() / self._count
    """
    operations: dict[str, str] = {}
    for attr in attrs:
        name, _, operation = attr.partition(":")
        operations[name] = operation or "SUM"
        if operations[name] not in _OPERATIONS:
            raise ValueError(
                f"sync_all_reduce({attr!r}): unknown operation {operation!r}; "
                f"expected one of {', '.join(_OPERATIONS)}"
            )

    def decorate(compute: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
        @functools.wraps(compute)
        def synchronised(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
            # Declared states are combined already.
            named = {name: op for name, op in operations.items() if name not in self._states}
            values = {name: _value(self, name) for name in named}
            if idist.get_world_size() == 1 or self._store.alone:
                return compute(self, *args, **kwargs)
            combined = _combine(type(self).__name__, values, named)
            before = vars(self).copy()
            view = copy.copy(self)
            vars(view).update(combined, _store=self._store)
            result = compute(view, *args, **kwargs)
            for name, value in vars(view).items():
                if name not in combined and before.get(name, _MISSING) is not value:
                    setattr(self, name, value)
            return result

        return synchronised

    return decorate


def reinit__is_reduced(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """Let ``reset`` and ``update`` forget a result that ``compute`` kept in ``self._result``."""

    @functools.wraps(method)
    def forgetful(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result = method(self, *args, **kwargs)
        if "_result" in vars(self):
            vars(self)["_result"] = None
        return result

    return forgetful


def _value(metric: Metric, name: str) -> Tensor | float:
    value = vars(metric).get(name, _MISSING)
    if value is _MISSING:
        raise ValueError(f"{type(metric).__name__} has no attribute {name!r} to synchronise")
    if not isinstance(value, Tensor | int | float):
        raise TypeError(
            f"{type(metric).__name__}.{name} can't be synchronised: a number or a tensor is "
            f"expected, got {value!r} ({type(value).__name__})"
        )
    return value


def _combine(
    owner: str, values: dict[str, Tensor | float], operations: dict[str, str]
) -> dict[str, Any]:
    """Combine numbers in one exchange, and tensors in one more per operation and dtype."""
    if not values:
        return {}
    words = torch.tensor([_describe(value) for value in values.values()], device=idist.device())
    shapes = [words.shape] * idist.get_world_size()
    everyone = torch.stack(idist.all_gather_tensors_with_shapes(words, shapes), 1).tolist()
    combined: dict[str, Any] = {}
    buckets: dict[tuple[str, torch.dtype], dict[str, Tensor]] = {}
    for (name, value), said in zip(values.items(), everyone, strict=True):
        operation = operations[name]
        if any(kind == _TENSOR for kind, _ in said):
            _check_alike(f"{owner}.{name}", said)
        if isinstance(value, Tensor):
            buckets.setdefault((operation, value.dtype), {})[name] = value.detach()
        else:
            combined[name] = _OPERATIONS[operation]([_number(*row) for row in said])
    for (operation, _), bucket in buckets.items():
        flat = torch.cat([value.reshape(-1).to(idist.device()) for value in bucket.values()])
        pieces = idist.all_reduce(flat, operation).split_with_sizes(
            [value.numel() for value in bucket.values()]
        )
        for (name, value), piece in zip(bucket.items(), pieces, strict=True):
            combined[name] = piece.reshape(value.shape).to(value.device)
    return combined


def _describe(value: Tensor | float) -> tuple[int, int]:
    if isinstance(value, Tensor):
        return _TENSOR, value.numel()
    if isinstance(value, int):
        return _INT, value
    return _FLOAT, struct.unpack("<q", struct.pack("<d", value))[0]


def _number(kind: int, bits: int) -> float:
    if kind == _INT:
        return bits
    number: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return number


def _check_alike(owner: str, said: Sequence[Sequence[int]]) -> None:
    kinds = {_KINDS[kind] + f" of {size} elements" * (kind == _TENSOR) for kind, size in said}
    if len(kinds) > 1:
        raise ValueError(
            f"{owner} differs between ranks ({' and '.join(sorted(kinds))}): "
            "give it its final kind and size in reset()"
        )
