"""States whose tensors are spread over the processes, as ``fully_shard`` leaves them.

Whole, they are what an unsharded model and its optimizer have: the same names, the same order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

import cookfire.distributed as idist

__all__ = ["gathered", "sharded_like"]


def gathered(state: Mapping[str, Any], rank: int) -> Mapping[str, Any]:
    """Return the state with whole tensors on ``rank``; on the others without the sharded ones.

    One tensor after the other is brought together and moved to main memory, so that no device has
    to hold more than one. All ranks must call it. A state that is not sharded is returned as it is.
    """
    if not _has_shards(state):
        return state
    return _gathered(state, keeps=idist.get_rank() == rank)


def sharded_like(thing: nn.Module | Optimizer, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state with this process's parts of the tensors that ``thing`` has sharded.

    A state that has nothing to be sharded is returned as it is.
    """
    if isinstance(thing, nn.Module):
        own = {name: item for name, item in thing.state_dict().items() if _is_sharded(item)}
        if not own:
            return state
        new = OrderedDict((name, _sharded(item, own.get(name))) for name, item in state.items())
        _copy_metadata(state, new)
        return new
    parameters = [item for group in thing.param_groups for item in group["params"]]
    if not any(map(_is_sharded, parameters)) or "state" not in state:
        return state
    saved = [index for group in state["param_groups"] for index in group["params"]]
    shards = dict(zip(saved, parameters, strict=False))  # of other lengths, torch will complain
    return {
        **state,
        "state": {
            index: {name: _sharded(item, shards.get(index)) for name, item in items.items()}
            for index, items in state["state"].items()
        },
    }


def _is_sharded(item: object) -> bool:
    # By what is asked of it: importing DTensor takes a second, which most runs do not need.
    return isinstance(item, Tensor) and hasattr(item, "full_tensor")


def _has_shards(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_shards, value.values()))
    return _is_sharded(value)


def _gathered(state: Mapping[str, Any], keeps: bool) -> dict[str, Any]:
    new: dict[str, Any] = OrderedDict() if isinstance(state, OrderedDict) else {}
    for key, item in state.items():
        if isinstance(item, Mapping):
            new[key] = _gathered(item, keeps)
        elif not _is_sharded(item):
            new[key] = item
        else:
            whole = item.detach().full_tensor()
            if keeps:
                new[key] = whole.cpu()
    _copy_metadata(state, new)
    return new


def _copy_metadata(state: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Keep what a module's state says of the modules' versions: a file's bytes hold it too."""
    if hasattr(state, "_metadata"):
        vars(new)["_metadata"] = state._metadata


def _sharded(item: Any, like: Any) -> Any:
    """Return this process's part of ``item`` if it has the shape of the sharded ``like``."""
    if not _is_sharded(like) or not isinstance(item, Tensor) or item.shape != like.shape:
        return item
    from torch.distributed.tensor import distribute_tensor

    # Every process has the whole tensor, so that none has to send anything.
    on_device = item.to(like.device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)
