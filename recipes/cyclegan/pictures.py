"""Grids of pictures turned into the other domain and back."""

from __future__ import annotations

from typing import BinaryIO

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .data import Batch, prepare_batch, to_bytes
from .model import Generators

LARGEST, GAP = 128, 2  # pixels: of a picture in a grid, and between two

GRIDS = ("a_to_b_to_a", "b_to_a_to_b")


@torch.no_grad()
def make_grids(generators: Generators, shown: Batch) -> dict[str, Tensor]:
    """Return a grid for each direction, (3, height, width) of uint8, by its name in ``GRIDS``.

    Each row is a picture, what it was turned into, and what that was turned back into.

    Args:
        generators: not wrapped.
        shown: pictures of both domains, of uint8.
    """
    device = next(generators.parameters()).device
    grids = {}
    forth, back = generators.a_to_b, generators.b_to_a
    for name, pictures in zip(GRIDS, prepare_batch(shown, device), strict=True):
        fakes = forth(pictures)
        grids[name] = _grid([pictures, fakes, back(fakes)])
        forth, back = back, forth
    return grids


def _grid(columns: list[Tensor]) -> Tensor:
    pictures = torch.stack(columns, dim=1)  # (rows, columns, 3, height, width)
    rows, number, channels, *size = pictures.shape
    flat = pictures.flatten(0, 1).float()
    if max(size) > LARGEST:
        flat = F.interpolate(flat, (LARGEST, LARGEST), mode="bilinear", antialias=True)
    framed = F.pad(flat, (GAP, GAP, GAP, GAP), value=1.0)
    height, width = framed.shape[2:]
    whole = framed.view(rows, number, channels, height, width).permute(2, 0, 3, 1, 4)
    return to_bytes(whole.reshape(channels, rows * height, number * width))


def write_png(picture: Tensor, file: BinaryIO) -> None:
    """Write a picture, (3, height, width) of uint8, as a PNG file."""
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(file, format="PNG")
