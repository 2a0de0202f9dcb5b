"""Reductions, and numbers, in two real processes: exact, of any dtype, and none in place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import cookfire.distributed as idist
from tests.distributed.values import DTYPES, ODD, raised, values_of

BIG = 2**62  # the int64 sum of two of them does not fit

OPS = ["SUM", "PRODUCT", "MIN", "MAX", "AND", "OR", "AVERAGE"]


def _numbers() -> dict[str, Any]:
    rank = idist.get_rank()
    return {
        "odd": idist.all_reduce(ODD + rank),
        "tenth": idist.all_reduce(0.1, op="MAX"),
        "big": idist.all_reduce(BIG),
        "bools": idist.all_reduce(rank == 1),
        "any": idist.all_reduce(rank == 1, op="OR"),
        "all": idist.all_reduce(rank == 1, op="AND"),
        "bits": idist.all_reduce(6 if rank else 3, op="AND"),
        "average": idist.all_reduce(rank, op="AVERAGE"),
        "product": idist.all_reduce(ODD, op="PRODUCT"),
        "mixed": idist.all_reduce(0 if rank else 0.1),
        "nan": idist.all_reduce(1.0 if rank else math.nan, op="MIN"),
        "gathered": idist.all_gather(ODD + rank),
        "gathered mixed": idist.all_gather(0.1 if rank else True),
        "numpy": idist.all_gather(torch.tensor(3).numpy()[()] if rank else 4),
        "too big": raised(lambda: idist.all_reduce(2**63)),
        "float bits": raised(lambda: idist.all_reduce(0.5, op="OR")),
        "unknown op": raised(lambda: idist.all_reduce(1, op="MEAN")),
        "a string": raised(lambda: idist.all_reduce("1")),
    }


def _reductions() -> dict[str, Any]:
    rank = idist.get_rank()
    results: dict[str, Any] = {}
    for dtype in DTYPES:
        for op in OPS:
            mine = values_of(dtype, rank)
            before = mine.clone()
            try:
                results[f"{dtype} {op}"] = idist.all_reduce(mine, op=op)
            except TypeError as error:
                results[f"{dtype} {op}"] = str(error)
            assert torch.equal(mine.view(torch.uint8), before.view(torch.uint8)), "in place"
    spread = torch.arange(6.0).reshape(2, 3).t()
    results["strided"] = idist.all_reduce(spread)
    conjugated = torch.tensor([1 + 2j]).conj()
    results["conjugate"] = idist.all_reduce(conjugated)
    results["conjugate product"] = idist.all_reduce(conjugated, op="PRODUCT")
    results["negated"] = idist.all_reduce(conjugated.imag)
    leaf = torch.ones(2, requires_grad=True)
    results["leaf"] = idist.all_reduce(leaf).requires_grad
    return results


def _pair() -> dict[str, dict[str, Any]]:
    return {
        "numbers": _numbers(),
        "reductions": _reductions(),
    }


@pytest.fixture(scope="module")
def pair(processes: Callable[..., list[Any]]) -> list[dict[str, dict[str, Any]]]:
    return processes(2, _pair)


def test_numbers_are_reduced_exactly_and_keep_their_type(pair):
    for rank in pair:
        found = rank["numbers"]
        assert found["odd"] == 2 * ODD + 1
        assert found["tenth"] == 0.1
        assert found["big"] == 2**63
        assert found["product"] == ODD**2
        assert (found["bools"], type(found["bools"])) == (1, int)
        assert found["any"] is True
        assert found["all"] is False
        assert found["bits"] == 2
        assert (found["average"], type(found["average"])) == (0.5, float)
        assert {type(found[name]) for name in ("odd", "big", "product")} == {int}


def test_an_int_on_one_rank_and_a_float_on_another_are_added_as_numbers(pair):
    assert [rank["numbers"]["mixed"] for rank in pair] == [0.1, 0.1]


def test_the_smallest_number_is_nan_if_any_is(pair):
    assert all(math.isnan(rank["numbers"]["nan"]) for rank in pair)


def test_gathered_numbers_are_each_ranks_own(pair):
    for rank in pair:
        assert rank["numbers"]["gathered"] == [ODD, ODD + 1]
        assert rank["numbers"]["gathered mixed"] == [True, 0.1]
        assert rank["numbers"]["gathered mixed"][0] is True
        assert rank["numbers"]["numpy"] == [4, 3]


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        ("too big", "ValueError", "64 bits"),
        ("float bits", "TypeError", "OR takes ints and bools"),
        ("unknown op", "ValueError", "'MEAN': expected one of SUM, AVERAGE"),
        ("a string", "TypeError", "given '1' (str)"),
    ],
)
def test_numbers_that_cannot_be_reduced_are_refused_on_every_rank(pair, case, kind, words):
    for rank in pair:
        assert rank["numbers"][case][0] == kind
        assert words in rank["numbers"][case][1]


def _expected(dtype: torch.dtype, op: str) -> Tensor | None:
    """What one process with both tensors would compute; None where there is no such thing."""
    first, second = (values_of(dtype, rank) for rank in range(2))
    if op == "AVERAGE":
        fractional = dtype.is_floating_point or dtype.is_complex
        return (first + second) / 2 if fractional else None
    if op in ("AND", "OR"):
        if dtype.is_floating_point or dtype.is_complex:
            return None
        if dtype in (torch.uint16, torch.uint32, torch.uint64):
            signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
            first, second = first.view(signed), second.view(signed)
        return (first & second if op == "AND" else first | second).view(dtype)
    if dtype.is_complex and op in ("MIN", "MAX"):
        return None
    if dtype in (torch.uint16, torch.uint32, torch.uint64):
        bits = 8 * dtype.itemsize
        python = {"SUM": sum, "PRODUCT": math.prod, "MIN": min, "MAX": max}[op]
        pairs = zip(first.flatten().tolist(), second.flatten().tolist(), strict=True)
        values = [python(pair) % 2**bits for pair in pairs]
        signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
        wrapped = [value - 2**bits if value >= 2 ** (bits - 1) else value for value in values]
        return torch.tensor(wrapped, dtype=signed).view(dtype).view(2, 2)
    if dtype == torch.bool:
        return first | second if op in ("SUM", "MAX") else first & second
    both = torch.stack([first, second])
    return {
        "SUM": lambda: both.sum(0, dtype=dtype),
        "PRODUCT": lambda: both.prod(0, dtype=dtype),
        "MIN": lambda: both.amin(0),
        "MAX": lambda: both.amax(0),
    }[op]()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_are_reduced_in_their_dtype(pair, dtype, op):
    expected = _expected(dtype, op)
    for rank in pair:
        found = rank["reductions"][f"{dtype} {op}"]
        if expected is None:
            assert isinstance(found, str)
            assert op in found
        else:
            assert found.dtype == dtype
            assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))


def test_strided_and_conjugated_tensors_and_leaves_are_reduced_by_value(pair):
    for rank in pair:
        found = rank["reductions"]
        assert torch.equal(found["strided"], 2 * torch.arange(6.0).reshape(2, 3).t())
        assert torch.equal(found["conjugate"], torch.tensor([2 - 4j]))
        assert torch.equal(found["conjugate product"], torch.tensor([(1 - 2j) ** 2]))
        assert torch.equal(found["negated"], torch.tensor([-4.0]))
        assert found["leaf"] is False
