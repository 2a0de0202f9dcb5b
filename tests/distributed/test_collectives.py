"""Collectives in two and three real processes: exact, ragged, of any dtype, and none in place."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import cookfire.distributed as idist
from cookfire.distributed._ragged import as_bytes, from_bytes

BIG = 2**62  # the int64 sum of two of them does not fit
ODD = 2**24 + 1  # float32 rounds it
DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
]
OPS = ["SUM", "PRODUCT", "MIN", "MAX", "AND", "OR", "AVERAGE"]


def _raised(function: Callable[[], object]) -> tuple[str, str] | None:
    try:
        function()
    except Exception as error:  # which one is what the tests look at
        return type(error).__name__, str(error)
    return None


def _mine(dtype: torch.dtype, rank: int) -> Tensor:
    """A tensor of this dtype with values that no smaller dtype of the same kind holds."""
    if dtype == torch.bool:
        return torch.tensor([[False, True], [rank == 0, rank == 1]])
    if dtype.is_complex:
        return torch.tensor([[1 + 2j, 3j], [rank + 1 - 1j, 0.25]], dtype=dtype)
    if dtype.is_floating_point:
        return torch.tensor([[1.5, -2.0], [rank + 0.5, 0.25]], dtype=dtype)
    top = torch.iinfo(dtype).max
    values = [[1, 5 + rank], [top - rank, top // 2 + 1]]
    # torch makes no unsigned 64-bit tensor of large Python ints everywhere; its bits are the same.
    if dtype == torch.uint64:
        return torch.tensor([[1, 5 + rank], [-1 - rank, -(2**63)]]).view(dtype)
    return torch.tensor(values, dtype=dtype)


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
        "too big": _raised(lambda: idist.all_reduce(2**63)),
        "float bits": _raised(lambda: idist.all_reduce(0.5, op="OR")),
        "unknown op": _raised(lambda: idist.all_reduce(1, op="MEAN")),
        "a string": _raised(lambda: idist.all_reduce("1")),
    }


def _reductions() -> dict[str, Any]:
    rank = idist.get_rank()
    results: dict[str, Any] = {}
    for dtype in DTYPES:
        for op in OPS:
            mine = _mine(dtype, rank)
            before = mine.clone()
            try:
                results[f"{dtype} {op}"] = idist.all_reduce(mine, op=op)
            except TypeError as error:
                results[f"{dtype} {op}"] = str(error)
            assert torch.equal(mine.view(torch.uint8), before.view(torch.uint8)), "in place"
    spread = torch.arange(6.0).reshape(2, 3).t()
    results["strided"] = idist.all_reduce(spread)
    results["conjugate"] = idist.all_reduce(torch.tensor([1 + 2j]).conj())
    leaf = torch.ones(2, requires_grad=True)
    results["leaf"] = idist.all_reduce(leaf).requires_grad
    return results


def _gathers() -> dict[str, Any]:
    rank, size = idist.get_rank(), idist.get_world_size()
    rows = torch.arange(3 * rank).reshape(rank, 3)  # rank 0 has none
    return {
        "scalars": idist.all_gather(torch.tensor(float(rank))),
        "equal": idist.all_gather(torch.full((2, 2), rank)),
        "ragged": idist.all_gather(rows),
        "shapeless": idist.all_gather(rows if rank else torch.empty(0)),
        "nothing": idist.all_gather(torch.empty(0, 3, dtype=torch.int16)),
        "nothing but a shape": idist.all_gather(torch.empty(0, 3) if rank else torch.empty(0)),
        "dtypes": [idist.all_gather(_mine(dtype, rank)) for dtype in DTYPES],
        "strided": idist.all_gather(torch.arange(6).reshape(2, 3).t() + rank),
        "strings": idist.all_gather("é" * (rank * 1000)),
        "objects": idist.all_gather({"rank": rank, "set": {1, None}}),
        "nothing at all": idist.all_gather(None),
        "other shape": _raised(lambda: idist.all_gather(torch.ones(2, 3 + (rank == 1)))),
        "other dtype": _raised(lambda: idist.all_gather(torch.ones(2).to(_DTYPE[rank == 1]))),
        "known": idist.all_gather_tensors_with_shapes(
            torch.full((rank, 2), rank), [(other, 2) for other in range(size)]
        ),
        "known wrongly": _raised(
            lambda: idist.all_gather_tensors_with_shapes(torch.ones(2), [(3,)] * size)
        ),
    }


_DTYPE = {False: torch.float32, True: torch.int64}


def _broadcasts() -> dict[str, Any]:
    rank, last = idist.get_rank(), idist.get_world_size() - 1
    mine = torch.full((2, 2), rank)
    results = {
        "tensor": idist.broadcast(mine, src=last),
        "bool": idist.broadcast(torch.tensor([rank == 0, rank == 1])),
        "odd": idist.broadcast(ODD if rank == 0 else 0),
        "tenth": idist.broadcast(0.1 if rank == 0 else 0.0),
        "int to float": idist.broadcast(3 if rank == 0 else 0.5),
        "string": idist.broadcast("é" * 1000 if rank == 0 else ""),
        "path": idist.broadcast(Path("a") / "b" if rank == 0 else Path()),
        "safe tensor": idist.broadcast(torch.eye(2) if rank == last else None, last, True),
        "safe retyped": idist.broadcast(torch.eye(2) if rank == 0 else mine, safe_mode=True),
        "safe string": idist.broadcast("abc" if rank == 0 else None, safe_mode=True),
        "safe number": idist.broadcast(ODD if rank == 0 else "what", safe_mode=True),
        "safe path": idist.broadcast(Path("a") if rank == 0 else None, safe_mode=True),
        "none": _raised(lambda: idist.broadcast(None)),
        "list": _raised(lambda: idist.broadcast([1])),
        "no such rank": _raised(lambda: idist.broadcast(1, src=7)),
    }
    assert torch.equal(mine, torch.full((2, 2), rank)), "in place"
    return results


def _groups() -> dict[str, Any]:
    rank = idist.get_rank()
    pair = idist.new_group([0, 2])
    results = {
        "sum": idist.all_reduce(torch.tensor(1 + rank), group=pair),
        "number": idist.all_reduce(1 + rank, group=pair),
        "rows": idist.all_gather(torch.arange(rank), group=pair),
        "objects": idist.all_gather(f"r{rank}", group=pair),
        "list": [idist.all_gather(rank, group=[2, 1]) for _ in range(3)],
        "groups": len(dist.distributed_c10d._world.pg_names),
        "bad": _raised(lambda: idist.new_group(["0"])),
        "bad list": _raised(lambda: idist.all_reduce(1, group=["0"])),
    }
    idist.barrier()
    return results


def _pair() -> dict[str, dict[str, Any]]:
    return {
        "numbers": _numbers(),
        "reductions": _reductions(),
        "gathers": _gathers(),
        "broadcasts": _broadcasts(),
    }


def _three() -> dict[str, dict[str, Any]]:
    return {"gathers": _gathers(), "broadcasts": _broadcasts(), "groups": _groups()}


@pytest.fixture(scope="module")
def pair(processes: Callable[..., list[Any]]) -> list[dict[str, dict[str, Any]]]:
    return processes(2, _pair)


@pytest.fixture(scope="module")
def three(processes: Callable[..., list[Any]]) -> list[dict[str, dict[str, Any]]]:
    return processes(3, _three)


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
    first, second = (_mine(dtype, rank) for rank in range(2))
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
        assert found["leaf"] is False


@pytest.mark.parametrize("size", [2, 3])
def test_rows_are_gathered_whatever_their_number(pair, three, size):
    ranks = range(size)
    for rank in {2: pair, 3: three}[size]:
        found = rank["gathers"]
        ragged = torch.cat([torch.arange(3 * other).reshape(other, 3) for other in ranks])
        assert torch.equal(found["scalars"], torch.arange(float(size)))
        assert torch.equal(
            found["equal"], torch.arange(size).repeat_interleave(2)[:, None].expand(-1, 2)
        )
        assert torch.equal(found["ragged"], ragged)
        assert torch.equal(found["shapeless"], ragged)
        assert found["nothing"].shape == (0, 3)
        assert found["nothing"].dtype == torch.int16
        assert found["nothing but a shape"].shape == (0, 3)
        columns = torch.arange(6).reshape(2, 3).t()
        assert torch.equal(found["strided"], torch.cat([columns + other for other in ranks]))
        for dtype, rows in zip(DTYPES, found["dtypes"], strict=True):
            everyone = torch.cat([_mine(dtype, other) for other in ranks])
            assert rows.dtype == dtype
            assert torch.equal(rows.view(torch.uint8), everyone.view(torch.uint8))


@pytest.mark.parametrize("size", [2, 3])
def test_strings_and_objects_are_gathered(pair, three, size):
    for rank in {2: pair, 3: three}[size]:
        found = rank["gathers"]
        assert found["strings"] == ["é" * (other * 1000) for other in range(size)]
        assert found["objects"] == [{"rank": other, "set": {1, None}} for other in range(size)]
        assert found["nothing at all"] == [None] * size


def test_rows_that_do_not_fit_together_are_refused_on_every_rank_alike(pair):
    for rank in pair:
        kind, text = rank["gathers"]["other shape"]
        assert kind == "ValueError"
        assert "rank 1 has float32[2, 4] and rank 0 has float32[2, 3]" in text
        kind, text = rank["gathers"]["other dtype"]
        assert kind == "TypeError"
        assert "rank 1 has int64[2] and rank 0 has float32[2]" in text


@pytest.mark.parametrize("size", [2, 3])
def test_tensors_of_known_shapes_are_gathered_one_by_one(pair, three, size):
    for number, rank in enumerate({2: pair, 3: three}[size]):
        found = rank["gathers"]
        for other, tensor in enumerate(found["known"]):
            assert torch.equal(tensor, torch.full((other, 2), other))
        assert len(found["known"]) == size
        kind, text = found["known wrongly"]
        assert kind == "ValueError"
        assert f"expected {size} of them, with (2,) for rank {number}" in text


@pytest.mark.parametrize("size", [2, 3])
def test_everyone_gets_exactly_what_the_sender_has(pair, three, size):
    for rank in {2: pair, 3: three}[size]:
        found = rank["broadcasts"]
        assert torch.equal(found["tensor"], torch.full((2, 2), size - 1))
        assert torch.equal(found["bool"], torch.tensor([True, False]))
        assert (found["odd"], found["tenth"]) == (ODD, 0.1)
        assert (found["int to float"], type(found["int to float"])) == (3, int)
        assert found["string"] == "é" * 1000
        assert found["path"] == Path("a/b")


@pytest.mark.parametrize("size", [2, 3])
def test_in_safe_mode_only_the_sender_needs_a_value(pair, three, size):
    for rank in {2: pair, 3: three}[size]:
        found = rank["broadcasts"]
        assert torch.equal(found["safe tensor"], torch.eye(2))
        assert torch.equal(found["safe retyped"], torch.eye(2))
        assert found["safe string"] == "abc"
        assert found["safe number"] == ODD
        assert found["safe path"] == Path("a")


def test_what_cannot_be_broadcast_is_refused(pair):
    for rank in pair:
        found = rank["broadcasts"]
        assert found["none"][0] == "ValueError"
        assert "safe_mode=True" in found["none"][1]
        assert found["list"][0] == "TypeError"
        assert found["no such rank"] == (
            "ValueError",
            "broadcast: src 7: expected a rank from 0 to 1",
        )


def test_a_group_shares_among_its_members_and_outsiders_are_alone(three):
    inside, outside = [three[0]["groups"], three[2]["groups"]], three[1]["groups"]
    for found in inside:
        assert (found["sum"], found["number"]) == (4, 4)
        assert torch.equal(found["rows"], torch.arange(2))
        assert found["objects"] == ["r0", "r2"]
    assert (outside["sum"], outside["number"]) == (2, 2)
    assert torch.equal(outside["rows"], torch.arange(1))
    assert outside["objects"] == ["r1"]


def test_a_list_of_ranks_makes_one_group_however_often_it_is_given(three):
    assert three[0]["groups"]["list"] == [[0]] * 3
    assert three[1]["groups"]["list"] == three[2]["groups"]["list"] == [[1, 2]] * 3
    assert three[1]["groups"]["groups"] == 2  # all, and the list; it is outside the pair


def test_ranks_that_are_no_numbers_are_refused(three):
    for rank in three:
        assert rank["groups"]["bad"][0] == rank["groups"]["bad list"][0] == "ValueError"
        assert "['0']: expected a list of whole numbers" in rank["groups"]["bad"][1]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).view(3, 2)[:1, 0],
        torch.rand(1, 2)[:, 1],
        torch.tensor([1 + 2j]).conj().imag,
        torch.rand(4, 2).T,
    ],
)
def test_tensors_of_any_stride_travel_as_bytes(tensor: torch.Tensor) -> None:
    assert torch.equal(from_bytes(as_bytes(tensor), tensor.dtype, tensor.shape), tensor)
