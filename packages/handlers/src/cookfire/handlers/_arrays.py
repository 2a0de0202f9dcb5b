"""Tensors as the arrays that trackers take: pictures and distributions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["distribution", "pixels"]

BINS = 64  # what W&B and TensorBoard's own plots come near to


def pixels(image: Tensor) -> NDArray[np.uint8]:
    """Return an image as bytes, (H, W) or with the colours last.

    Args:
        image: (C, H, W) or (H, W), uint8 or floating point in [0, 1], which is clipped. A single
            channel becomes (H, W).

    Example:
        >>> pixels(torch.tensor([[[0.0, 0.5]], [[1.0, 2.0]], [[0.0, 1.0]]])).tolist()
        [[[0, 255, 0], [128, 255, 255]]]
    """
    values = image.detach().cpu()
    if values.is_floating_point():
        values = values.float().clamp(0, 1).mul(255).round()
    if values.ndim == 3:
        values = values.squeeze(0) if len(values) == 1 else values.movedim(0, -1)
    return values.numpy().astype(np.uint8)


def distribution(values: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return how many values lie in each of 64 bins of equal width, and the 65 edges.

    Raises:
        ValueError: a value is not finite.

    Example:
        >>> counts, edges = distribution(torch.tensor([0.0, 1.0, 1.0]))
        >>> (counts[0].item(), counts[-1].item(), edges[-1].item())
        (1, 2, 1.0)
    """
    counts, edges = np.histogram(values.detach().double().cpu().numpy(), bins=BINS)
    return counts, edges
