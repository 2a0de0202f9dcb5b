"""What metrics of recommendations take."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cookfire.metrics._values import need_tensors


def sort_ks(top_k: Sequence[int] | int) -> list[int]:
    """Return ``top_k`` as a sorted list.

    Raises:
        ValueError: none, or one that is no integer above 0.
    """
    ks = [top_k] if isinstance(top_k, int) else list(top_k)
    if not ks or not all(isinstance(k, int) and not isinstance(k, bool) and k > 0 for k in ks):
        raise ValueError(f"top_k must be one or several integers above 0, got {top_k!r}")
    return sorted(ks)


def check_shapes(owner: str, y_pred: Tensor, y: Tensor) -> None:
    """Raise ValueError unless both are ``(users, items)``, TypeError unless they are real."""
    need_tensors(owner, y_pred, y)
    if y_pred.is_complex() or y.is_complex():
        raise TypeError(f"{owner}: expected real numbers, got {y_pred.dtype} and {y.dtype}")
    if y_pred.ndim != 2 or y_pred.shape != y.shape or not y.shape[1]:
        raise ValueError(
            f"{owner}: got y_pred {tuple(y_pred.shape)} and y {tuple(y.shape)}: expected equal "
            "shapes (users, items); reshape them by output_transform"
        )
