"""Combining the states of many metrics over all ranks in as few collectives as can be.

One exchange of a list of integers, the message, carries whatever is small, and what a rank without
data can't know: shapes and sizes. Then come one ``all_reduce`` per operation and dtype for
what is large, and one exchange of bytes for all histories. What nobody needs is left out: counts
and sums alone are one collective, whatever their number and their dtypes.

Nothing is written into the metrics: the values come back in fresh tensors.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

import cookfire.distributed as idist
from cookfire.metrics._parts import Bucket, History, Large, Part, Small, Told, make_part
from cookfire.metrics._state import MetricState, Value
from cookfire.metrics._store import Store, Values

if TYPE_CHECKING:
    from cookfire.metrics.metric import Metric

_UPDATES = MetricState(torch.int64)
_FLAG = 2**40


class Combined:
    """While it is entered, the metrics' states read as combined over all ranks.

    Metrics for which somebody has done so already are left alone, so that an engine, or a metric
    composed of others, combines all of its parts at once.

    Args:
        metrics: whose states are combined; all ranks must give the same.
        alone: read this process's own values instead, without a collective.
    """

    def __init__(self, metrics: Iterable[Metric], *, alone: bool = False) -> None:
        self._metrics = [metric for metric in metrics if metric._store.reduced is None]
        self._alone = alone

    def __enter__(self) -> None:
        found: dict[Store, Values] = {}
        if not self._alone and idist.get_world_size() > 1:
            found = _exchange_groups([metric for metric in self._metrics if metric._states])
        for store in {metric._store for metric in self._metrics}:
            local = store.local
            store.reduced = found.get(store) or Values(dict(local.values), local.updates)
            store.alone = self._alone

    def __exit__(self, *error: object) -> None:
        for metric in self._metrics:
            metric._store.reduced = None
            metric._store.alone = False


def combining(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Let a ``compute`` see the state of all ranks."""

    @functools.wraps(formula)
    def compute(self: Metric, *args: Any, **kwargs: Any) -> Any:
        if self._computing:  # called by a subclass's formula
            return formula(self, *args, **kwargs)
        if self._store.reduced is None:
            with Combined(self._family()):
                return compute(self, *args, **kwargs)
        self._computing = True
        try:
            self._check_computable()
            self._check_input()
            return self._finish(formula(self, *args, **kwargs))
        finally:
            self._computing = False

    return compute


def _exchange_groups(metrics: Sequence[Metric]) -> dict[Store, Values]:
    """Return the values of each store over all ranks, in fresh tensors.

    Metrics that share a store are exchanged by it, if they share it on all ranks.

    Raises:
        ValueError: the ranks hold what can't be combined; raised on all of them.
    """
    groups: dict[Store, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault(metric._shared or metric._store, []).append(metric)
    apart = [len({metric._store for metric in group}) > 1 for group in groups.values()]
    found, apart = _exchange([group[0] for group in groups.values()], apart)
    if not any(apart):
        return found
    # Somewhere one of a group was updated or reset by itself.
    alone = [m for group, left in zip(groups.values(), apart, strict=True) if left for m in group]
    for metric in alone:
        metric._leave_others()
    return found | _exchange(alone, [False] * len(alone))[0]


def _exchange(
    metrics: Sequence[Metric], flags: Sequence[bool]
) -> tuple[dict[Store, Values], list[bool]]:
    """Return the metrics' values, and which of the flags are set on any rank."""
    if not metrics:
        return {}, []
    # The flag goes along with the number of updates, which is smaller than that.
    numbers = [metric._store.local.updates for metric in metrics]
    numbers = [number + _FLAG * flag for number, flag in zip(numbers, flags, strict=True)]
    updates = [
        Small(metric, _UPDATES, number, ()) for metric, number in zip(metrics, numbers, strict=True)
    ]
    parts = [
        {name: make_part(metric, metric._states[name]) for name in metric._states_in_use}
        for metric in metrics
    ]
    _run([*updates, *(part for of_metric in parts for part in of_metric.values())])
    results: dict[Store, Values] = {}
    flagged: list[bool] = []
    for metric, count, of_metric in zip(metrics, updates, parts, strict=True):
        values = {name: _at_home(metric, part.result) for name, part in of_metric.items()}
        assert isinstance(count.result, int | Tensor)
        ranks, number = divmod(int(count.result), _FLAG)
        flagged.append(ranks > 0)
        results[metric._store] = Values(dict.fromkeys(metric._states) | values, number)
    return results, flagged


def _run(parts: Sequence[Large | History]) -> None:
    """Run the collectives; all ranks run the same, whatever data they have."""
    device = idist.device()
    histories = [part for part in parts if isinstance(part, History)]
    tensors = [part for part in parts if isinstance(part, Large)]
    small = [part for part in tensors if isinstance(part, Small)]
    told = [part for part in tensors if isinstance(part, Told)]
    large = [part for part in tensors if not isinstance(part, Small | Told)]
    carried = {part.bucket for part in large}
    if histories or told or any(part.bucket not in carried for part in small):
        _tell([*small, *told, *histories], device)
        large += [part for part in told if part.follows]
    else:
        large += small  # the collectives that there are anyway take them along
    _reduce(large, device)
    _gather([part for part in histories if any(part.rows)], device)


def _tell(parts: Sequence[Part], device: torch.device) -> None:
    """Exchange the message."""
    words = [word for part in parts for word in part.write()]
    message = torch.zeros(len(words) + sum(part.room for part in parts), dtype=torch.int64)
    message[: len(words)] = torch.frombuffer(array("q", words), dtype=torch.int64)
    end = len(words)
    for part in parts:
        if part.room:
            part.fill(message, end)
            end += part.room
    message = message.to(device)
    everyone = message.new_empty(idist.get_world_size() * end)
    dist.all_gather_into_tensor(everyone, message)
    table = everyone.view(-1, end).cpu()
    heads: list[list[int]] = table[:, : len(words)].tolist()
    begin, end = 0, len(words)
    for part in parts:
        part.read([row[begin : begin + part.head] for row in heads])
        begin += part.head
        if part.room:
            part.take(table, end)
            end += part.room


def _reduce(parts: Sequence[Large], device: torch.device) -> None:
    """Run one ``all_reduce`` per operation and dtype."""
    buckets: dict[Bucket, list[Large]] = {}
    for part in parts:
        buckets.setdefault(part.bucket, []).append(part)
    for (operation, dtype), bucket in buckets.items():
        tensors = [part.tensor for part in bucket]
        flat = torch.cat([tensor.reshape(-1).to(device, dtype) for tensor in tensors])
        pieces = idist.all_reduce(flat, operation).split_with_sizes(
            [tensor.numel() for tensor in tensors]
        )
        for part, tensor, piece in zip(bucket, tensors, pieces, strict=True):
            part.settle(piece.reshape(tensor.shape))


def _gather(parts: Sequence[History], device: torch.device) -> None:
    """Exchange all histories at once."""
    if not parts:
        return
    mine = torch.cat([part.pack().to(device) for part in parts])
    ranks = range(idist.get_world_size())
    sizes = [[part.rows[rank] * part.row_bytes for part in parts] for rank in ranks]
    everyone = idist.all_gather_tensors_with_shapes(mine, [(sum(row),) for row in sizes])
    pieces = [data.split_with_sizes(row) for data, row in zip(everyone, sizes, strict=True)]
    for part, of_ranks in zip(parts, zip(*pieces, strict=True), strict=True):
        part.unpack(of_ranks)


def _at_home(metric: Metric, value: Value) -> Value:
    """Return what came from the ranks where the metric's own values live, if it has some."""
    if not isinstance(value, Tensor | list):
        return value
    home = metric._device
    if home is None:
        tensors = _tensors(metric._store.local.values.values())
        home = next((tensor.device for tensor in tensors), torch.device("cpu"))
    return value.to(home) if isinstance(value, Tensor) else [rows.to(home) for rows in value]


def _tensors(values: Iterable[Value]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list):
            yield from value
