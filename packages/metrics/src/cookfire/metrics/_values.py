"""What goes into metrics and comes out of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Number, Real
from typing import Any

import torch
from torch import Tensor


def same(output: Any) -> Any:
    """Return the output as it is: the default ``output_transform``."""
    return output


def to_plain(value: Any) -> Any:
    """Return Python numbers for scalars, and fresh tensors on the CPU, also within containers."""
    if type(value) in (int, float):
        return value
    if isinstance(value, Tensor):
        value = value.detach()
        if value.ndim == 0:
            return value.item()
        # Always a copy: a state that is its own result is not to be written into.
        return value.clone() if value.is_cpu else value.cpu()
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_plain(item) for item in value)
    return value


def need_pair(owner: str, output: Any, names: str = "y_pred, y") -> Any:
    """Return an output that is a tuple or a list of two, or of as many as there are names.

    A tensor is none: unpacked, two examples would pass for predictions and targets.

    Raises:
        TypeError: it is something else.
        ValueError: it has another length.
    """
    number = names.count(",") + 1
    if isinstance(output, tuple | list):
        if len(output) == number:
            return output
        found = f"{len(output)} items"
        error: type[Exception] = ValueError
    else:
        shape = f" of the shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        found = f"{type(output).__name__}{shape or ' ' + _shorten(repr(output))}"
        error = TypeError
    raise error(f"{owner}: expected a tuple ({names}), got {found}: make it by output_transform")


def need_whole(name: str, value: object) -> None:
    """Raise TypeError unless a setting is a whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{name} must be a whole number, got {type(value).__name__} {_shorten(repr(value))}"
        )


def need_number(name: str, value: object) -> None:
    """Raise TypeError unless a setting is a number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name} must be a number, got {type(value).__name__} {_shorten(repr(value))}"
        )


def need_tensors(owner: str, *values: Any) -> None:
    """Raise TypeError unless all are dense tensors."""
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{owner}: expected tensors, got {type(value).__name__} {_shorten(repr(value))}: "
                "make one of it by torch.as_tensor"
            )
        if value.layout is not torch.strided:
            raise TypeError(
                f"{owner}: expected dense tensors, got {value.layout}: convert it by to_dense()"
            )


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else f"{text[:37]}..."


def is_unrollable(output: Any) -> bool:
    """Tell whether an output is a sequence of lists of tensors or numbers."""
    if not isinstance(output, tuple | list) or (output and isinstance(output[0], Tensor)):
        return False
    return all(
        isinstance(item, tuple | list) and all(isinstance(x, Tensor | Number) for x in item)
        for item in output
    )


def unroll(
    name: str, output: Sequence[Sequence[Tensor | float]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over the pairs of two lists' items, each as a batch of one.

    Raises:
        ValueError: there are not two lists of one length.
    """
    if len(output) != 2 or len(output[0]) != len(output[1]):
        raise ValueError(
            f"{name} takes two lists of one length, got {len(output)} of the lengths "
            f"{', '.join(str(len(item)) for item in output)}: choose by output_transform, or "
            "set skip_unrolling=True"
        )
    for left, right in zip(*output, strict=True):
        first = _as_batch(left, None)
        yield first, _as_batch(right, first.device)


def _as_batch(item: Tensor | float, device: torch.device | None) -> Tensor:
    return item.unsqueeze(0) if isinstance(item, Tensor) else torch.tensor([item], device=device)
