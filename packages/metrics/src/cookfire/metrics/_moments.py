"""Means, variances and covariances of some variables, as exact as their values are.

Sums of squares about zero lose all digits where the mean is large against the deviation. Here they
are about a shift: the median of the first batch, which is one of its values, so that constant
data have no deviation at all. Each rank has its own; combining moves them to one, in float64
(Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983).

A row holds ``[n, shifts, sums, products]`` of k variables: 1 + k + k + k * k numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cookfire.metrics._state import MetricState
from cookfire.metrics.metric import Metric


class CentralMoments(NamedTuple):
    """Of k variables, in float64."""

    number: Tensor
    means: Tensor
    """``(k,)``"""
    products: Tensor
    """``(k, k)``: sums of products of the deviations from the means."""


def combine_moments(rows: Tensor) -> Tensor:
    """Return the row of all data of some rows: ``(rows, 1 + 2k + k^2) -> (1 + 2k + k^2,)``."""
    count, shifts, sums, products = _split(rows)
    moved = shifts - shifts[0]
    count = count.unsqueeze(-1)
    outer = moved.unsqueeze(-1) * (sums + count * moved).unsqueeze(-2)
    mixed = sums.unsqueeze(-1) * moved.unsqueeze(-2)
    return torch.cat(
        [
            count.sum(0),
            shifts[0],
            (sums + count * moved).sum(0),
            (products + outer + mixed).sum(0).flatten(),
        ]
    )


def central_moments(row: Tensor) -> CentralMoments:
    """Return what a row says."""
    count, shifts, sums, products = _split(row)
    means = sums / count
    return CentralMoments(count, shifts + means, products - torch.outer(sums, means))


def moments_state(variables: int) -> MetricState:
    """Return the declaration of a state for :func:`add_moments`."""
    return MetricState(torch.float64, reduction=combine_moments, shape=((variables + 1) ** 2,))


def add_moments(metric: Metric, name: str, values: Tensor) -> None:
    """Take values ``(k, n)`` into a metric's state of this name."""
    held = metric._store.local
    row, known = held.values[name], held.derived
    size = values.shape[1]
    if size == 0:
        return
    variables = values.shape[0]
    if row is None:
        shifts = values.median(1, keepdim=True).values
        head = torch.cat([shifts.new_zeros(1), shifts[:, 0]])
        row = torch.nn.functional.pad(head, (0, variables * (variables + 1)))
        known[name] = shifts
    assert isinstance(row, Tensor)
    if name not in known:  # loaded
        known[name] = row[1 : 1 + variables, None].to(values.device)
    if (name, size) not in known:
        head = torch.zeros(1 + variables, dtype=values.dtype, device=values.device)
        head[:1].fill_(size)
        known[name, size] = head
    centred = values - known[name]
    if variables == 1:
        flat = centred[0]
        sums, products = flat.sum().reshape(1), flat.square().sum().reshape(1)
    else:
        sums = centred.sum(1)
        products = (centred.unsqueeze(0) * centred.unsqueeze(1)).sum(2).flatten()
    added = torch.cat([known[name, size], sums, products])
    setattr(metric, name, row + added.to(row.device))


def _split(row: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    variables = math.isqrt(row.shape[-1]) - 1
    count, shifts, sums, products = row.split_with_sizes(
        [1, variables, variables, variables**2], dim=-1
    )
    square = products.reshape(*products.shape[:-1], variables, variables)
    return count.squeeze(-1), shifts, sums, square
