"""One process with nccl on a GPU: mixed precision, compilation, sharding, checkpoints.

Run where there is one: ``pytest tests/distributed/test_cuda.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import cookfire.distributed as idist
from cookfire.engine import create_supervised_trainer
from cookfire.handlers import Checkpoint
from cookfire.handlers._objects import state_of
from tests.distributed.training import BATCH, Block, Images, Net, prepare

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # the compiler gives advice that depends on the GPU
]


@pytest.fixture(autouse=True)
def group() -> Any:
    """A group of one process."""
    with idist.Parallel(backend="nccl") as parallel:
        yield parallel


def _prepare(batch: Any, device: Any = None, non_blocking: bool = False) -> tuple[Tensor, Tensor]:
    images, labels = prepare(batch)
    return images.to(device, non_blocking=non_blocking), labels.to(
        device, non_blocking=non_blocking
    )


def _train(steps: int = 20, **options: Any) -> tuple[Any, Any, list[float]]:
    model_options = {
        name: options.pop(name) for name in ("wrap", "shard", "compile") if name in options
    }
    torch.manual_seed(3)
    model = idist.auto_model(Net(), **model_options)
    optimizer = idist.auto_optim(torch.optim.Adam(model.parameters(), lr=0.01))
    trainer = create_supervised_trainer(
        model, optimizer, cross_entropy, device=idist.device(), prepare_batch=_prepare, **options
    )
    losses: list[Tensor] = []
    trainer.add_event_handler("iteration_completed", lambda: losses.append(trainer.state.output))
    data = idist.auto_dataloader(Images(), batch_size=BATCH, shuffle=True, drop_last=True)
    trainer.run(data, max_iters=steps)
    return model, optimizer, torch.stack(losses).tolist()


def test_the_group_has_a_device_and_communicates_on_it():
    assert idist.backend() == "nccl"
    assert idist.device().type == "cuda"
    ones = torch.ones(3, device=idist.device())
    assert torch.equal(idist.all_reduce(ones), ones)
    assert idist.all_gather("a") == ["a"]
    idist.barrier()


@pytest.mark.parametrize(
    "options",
    [
        {"amp_mode": "amp", "amp_dtype": torch.bfloat16},
        {"amp_mode": "amp", "amp_dtype": torch.float16, "scaler": True},
        {"compile": True},
        {"wrap": "fsdp", "shard": [Block]},
        {"wrap": "fsdp", "shard": [Block], "compile": True},
        {"amp_mode": "amp", "amp_dtype": torch.float16, "scaler": True, "wrap": "fsdp"},
        {"amp_mode": "amp", "amp_dtype": torch.bfloat16, "compile": True},
        {"gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_a_net_learns_in_every_way(options):
    reduced = "amp_mode" in options or "gradient_accumulation_steps" in options
    *_, plain = _train()
    _, _, losses = _train(**options)
    assert losses[0] == pytest.approx(plain[0], abs=2e-2 if reduced else 1e-4)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_sharded_checkpoint_loads_into_a_plain_model(tmp_path: Path):
    model, optimizer, _ = _train(wrap="fsdp", shard=[Block])
    checkpoint = Checkpoint({"model": model, "optimizer": optimizer}, tmp_path)
    checkpoint(create_supervised_trainer(model, optimizer, cross_entropy))
    other, theirs, _ = _train(steps=1)
    Checkpoint.load_newest(tmp_path, {"model": other, "optimizer": theirs})
    for name, weights in state_of(model).items():
        assert torch.equal(weights.cpu(), other.state_dict()[name].cpu())
