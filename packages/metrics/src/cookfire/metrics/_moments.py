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

from cookfire.metrics._pairs import sum_of_squares
from cookfire.metrics._state import WITHOUT_FLOAT64, Compensated, MetricState, Pieces, Value
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


class Moments(Pieces):
    """A row in its pieces, to which less is to be done in an update."""

    __slots__ = ("number", "products", "shifts", "sums")

    def __init__(self, number: int, shifts: Tensor, sums: Value, products: Value) -> None:
        self.number = number
        self.shifts = shifts
        """``(k, 1)``, or without dimensions for one variable; where the data are."""
        self.sums = sums
        self.products = products

    @classmethod
    def about(cls, values: Tensor) -> Moments:
        """Return those of no values yet, about the medians of some."""
        values = values.detach()
        shifts = values.median() if values.ndim == 1 else values.median(1, keepdim=True).values
        return cls(0, shifts, None, None)

    @classmethod
    def of_row(cls, row: Tensor, values: Tensor, device: torch.device | None) -> Moments:
        """Return a row's, for values to come; sums on a device, None: where they are."""
        number, shifts, sums, products = _split(row.to(device or values.device))
        shifts = shifts.to(values.device)
        narrow = shifts.to(values.dtype)
        if bool((narrow == shifts).all()):
            shifts = narrow
        if values.ndim == 1:
            return cls(int(number), shifts[0], sums[0], products[0, 0])
        return cls(int(number), shifts.unsqueeze(1), sums, products)

    def add(self, values: Tensor, device: torch.device | None) -> Moments:
        """Return the moments with these values too, sums on a device; None: where they are."""
        if values.dtype != self.shifts.dtype:
            values = values.double()
        centred = values - self.shifts
        sums = centred.sum(-1)
        one = values.ndim == 1
        products = sum_of_squares(centred, own=True) if one else _sum_products(centred)
        return Moments(
            self.number + values.shape[-1],
            self.shifts,
            add_sum(self.sums, sums, device),
            add_sum(self.products, products, device),
        )

    def to_tensor(self) -> Tensor:
        """Return the row."""
        sums, products = (
            piece.to_tensor() if isinstance(piece, Compensated) else piece
            for piece in (self.sums, self.products)
        )
        assert isinstance(sums, Tensor)
        assert isinstance(products, Tensor)
        shifts = self.shifts.to(sums.device).to(sums.dtype)
        number = sums.new_tensor([self.number])
        return torch.cat([number, *(piece.flatten() for piece in (shifts, sums, products))])


def add_moments(metric: Metric, name: str, values: Tensor) -> None:
    """Take values ``(n,)``, or ``(k, n)`` of k variables, into a metric's state of this name."""
    if values.shape[-1] == 0:
        return
    held = metric._store.local
    moments = held.values[name]
    if moments is None:
        moments = Moments.about(values)
    elif not isinstance(moments, Moments):  # loaded
        assert isinstance(moments, Tensor)
        moments = Moments.of_row(moments, values, metric._device)
    held.values[name] = moments.add(values, metric._device)
    held.updates += 1


def add_sum(total: Value, value: Tensor, device: torch.device | None) -> Value:
    """Return a sum in float64 with one more term, on a device; None: where the term is.

    What ``accumulate`` does, but for its checks.
    """
    if value.requires_grad:
        value = value.detach()
    if device is not None:
        value = value.to(device)
    if isinstance(total, Tensor):
        return total + value
    if isinstance(total, Compensated):
        return total.add(value)
    assert not isinstance(total, list | Pieces)
    if value.device.type in WITHOUT_FLOAT64:
        return Compensated.split(value + (total or 0), value.device)
    return value.double() + total if total else value.double()


def _sum_products(centred: Tensor) -> Tensor:
    """Return the sums of products of all pairs of rows, ``(k, n) -> (k, k)``.

    Not by a matrix product, which a GPU may calculate in TF32.
    """
    rows = centred.unbind()
    lower = [[(row * other).sum() for other in rows[: i + 1]] for i, row in enumerate(rows)]
    every = range(len(rows))
    sums = [lower[max(i, j)][min(i, j)] for i in every for j in every]
    return torch.stack(sums).reshape(len(rows), len(rows))


def _split(row: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    variables = math.isqrt(row.shape[-1]) - 1
    number, shifts, sums, products = row.split_with_sizes(
        [1, variables, variables, variables**2], dim=-1
    )
    square = products.reshape(*products.shape[:-1], variables, variables)
    return number.squeeze(-1), shifts, sums, square
