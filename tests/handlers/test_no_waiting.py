"""What is done at each step reads no tensor, so that no program waits for its device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cookfire.engine import Engine, Events, create_supervised_trainer
from cookfire.handlers import (
    CosineAnnealingScheduler,
    EMAHandler,
    ExpStateScheduler,
    GradientClipping,
    GradientNorm,
)


class Reads(TorchDispatchMode):
    """Counts the tensors whose value is read."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Look at an operator."""
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_schedules_averages_and_clipping_read_no_tensor() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1), momentum=0.9)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, 10).attach(trainer)
    ExpStateScheduler(1.0, 0.5, "noise", create_new=True).attach(trainer)
    for buffers in ("copy", "update"):
        EMAHandler(model, 0.1, 0.5, 3, buffers).attach(trainer, buffers)
    GradientClipping(optimizer, max_norm=1.0).attach(trainer)
    GradientClipping(optimizer, max_value=1.0).attach(trainer, "by value")
    GradientNorm(optimizer).attach(trainer, "norm")
    data = [(torch.randn(4, 4), torch.randn(4, 1))] * 5
    plain = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1), momentum=0.9)
    # An optimizer whose learning rate is a tensor may read it itself.
    with Reads() as alone:
        create_supervised_trainer(model, plain, nn.MSELoss()).run(data)
    with Reads() as reads:
        trainer.run(data)
    assert reads.count == alone.count
    with Reads() as reads:  # the count counts
        looking = Engine(lambda *_: torch.ones(()))
        looking.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: float(engine.state.output)
        )
        looking.run(data)
    assert reads.count == 5
