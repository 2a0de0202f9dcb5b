"""Clipping gradients and watching their norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from cookfire.engine import Engine, Events, create_supervised_trainer
from cookfire.handlers import GradientClipping, GradientNorm

DATA = [(torch.full((4, 3), float(k)), torch.ones(4, 2)) for k in range(6)]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))


def plain_loop(model: nn.Module, clip: Any, accumulate: int = 1) -> list[float]:
    """Train in plain torch; ``clip(parameters)`` returns the norm."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    for number, (x, y) in enumerate(DATA, 1):
        loss = nn.functional.mse_loss(model(x), y) / accumulate
        torch.autograd.backward(loss)
        if number % accumulate == 0:
            norms.append(float(clip(list(model.parameters()))))
            sgd.step()
            sgd.zero_grad()
    return norms


def trainer_with(model: nn.Module, sgd: Any, scaler: GradScaler | None, accumulate: int) -> Engine:
    if scaler is None:
        return create_supervised_trainer(
            model, sgd, nn.functional.mse_loss, gradient_accumulation_steps=accumulate
        )

    def step(engine: Engine, batch: Any) -> None:
        x, y = batch
        torch.autograd.backward(scaler.scale(nn.functional.mse_loss(model(x), y) / accumulate))
        if engine.state.iteration % accumulate == 0:
            scaler.step(sgd)
            scaler.update()
            sgd.zero_grad()

    return Engine(step)


def by_value(parameters: list[Any]) -> torch.Tensor:
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    nn.utils.clip_grad_value_(parameters, 0.2)
    return norm


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("scaled", ["not", "by a scaler", "in the optimizer's kernel"])
@pytest.mark.parametrize(
    ("kwargs", "clip"),
    [
        ({"max_norm": 0.5}, lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.5)),
        ({"max_norm": 0.5, "norm_type": float("inf")},
         lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.5, float("inf"))),
        ({"max_value": 0.2}, by_value),
    ],
)  # fmt: skip
def test_it_clips_what_the_optimizer_steps_on_as_a_plain_loop_does(
    kwargs: dict[str, float], clip: Any, scaled: str, accumulate: int
) -> None:
    expected, model = net(), net()
    norms = plain_loop(expected, clip, accumulate)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, fused=scaled == "in the optimizer's kernel")
    scaler = None if scaled == "not" else GradScaler("cpu", init_scale=2.0**10)
    trainer = trainer_with(model, sgd, scaler, accumulate)
    clipping = GradientClipping(sgd, **kwargs)
    clipping.attach(trainer)
    seen: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(every=accumulate),
        lambda engine: seen.append(float(engine.state.metrics["gradient_norm"])),
    )
    trainer.run(DATA)
    assert seen == pytest.approx(norms)
    assert clipping.norm is not None
    assert clipping.norm.dim() == 0
    for first, second in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_watching_changes_nothing_and_ends_when_its_handle_is_removed() -> None:
    expected, model = net(), net()
    norms = plain_loop(
        expected,
        lambda parameters: nn.utils.get_total_norm([parameter.grad for parameter in parameters]),
    )
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = create_supervised_trainer(model, sgd, nn.functional.mse_loss)
    watch = GradientNorm(sgd)
    handle = watch.attach(trainer, "size")
    trainer.run(DATA)
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    assert float(trainer.state.metrics["size"]) == pytest.approx(norms[-1])
    handle.remove()
    before = watch.norm
    trainer.run(DATA)
    assert watch.norm is before


def test_a_step_that_the_scaler_skips_is_not_measured() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = GradScaler("cpu", init_scale=1e38)
    trainer = trainer_with(model, sgd, scaler, 1)
    watch = GradientNorm(sgd)
    watch.attach(trainer)
    trainer.run([(torch.full((4, 3), 1e3), torch.ones(4, 2))])
    assert watch.norm is None


def test_mistakes_are_told() -> None:
    sgd = torch.optim.SGD(net().parameters(), lr=0.1)
    with pytest.raises(TypeError, match="must be one of torch's, got Sequential"):
        GradientNorm(net())
    with pytest.raises(ValueError, match="either max_norm or max_value"):
        GradientClipping(sgd)
    with pytest.raises(ValueError, match="either max_norm or max_value"):
        GradientClipping(sgd, 1.0, 1.0)
    with pytest.raises(ValueError, match="max_value must be above 0, got -1"):
        GradientClipping(sgd, max_value=-1)
