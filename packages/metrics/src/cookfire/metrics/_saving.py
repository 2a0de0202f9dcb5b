"""Metrics' states as plain dicts, saved by any number of ranks and loaded by any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import cookfire.distributed as idist
from cookfire.metrics._state import MetricState, Pieces, Value
from cookfire.metrics._store import Store, Values

if TYPE_CHECKING:
    from cookfire.metrics.metric import Metric

Record = dict[str, Any]
_KEYS = ("kinds", "settings", "stores", "ranks")


def save_metrics(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return what every rank accumulated: a collective in a process group.

    Metrics that share a store have one record.
    """
    first = {metric._store: metric for metric in reversed(metrics)}
    number = {store: index for index, store in enumerate(first)}
    stores = [number[metric._store] for metric in metrics]
    ranks = idist.all_gather([stores, [_record(metric) for metric in first.values()]])
    return {
        "kinds": [type(metric).__name__ for metric in metrics],
        "settings": [_settings(metric) for metric in metrics],
        "stores": [stores for stores, _ in ranks],
        "ranks": [records for _, records in ranks],
    }


def load_metrics(metrics: Sequence[Metric], state_dict: Mapping[str, Any]) -> None:
    """Give metrics back what they, or others of their kind, accumulated.

    Raises:
        TypeError: no mapping.
        ValueError: not saved by such metrics.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"a metric's state is a mapping, got {type(state_dict).__name__}")
    if any(key not in state_dict for key in _KEYS):
        raise ValueError(
            f"not a metric's state: expected the keys {', '.join(map(repr, _KEYS))}, got "
            f"{', '.join(map(repr, state_dict))}"
        )
    ranks: list[list[Record]] = state_dict["ranks"]
    kinds: list[str] = state_dict["kinds"]
    expected = [type(metric).__name__ for metric in metrics]
    if kinds != expected:
        raise ValueError(
            f"the state was saved by {', '.join(kinds)}; it can't be loaded into "
            f"{', '.join(expected)}"
        )
    for metric, kind, saved in zip(metrics, kinds, state_dict["settings"], strict=True):
        for name, value in _settings(metric).items():
            if saved.get(name) != value:
                raise ValueError(
                    f"the state was saved by a {kind} with {name.lstrip('_')} {saved.get(name)}; "
                    f"it can't be loaded into one with {value}"
                )
    # One record of each rank for each metric; several may share what was saved, and a store.
    sources = list(zip(*state_dict["stores"], strict=True))
    loaded: dict[Store, tuple[int, ...]] = {}
    for metric, source in zip(metrics, sources, strict=True):
        if loaded.get(metric._store, source) != source:
            metric._store = metric._store.copy()
        if metric._store not in loaded:
            loaded[metric._store] = source
            _load(metric, [records[i] for records, i in zip(ranks, source, strict=True)])


def _settings(metric: Metric) -> dict[str, Any]:
    values = {name: getattr(metric, name) for name in metric._settings}
    return {
        name: value.tolist() if isinstance(value, Tensor) else value
        for name, value in values.items()
    }


def _record(metric: Metric) -> Record:
    local = metric._store.local
    states = {name: _saved(local.values[name]) for name in metric._states}
    attributes = {name: _saved(value) for name, value in metric._attributes().items()}
    return {
        "wanted": sorted(metric._store.wanted, key=str),
        "updates": local.updates,
        "states": states,
        "attributes": attributes,
    }


def _load(metric: Metric, records: Sequence[Record]) -> None:
    rank, world = idist.get_rank(), idist.get_world_size()
    name = type(metric).__name__
    for record in records:
        if set(record["states"]) != set(metric._states):
            raise ValueError(
                f"{name} has the states {', '.join(metric._states)}; saved were "
                f"{', '.join(record['states'])}"
            )
    store = metric._store
    if len(records) == world:
        own = records[rank]
        store.local = Values(
            {key: _loaded(value, metric) for key, value in own["states"].items()}, own["updates"]
        )
        attributes = own["attributes"].items()
        metric._set_attributes({key: _loaded(value, metric) for key, value in attributes})
    elif any(record["attributes"] for record in records):
        raise ValueError(
            f"{name} keeps its state in plain attributes, which {len(records)} processes saved "
            f"and {world} can't share: load it in as many, or declare its states"
        )
    else:
        values = {
            key: _share(
                state, [_loaded(record["states"][key], metric) for record in records], metric
            )
            for key, state in metric._states.items()
        }
        updates = sum(record["updates"] for record in records)
        store.local = Values(values, updates if rank == 0 else 0)
    # What was counted for others that shared it is counted on.
    store.wanted = store.wanted.union(*(record["wanted"] for record in records))
    store.restored = True


def _share(state: MetricState, saved: Sequence[Value], metric: Metric) -> Value:
    """Return this rank's part of what other ranks had: together the parts make the same whole."""
    rank, world = idist.get_rank(), idist.get_world_size()
    known = [value for value in saved if value is not None]
    if state.reduction == "cat":
        rows = [row for value in known for row in (value if isinstance(value, list) else [])]
        part = torch.cat(rows).tensor_split(world)[rank] if rows else None
        return None if part is None or not len(part) else [part]
    if state.reduction == "same":
        for value in known:
            state.merge(known[0], state.to_tensor(value, metric), metric)
        return known[0] if known else None
    if state.reduction == "mean":
        tensors = [state.to_tensor(value, metric) for value in known]
        return torch.stack(tensors).mean(0) if tensors else None
    merged: Value = None
    for value in known if rank == 0 else ():
        merged = state.merge(merged, state.to_tensor(value, metric), metric)
    return merged


def _saved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Pieces):
        return value.to_tensor()
    if isinstance(value, list | tuple):
        return [_saved(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _saved(item) for key, item in value.items()}
    return value


def _loaded(value: Any, metric: Metric) -> Any:
    if isinstance(value, Tensor):
        return value.to(metric._device) if metric._device is not None else value
    if isinstance(value, list):
        return [_loaded(item, metric) for item in value]
    return value
