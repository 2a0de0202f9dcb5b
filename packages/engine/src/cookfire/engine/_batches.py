"""What supervised steps have in common: from a batch to the model's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cookfire.engine._engine import Engine
from cookfire.engine.utils import convert_tensor

Device = str | torch.device | None
PrepareBatch = Callable[..., tuple[Any, Any]]
Step = Callable[[Engine, Any], Any]


def prepare_xy(
    batch: Sequence[Any], device: Device = None, non_blocking: bool = False
) -> tuple[Any, Any]:
    try:
        if isinstance(batch, dict):
            raise ValueError
        x, y = batch
    except (TypeError, ValueError) as error:
        size = f" of {len(batch)}" if hasattr(batch, "__len__") else ""
        raise TypeError(
            f"a batch should be a pair (x, y), got a {type(batch).__name__}{size}; give "
            "prepare_batch, (batch, device=, non_blocking=) -> (x, y), for others"
        ) from error
    return (
        convert_tensor(x, device=device, non_blocking=non_blocking),
        convert_tensor(y, device=device, non_blocking=non_blocking),
    )


def same(output: Any) -> Any:
    return output


def call_model(model: nn.Module, x: Any) -> Any:
    return model(x)


def device_type_of(model: nn.Module, device: Device) -> str:
    if device is not None:
        return torch.device(device).type
    parameter = next(iter(model.parameters()), None)
    return "cpu" if parameter is None else parameter.device.type
