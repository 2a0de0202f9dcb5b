"""Gathering values that differ from rank to rank in size, or in kind.

Each rank first says what it has, in words that are equally many for every kind of value, so that
ranks which disagree learn of it. Data travel as bytes, padded to the longest: every dtype works,
bit for bit.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from ._numbers import fits, is_number, pack, unpack

# What a rank says of its value: what it is, and either the number itself, or the length of the
# pickled object, or the dtype's name in four 64-bit words, the number of dimensions, and as many of
# them as torch can have.
_NUMBER, _OBJECT, _TENSOR = range(3)
_KINDS = ("a number", "an object", "a tensor")
_NAME_WORDS = 4
_DIMENSIONS = 64
_WORDS = 1 + _NAME_WORDS + 1 + _DIMENSIONS


def gather_integers(values: list[int], group: ProcessGroup, wire: torch.device) -> list[list[int]]:
    """Every member's list of equally many 64-bit integers, in one exchange."""
    mine = torch.tensor(values, dtype=torch.int64, device=wire)
    everyone = mine.new_empty(dist.get_world_size(group) * len(values))
    dist.all_gather_into_tensor(everyone, mine, group)
    table: list[list[int]] = everyone.view(-1, len(values)).tolist()
    return table


def gather_values(value: object, group: ProcessGroup, wire: torch.device) -> list[Any]:
    """Every member's number or picklable object; one exchange, two if any is no number."""
    words, data, trouble = [_NUMBER, 0, 0], b"", None
    try:
        if is_number(value) and fits(value):
            words = [_NUMBER, *pack(value)]
        else:
            data = pickle.dumps(value)
            words = [_OBJECT, len(data)]
    except Exception as error:  # whatever an object raises: the others wait to hear of it
        words, trouble = [_OBJECT, -1], error
    said = _exchange(words, group, wire)
    lengths = [it[1] if it[0] == _OBJECT else 0 for it in said]
    if min(lengths) < 0:
        rank = lengths.index(-1)
        raise TypeError(
            f"all_gather: the value of rank {rank} can't be pickled"
            + (f": {value!r}: {trouble}" if trouble else "")
        ) from trouble
    mine = torch.frombuffer(bytearray(data or b"0"), dtype=torch.uint8)[: len(data)]
    pieces = gather_known(mine, [torch.Size((length,)) for length in lengths], group, wire)
    return [
        pickle.loads(piece.numpy().tobytes()) if it[0] == _OBJECT else unpack(*it[1:3])
        for it, piece in zip(said, pieces, strict=True)
    ]


def gather_rows(
    rows: Tensor, group: ProcessGroup, words_wire: torch.device, wire: torch.device
) -> Tensor:
    """All members' rows, concatenated; two exchanges: what everyone has, then the data."""
    said = [_read(words) for words in _exchange(_describe(rows), group, words_wire)]
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


def _exchange(words: list[int], group: ProcessGroup, wire: torch.device) -> list[list[int]]:
    """What every member says of its value, if they go together."""
    said = gather_integers(words + [0] * (_WORDS - len(words)), group, wire)
    tensors = [it[0] == _TENSOR for it in said]
    if any(tensors) and not all(tensors):
        kinds = ", ".join(f"rank {rank} has {_KINDS[it[0]]}" for rank, it in enumerate(said))
        raise TypeError(f"all_gather: {kinds}: expected tensors on all ranks or on none")
    return said


def _describe(rows: Tensor) -> list[int]:
    name = str(rows.dtype).removeprefix("torch.").encode().ljust(8 * _NAME_WORDS)
    return [_TENSOR, *struct.unpack(f"<{_NAME_WORDS}q", name), rows.dim(), *rows.shape]


def _read(words: list[int]) -> tuple[str, torch.Size]:
    name = struct.pack(f"<{_NAME_WORDS}q", *words[1 : 1 + _NAME_WORDS]).decode().strip()
    dims, *shape = words[1 + _NAME_WORDS :]
    return name, torch.Size(shape[:dims])


def _write(dtype: str, shape: torch.Size) -> str:
    return f"{dtype}{list(shape)}"
