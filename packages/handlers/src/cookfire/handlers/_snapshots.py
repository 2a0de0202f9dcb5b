"""Copies of states in main memory, which a thread can write while the training changes them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from cookfire.handlers._contents import to_host

__all__ = ["Snapshot", "Snapshots"]


class Snapshots:
    """Copies states into buffers that are used again: new memory costs more than the copy.

    As many bytes are kept as the copies need that are in use at the same time. Tensors that share
    memory share it in the copy too, so a file of the copy has the bytes of a file of the original.
    From CUDA it is copied into pinned memory, in the order of the current stream: this thread
    does not wait for it, and what the stream is given later changes nothing in the copy.
    """

    def __init__(self) -> None:
        self._free: dict[tuple[int, bool], list[Tensor]] = defaultdict(list)
        self._lock = Lock()

    def take(self, state: Any) -> Snapshot:
        """Return a copy of ``state``; what is no tensor is copied by ``copy.deepcopy``."""
        copying = _Copying(self)
        state = to_host(state)
        copies: dict[int, Any] = {}  # what deepcopy takes for copied already
        for tensor in _tensors([state], set()):
            if id(tensor) not in copies:
                copies[id(tensor)] = copying.copy(tensor)
        with self._lock:
            self._free.clear()  # of other sizes, or of a time when the disk was slower
        return Snapshot(self, copy.deepcopy(state, copies), copying)

    def lend(self, size: int, pinned: bool) -> Tensor:
        """Return a buffer of ``size`` bytes."""
        with self._lock:
            free = self._free[size, pinned]
            if free:
                return free.pop()
        return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)

    def take_back(self, buffers: list[tuple[Tensor, bool]]) -> None:
        """Keep buffers that a copy does not need any more for the next one."""
        with self._lock:
            for buffer, pinned in buffers:
                self._free[buffer.numel(), pinned].append(buffer)


class Snapshot:
    """A copy of a state, in buffers that are lent to it."""

    def __init__(self, lender: Snapshots, state: Any, copying: _Copying) -> None:
        self._lender = lender
        self._state = state
        self._buffers = [(buffer, pinned) for buffer, pinned in copying.storages.values()]
        self._copied = [torch.cuda.current_stream(device).record_event() for device in copying.cuda]

    def wait(self) -> Any:
        """Wait until the devices have copied; return the copy."""
        for event in self._copied:
            event.synchronize()
        return self._state

    def release(self) -> None:
        """Give the buffers back; the copy is gone then."""
        self._state = None
        self._lender.take_back(self._buffers)
        self._buffers = []


class _Copying:
    """The copying of one state: each memory once, however many tensors look at it."""

    def __init__(self, lender: Snapshots) -> None:
        self._lender = lender
        self.storages: dict[tuple[torch.device, int, int], tuple[Tensor, bool]] = {}
        self.cuda: set[torch.device] = set()

    def copy(self, tensor: Tensor) -> Tensor:
        if not _is_plain(tensor):
            own = tensor.detach()
            if tensor.device.type not in ("cpu", "meta"):
                return own.cpu()
            # deepcopy does not know the compressed sparse layouts, clone no attributes.
            compressed = tensor.layout not in (torch.strided, torch.sparse_coo)
            return own.clone() if compressed else copy.deepcopy(own)
        buffer = self._copy_memory(tensor)
        view = torch.empty(0, dtype=tensor.dtype).set_(
            buffer.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
        )
        if isinstance(tensor, torch.nn.Parameter):
            return torch.nn.Parameter(view, tensor.requires_grad)
        return view.requires_grad_(tensor.requires_grad)

    def _copy_memory(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # Memory of others (numpy's) may be in two storages, of which one is only its beginning.
        # An empty one has no address.
        key = (tensor.device, storage.data_ptr() or id(tensor), storage.nbytes())
        if key not in self.storages:
            buffer = self._lender.lend(storage.nbytes(), tensor.is_cuda)
            self.storages[key] = buffer, tensor.is_cuda
            # Eight bytes at a time are a tenth quicker than one.
            words = torch.uint8 if storage.nbytes() % 8 else torch.int64
            source = torch.empty(0, dtype=words, device=tensor.device).set_(storage)
            buffer.view(words).copy_(source, non_blocking=True)
            if tensor.is_cuda:
                self.cuda.add(tensor.device)
        return self.storages[key][0]


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor is nothing but a view of bytes on the CPU or CUDA."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.device.type in ("cpu", "cuda")
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and not vars(tensor)
    )


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Find the tensors in dicts, lists, tuples and sets, in any depth."""
    items: Iterable[Any]
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, list | tuple | set):
        items = value
    else:
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    for item in items:
        if isinstance(item, Tensor):
            yield item
        elif type(item) not in (int, float, bool, str):
            yield from _tensors(item, seen)
