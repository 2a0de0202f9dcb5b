"""Gathers and broadcasts in two and three real processes: exact, ragged, of any dtype."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import cookfire.distributed as idist
from cookfire.distributed._ragged import as_bytes, from_bytes
from tests.distributed.values import DTYPES, ODD, raised, values_of


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
        "dtypes": [idist.all_gather(values_of(dtype, rank)) for dtype in DTYPES],
        "strided": idist.all_gather(torch.arange(6).reshape(2, 3).t() + rank),
        "strings": idist.all_gather("é" * (rank * 1000)),
        "objects": idist.all_gather({"rank": rank, "set": {1, None}}),
        "nothing at all": idist.all_gather(None),
        "other shape": raised(lambda: idist.all_gather(torch.ones(2, 3 + (rank == 1)))),
        "other dtype": raised(lambda: idist.all_gather(torch.ones(2).to(_DTYPE[rank == 1]))),
        "known": idist.all_gather_tensors_with_shapes(
            torch.full((rank, 2), rank), [(other, 2) for other in range(size)]
        ),
        "known wrongly": raised(
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
        "none": raised(lambda: idist.broadcast(None)),
        "list": raised(lambda: idist.broadcast([1])),
        "no such rank": raised(lambda: idist.broadcast(1, src=7)),
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
        "bad": raised(lambda: idist.new_group(["0"])),
        "bad list": raised(lambda: idist.all_reduce(1, group=["0"])),
    }
    idist.barrier()
    return results


def _pair() -> dict[str, dict[str, Any]]:
    return {
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
            everyone = torch.cat([values_of(dtype, other) for other in ranks])
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
