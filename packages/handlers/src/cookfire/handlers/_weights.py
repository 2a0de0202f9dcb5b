"""Weights for others: in the safetensors format, which holds tensors and nothing that could run."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

import cookfire.distributed as idist
from cookfire.handlers._delivery import require
from cookfire.handlers._files import write_atomically
from cookfire.handlers._fitting import find_misfit
from cookfire.handlers._objects import load_into, state_of
from cookfire.handlers._reading import DamagedCheckpoint
from cookfire.handlers._savers import on_all_ranks
from cookfire.handlers.ema_handler import EMAHandler

__all__ = ["export_weights", "load_weights"]

_FORMAT = "format"  # readers of the hub want to be told the framework, under this key


def export_weights(
    model: nn.Module | EMAHandler, path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a model's parameters and buffers to a safetensors file, to be published.

    The file is there completely or not at all, and equal weights give equal bytes. Names are the
    model's own, without what DistributedDataParallel, FSDP or torch.compile add; dtypes stay. A
    tensor with several names (tied weights) is written once, under the first; the metadata have
    the other names. All processes must call it, one writes. The file is made up in memory.

    Args:
        model: a module, or the handler of its moving average.
        path: usually ``something.safetensors``; its folder must exist.
        metadata: strings by name, for readers: licence, data, metric. ``format`` is ``pt``.

    Raises:
        ModuleNotFoundError: safetensors is not installed: it is an extra of this package.
        TypeError: the model is no module; the metadata are no strings; or the state holds
            something else than dense tensors, by name.
        ValueError: a metadata key is taken.
        OSError: the file can't be written.

    Example:
        >>> export_weights(model, folder / "model.safetensors", {"license": "BSD-3-Clause"})
        >>> load_weights(model, folder / "model.safetensors")
        {'license': 'BSD-3-Clause'}
    """
    require("safetensors", "export_weights")
    if isinstance(model, EMAHandler):
        model = model.ema_model
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a module or an EMAHandler, got {type(model).__name__}")
    path = Path(path).expanduser()
    notes = _checked(metadata or {})
    state = state_of(model)
    with on_all_ranks(str(path)):
        if idist.get_rank() == 0:
            content = _serialized(state, notes)
            write_atomically(path, lambda file: file.write(content))


def load_weights(model: nn.Module, path: str | Path) -> dict[str, str]:
    """Load a safetensors file into a model, whatever wraps it: every tensor, and no other.

    Args:
        model: gets the weights, in its own dtype and on its devices.
        path: a file of :func:`export_weights`, or of another program with the same names.

    Returns:
        The metadata.

    Raises:
        ModuleNotFoundError: safetensors is not installed: it is an extra of this package.
        FileNotFoundError: there is no such file.
        DamagedCheckpoint: it is incomplete, or no safetensors file.
        ValueError: names or shapes differ from the model's; says which. Nothing was loaded then.
    """
    require("safetensors", "load_weights")
    from safetensors import SafetensorError, safe_open

    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            state = {name: file.get_tensor(name) for name in names}
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{path}: incomplete, or no safetensors file ({error})") from error
    # The other names of a tensor are in the metadata: torch wants each of them.
    others = {name: first for name, first in metadata.items() if first in state}
    others = {name: first for name, first in others.items() if name not in state}
    known = set(state_of(model))
    state |= {name: state[first] for name, first in others.items() if name in known}
    if problem := find_misfit(model, state):
        raise ValueError(f"{path}: not the weights of this {type(model).__name__}: {problem}")
    load_into(model, state)
    hidden = {_FORMAT, *others}
    return {name: value for name, value in metadata.items() if name not in hidden}


def _checked(metadata: Mapping[str, str]) -> dict[str, str]:
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"metadata must be strings, got {name!r}: {value!r}")
    if _FORMAT in metadata:
        raise ValueError(f"metadata: {_FORMAT!r} is taken, by the format's own 'pt'")
    return {**metadata, _FORMAT: "pt"}


def _serialized(state: Mapping[str, object], metadata: dict[str, str]) -> bytes:
    import safetensors.torch

    tensors: dict[str, Tensor] = {}
    names: dict[object, str] = {}  # of what was seen already, by where it is in memory
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
            kind = type(value).__name__ if not isinstance(value, Tensor) else "tensor without data"
            raise TypeError(
                f"{name!r} is a {kind}: safetensors files hold dense tensors only; export a model "
                f"without it"
            )
        value = value.detach()
        if value.numel() and (first := names.setdefault(_place(value), name)) != name:
            if name in metadata:
                raise ValueError(f"metadata: {name!r} is taken, by another name of {first!r}")
            metadata = {**metadata, name: first}
            continue
        tensors[name] = value.cpu().resolve_conj().resolve_neg().contiguous()
    return _in_order(safetensors.torch.save(tensors, metadata))


def _place(tensor: Tensor) -> object:
    """Return what is equal for two names of the same tensor."""
    return (
        tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(),
    )  # fmt: skip


def _in_order(content: bytes) -> bytes:
    """Sort the metadata, which the library writes in another order each time."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + content[8 + length :]
