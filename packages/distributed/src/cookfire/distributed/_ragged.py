"""Gathering tensors whose sizes differ from rank to rank.

Data travel as bytes, padded to the longest: every dtype works, bit for bit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

# What a rank says of its tensor: the dtype's name in four 64-bit words, the number of dimensions,
# and as many of them as torch can have.
_NAME_WORDS = 4
_DIMENSIONS = 64


def gather_integers(values: list[int], group: ProcessGroup, wire: torch.device) -> list[list[int]]:
    """Every member's list of equally many 64-bit integers, in one exchange."""
    mine = torch.tensor(values, dtype=torch.int64, device=wire)
    everyone = mine.new_empty(dist.get_world_size(group) * len(values))
    dist.all_gather_into_tensor(everyone, mine, group)
    table: list[list[int]] = everyone.view(-1, len(values)).tolist()
    return table


def gather_rows(rows: Tensor, group: ProcessGroup, wire: torch.device) -> Tensor:
    """All members' rows, concatenated; two exchanges: what everyone has, then the data."""
    said = [_read(words) for words in gather_integers(_describe(rows), group, wire)]
    full = [rank for rank, (_, shape) in enumerate(said) if shape.numel() > 0]
    # Where nobody has data, the shape with the most dimensions tells most.
    model = full[0] if full else max(range(len(said)), key=lambda rank: len(said[rank][1]))
    dtype, shape = said[model]
    alike = [rank for rank, it in enumerate(said) if it[0] == dtype and it[1][1:] == shape[1:]]
    for rank in full:
        if rank not in alike:
            kind = TypeError if said[rank][0] != dtype else ValueError
            raise kind(
                f"all_gather: rank {rank} has {_write(*said[rank])} and rank {model} has "
                f"{_write(dtype, shape)}: expected equal dtypes and, past the first dimension, "
                "equal shapes"
            )
    if dist.get_rank(group) not in alike:  # an empty rank: it takes over what the others have
        rows = rows.new_empty((0, *shape[1:]), dtype=getattr(torch, dtype))
    shapes = [it if rank in alike else torch.Size((0,)) for rank, (_, it) in enumerate(said)]
    everyone = gather_known(rows, shapes, group, wire)
    return torch.cat([everyone[rank] for rank in alike])


def gather_known(
    tensor: Tensor, shapes: Sequence[torch.Size], group: ProcessGroup, wire: torch.device
) -> list[Tensor]:
    """Every member's tensor, of these shapes and one dtype; one exchange, none for no data."""
    sizes = [shape.numel() * tensor.itemsize for shape in shapes]
    longest = max(sizes)
    if longest == 0:
        return [tensor.new_empty(shape) for shape in shapes]
    mine = torch.zeros(longest, dtype=torch.uint8, device=wire)
    mine[: tensor.numel() * tensor.itemsize] = as_bytes(tensor)
    everyone = mine.new_empty(len(sizes) * longest)
    dist.all_gather_into_tensor(everyone, mine, group)
    pieces = everyone.to(tensor.device).view(len(sizes), longest)
    # A piece of its own memory each: a view would hold on to everyone's padding.
    return [
        from_bytes(piece[:size].clone(), tensor.dtype, shape)
        for piece, size, shape in zip(pieces, sizes, shapes, strict=True)
    ]


def as_bytes(tensor: Tensor) -> Tensor:
    """The elements of ``tensor`` as a flat uint8 tensor."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
    if flat.stride(0) != 1:  # a single element is contiguous whatever its stride
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def from_bytes(data: Tensor, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    """The tensor that :func:`as_bytes` flattened."""
    return data.view(dtype).view(shape)


def _describe(rows: Tensor) -> list[int]:
    name = str(rows.dtype).removeprefix("torch.").encode().ljust(8 * _NAME_WORDS)
    padding = [0] * (_DIMENSIONS - rows.dim())
    return [*struct.unpack(f"<{_NAME_WORDS}q", name), rows.dim(), *rows.shape, *padding]


def _read(words: list[int]) -> tuple[str, torch.Size]:
    name = struct.pack(f"<{_NAME_WORDS}q", *words[:_NAME_WORDS]).decode().strip()
    dims, *shape = words[_NAME_WORDS:]
    return name, torch.Size(shape[:dims])


def _write(dtype: str, shape: torch.Size) -> str:
    return f"{dtype}{list(shape)}"
