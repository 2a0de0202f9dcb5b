"""Torch's process group, made of a backend's functions."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import _create_work_from_future
from torch.futures import Future

from ._backends import Backend

_OPS: Final = {
    dist.ReduceOp.SUM: "SUM",
    dist.ReduceOp.AVG: "SUM",
    dist.ReduceOp.PRODUCT: "PRODUCT",
    dist.ReduceOp.MIN: "MIN",
    dist.ReduceOp.MAX: "MAX",
}
_BITWISE: Final[dict[Any, Callable[[Tensor, Tensor], Tensor]]] = {
    dist.ReduceOp.BAND: operator.and_,
    dist.ReduceOp.BOR: operator.or_,
    dist.ReduceOp.BXOR: operator.xor,
}


class ProcessGroupOfBackend(dist.ProcessGroup):
    """What ``torch.distributed`` asks of a group, answered by a :class:`Backend`.

    The names and arguments of the methods are those by which ``torch.distributed`` and
    ``DistributedDataParallel`` call them. Tensors go to the backend's device and back.
    """

    def __init__(self, name: str, backend: Backend, rank: int, size: int) -> None:
        super().__init__(rank, size)
        self._name = name
        self._backend = backend

    @classmethod
    def make(cls, name: str, backend: Backend, options: Any) -> ProcessGroupOfBackend:
        """The group of all processes; there is none of some, since the functions know only all."""
        size = backend.place().world_size
        if options.group_size != size:
            raise NotImplementedError(f"backend {name!r} has no groups of some of the processes")
        return cls(name, backend, options.group_rank, size)

    def getBackendName(self) -> str:  # noqa: N802 - torch's name
        return self._name

    def allreduce(self, tensors: list[Tensor], opts: Any) -> Any:  # type: ignore[override]  # all forms but one are C++'s own
        op = _operation(opts)
        for tensor in _with_elements(tensors):
            if op in _BITWISE:
                reduced = functools.reduce(_BITWISE[op], self._gather(tensor))
            else:
                reduced = self._all_reduce(self._send(tensor), _OPS[op])
                if op == dist.ReduceOp.AVG:
                    reduced = reduced / self.size()
            tensor.copy_(reduced)
        return _done(tensors)

    def allreduce_coalesced(self, tensors: list[Tensor], opts: Any = None) -> Any:
        return self.allreduce(tensors, opts)

    def allgather(  # type: ignore[override]  # all forms but one are C++'s own
        self, outputs: list[list[Tensor]], inputs: list[Tensor], _: Any = None
    ) -> Any:
        for everyone, mine in zip(outputs, inputs, strict=True):
            if mine.numel():
                for output, piece in zip(everyone, self._gather(mine), strict=True):
                    output.copy_(piece)
        return _done(outputs)

    def all_gather_single(self, output: Tensor, input: Tensor, opts: Any = None) -> Any:  # noqa: A002, ARG002 - torch's names
        if input.numel():
            output.copy_(self._gather(input).view(output.shape))
        return _done([output])

    _allgather_base = all_gather_single  # its name in torch 2.9

    def broadcast(self, tensors: list[Tensor], opts: Any) -> Any:  # type: ignore[override]  # all forms but one are C++'s own
        for tensor in _with_elements(tensors):
            sent = self._send(tensor)
            given = self._backend.broadcast(sent, opts.rootRank)
            tensor.copy_(self._checked("broadcast", given, sent, sent.shape))
        return _done(tensors)

    def barrier(self, opts: Any = None) -> Any:  # noqa: ARG002 - given by its name
        self._backend.barrier()
        return _done([])

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self._backend.device()).contiguous()

    def _all_reduce(self, sent: Tensor, op: str) -> Tensor:
        return self._checked("all_reduce", self._backend.all_reduce(sent, op), sent, sent.shape)

    def _gather(self, tensor: Tensor) -> Tensor:
        sent = self._send(tensor)
        everyone = self._backend.all_gather(sent)
        return self._checked("all_gather", everyone, sent, (self.size(), *sent.shape))

    def _checked(
        self, function: str, result: Tensor, sent: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        """Give back what a function of the backend gave, if it is what that function promises."""
        # Main memory is as good as the device: what comes from there is copied anyway.
        where = {sent.device, torch.device("cpu")}
        if (
            isinstance(result, Tensor)
            and (tuple(result.shape), result.dtype) == (tuple(shape), sent.dtype)
            and result.device in where
        ):
            return result
        given = _describe(result) if isinstance(result, Tensor) else repr(result)
        raise ValueError(
            f"backend {self._name!r}: {type(self._backend).__name__}.{function} gave {given}, "
            f"expected {_describe(sent.expand(shape))}"
        )


def _with_elements(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors worth sending; all processes' have equal shapes, so all leave out the same."""
    return [tensor for tensor in tensors if tensor.numel()]


def _describe(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{dtype}{list(tensor.shape)} on {tensor.device}"


def _operation(opts: Any) -> Any:
    op = opts.reduceOp
    return next((known for known in (*_OPS, *_BITWISE) if op == known), op)


def _done(result: Any) -> Any:
    future: Future[Any] = Future()
    future.set_result(result)
    return _create_work_from_future(future)
