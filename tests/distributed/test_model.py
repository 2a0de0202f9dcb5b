"""What auto_model makes of a model: replicated, sharded, compiled, accumulating."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

import cookfire.distributed as idist
from cookfire.handlers._objects import state_of
from tests.distributed.training import WRAPS, Block, Net, Training


class Counting:
    """A compiler that leaves graphs as they are and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: object) -> Any:
        self.graphs += 1
        return graph


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state_of(model).items()}


# -- one process ------------------------------------------------------------------------------


def test_a_compiled_model_computes_the_same_and_keeps_its_names():
    plain, compiler = Net(), Counting()
    model = idist.auto_model(plain, compile={"backend": compiler})
    images = torch.randn(2, 1, 6, 6)
    assert torch.equal(model(images), plain(images))
    assert compiler.graphs == 1
    assert list(state_of(model)) == list(plain.state_dict())


def test_a_copy_of_a_compiled_model_has_weights_of_its_own():
    model = idist.auto_model(Net(), compile={"backend": Counting()})
    images = torch.randn(2, 1, 6, 6)
    before = model(images)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.bias += 1
    assert torch.equal(model(images), before)
    assert not torch.equal(other(images), before)


def test_without_a_group_nothing_is_sharded():
    plain = Net()
    assert idist.auto_model(plain, wrap="fsdp", shard=[Block]) is plain


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wrap": "dp"}, "wrap='dp': expected one of 'ddp', 'fsdp'"),
        ({"shard": [Block]}, "expected wrap='fsdp' too, given 'ddp'"),
        ({"wrap": "fsdp", "shard": [nn.GRU]}, "matches no submodule of Net"),
        ({"wrap": "fsdp", "shard": lambda name, _: name == "bloks"}, "matches no submodule of Net"),
    ],
)
def test_what_can_not_be_meant_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        idist.auto_model(Net(), **options)


# -- two processes ----------------------------------------------------------------------------


def _shared() -> dict[str, Any]:
    found: dict[str, Any] = {}
    images = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(idist.get_rank()))

    # Sharded: by classes, by a rule, as a whole.
    by_class = idist.auto_model(Net(), wrap="fsdp", shard=[Block])
    by_rule = idist.auto_model(Net(), wrap="fsdp", shard=lambda name, _: name in ("stem", "blocks"))
    whole = idist.auto_model(Net(), wrap="fsdp", reshard_after_forward=False)
    found["units"] = [
        [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
        for model in (by_class, by_rule, whole)
    ]
    found["names"] = [name for name, _ in whole.named_parameters()]
    found["held"] = sum(parameter.to_local().numel() for parameter in whole.parameters())
    found["twice"] = idist.auto_model(whole, wrap="fsdp") is whole
    late = Net()
    early = torch.optim.SGD(late.parameters(), lr=0.1)
    idist.auto_model(late, wrap="fsdp")
    try:
        idist.auto_optim(early)
    except ValueError as error:
        found["early"] = str(error)
    idist.auto_optim(torch.optim.SGD(late.parameters(), lr=0.1))

    # Compiled: the copies of one unit share a graph; a model in two buckets has two.
    for name, options in (
        ("units", {"wrap": "fsdp", "shard": [Block]}),
        ("root", {"wrap": "fsdp"}),
        ("ddp", {}),
        ("buckets", {"bucket_cap_mb": 1}),
    ):
        torch._dynamo.reset()
        compiler = Counting()
        torch.manual_seed(3)
        net: nn.Module = Net()
        if name == "buckets":
            net = nn.Sequential(*[nn.Linear(600, 600) for _ in range(4)])
        model = idist.auto_model(net, compile={"backend": compiler}, **options)
        model(torch.ones(2, 600) if name == "buckets" else images).sum().backward()
        found[f"graphs of {name}"] = compiler.graphs
        found[f"compiled {name}"] = _weights(model)
        found[f"type of {name}"] = type(model).__name__
    torch._dynamo.reset()

    # Accumulating by hand.
    model = Training("ddp").model
    with idist.no_sync(model):
        model(images).sum().backward()
    apart = model.module.head.weight.grad.clone()
    model(images).sum().backward()
    found["ddp"] = (apart, model.module.head.weight.grad)
    model = Training("fsdp").model
    with idist.no_sync(model):
        model(images).sum().backward()
    found["exchanged"] = model.head.weight.grad is not None
    model(images).sum().backward()
    found["fsdp"] = model.head.weight.grad.full_tensor()

    # Accumulating by the engine: one exchange a window; and windows that are cut short.
    for wrap in WRAPS:
        training = Training(wrap, accumulate=2, batch_size=4)
        training.run(10)
        found[f"{wrap} in halves"] = _weights(training.model)
        for kind in ("limit", "stream"):
            found[f"{wrap} {kind}"] = _cut_short(wrap, kind)
    found["exchanges"] = _exchanges()
    return found


def _cut_short(wrap: str, kind: str) -> dict[str, Tensor]:
    """Train with windows of 3 over 4 iterations: of a limit, or of data without a length."""
    training = Training(wrap, accumulate=3)
    if kind == "limit":
        training.run(4)
    else:
        batches = [batch for batch, _ in zip(training.data, range(4), strict=False)]

        def stream() -> Iterator[Any]:
            yield from batches

        training.trainer.run(stream(), max_epochs=1)
    return _weights(training.model)


def _exchanges() -> int:
    """Count the exchanges of gradients in three windows of two."""
    training, count = Training("ddp", accumulate=2), 0
    model = training.model
    assert isinstance(model, DistributedDataParallel)

    def hook(_: object, bucket: Any) -> Any:
        nonlocal count
        count += 1
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    del hook.__annotations__["bucket"], hook.__annotations__["return"]
    model.register_comm_hook(None, hook)
    training.run(6)
    return count


@pytest.fixture(scope="module")
def shared(processes: Callable[..., list[Any]]) -> list[dict[str, Any]]:
    return processes(2, _shared)


def test_the_units_that_are_sharded_are_those_of_the_rule_and_the_rest(shared):
    for rank in shared:
        assert rank["units"] == [["", "blocks.0", "blocks.1"], ["", "stem", "blocks"], [""]]
        assert rank["names"] == [name for name, _ in Net().named_parameters()]
        assert rank["twice"]


def test_an_optimizer_of_the_parameters_before_sharding_is_refused(shared):
    for rank in shared:
        assert "create the optimizer after auto_model" in rank["early"]


def test_each_process_holds_its_part_of_a_sharded_model(shared):
    whole = sum(parameter.numel() for parameter in Net().parameters())
    held = [rank["held"] for rank in shared]
    assert sum(held) == whole
    assert max(held) < 0.6 * whole


def test_compilation_goes_beneath_the_wrapping_and_splits_where_exchanges_can_begin(shared):
    torch.manual_seed(3)
    expected = Net().state_dict()
    for rank in shared:
        assert rank["graphs of units"] == 1
        assert rank["graphs of root"] == rank["graphs of ddp"] == 1
        assert rank["graphs of buckets"] > 1
        assert rank["type of ddp"] == "DistributedDataParallel"
    for name in ("units", "root", "ddp"):
        assert shared[0][f"compiled {name}"].keys() == expected.keys()


def test_without_exchange_gradients_stay_apart_until_the_last_pass(shared):
    (first_apart, first), (second_apart, second) = (rank["ddp"] for rank in shared)
    assert not torch.equal(first_apart, second_apart)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, first_apart + second_apart)  # the mean of twice each
    for rank in shared:
        assert not rank["exchanged"]
        torch.testing.assert_close(rank["fsdp"], first)


def test_a_window_of_accumulation_has_one_exchange(shared):
    assert [rank["exchanges"] for rank in shared] == [3, 3]


@pytest.mark.parametrize("wrap", WRAPS)
def test_accumulated_halves_are_the_whole_batch(shared, wrap):
    alone = Training()
    alone.run(5)
    torch.testing.assert_close(
        shared[0][f"{wrap} in halves"], _weights(alone.model), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("kind", ["limit", "stream"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_a_window_that_is_cut_short_is_exchanged_too(shared, wrap, kind):
    alone = _cut_short("ddp", kind)
    # Adam divides the smallest gradients by themselves; its steps are 100 times the tolerance.
    torch.testing.assert_close(shared[0][f"{wrap} {kind}"], alone, atol=1e-4, rtol=0)
    if wrap == "ddp":
        first, second = (rank[f"{wrap} {kind}"] for rank in shared)
        assert all(torch.equal(first[name], second[name]) for name in first)
