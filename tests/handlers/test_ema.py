"""The moving average of a model."""

from __future__ import annotations

import copy
from typing import Any

import ignite.handlers
import pytest
import torch
from ignite.engine import Engine as TheirEngine
from torch import Tensor, nn

from cookfire.engine import Engine, Events
from cookfire.handlers import EMAHandler, LambdaStateScheduler


class Net(nn.Module):
    """A model with a float and an integer buffer, and a parameter that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def training(model: nn.Module) -> Any:
    """Return a step that changes weights and buffers as a function of the iteration."""

    def step(engine: Any, batch: Any) -> None:
        generator = torch.Generator().manual_seed(engine.state.iteration)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        model(torch.randn(4, 3, generator=generator))

    return step


def close(first: nn.Module, second: nn.Module) -> None:
    for key, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[key])


@pytest.mark.parametrize("buffers", ["copy", "update", "ema_train"])
@pytest.mark.parametrize("warmup", [{}, {"momentum_warmup": 0.9, "warmup_iters": 7},
                                    {"momentum_warmup": 0.01, "warmup_iters": 1}])  # fmt: skip
def test_the_average_is_that_of_ignite(buffers: Any, warmup: dict[str, Any]) -> None:
    momenta: list[list[float]] = [[], []]
    averages = []
    for seen, kind, of in zip(
        momenta, (Engine, TheirEngine), (EMAHandler, ignite.handlers.EMAHandler), strict=True
    ):
        model = net()
        handler: Any = of(model, 0.1, **warmup, handle_buffers=buffers)
        engine: Any = kind(training(model))
        handler.attach(engine)
        event = Events.ITERATION_COMPLETED if kind is Engine else "iteration_completed"
        if kind is TheirEngine:
            event = ignite.engine.Events.ITERATION_COMPLETED
        engine.add_event_handler(event, lambda e, seen=seen: seen.append(e.state.ema_momentum))
        engine.run([0] * 10, max_epochs=2)
        averages.append(handler.ema_model)
    assert momenta[0] == pytest.approx(momenta[1])
    close(averages[0], averages[1])
    assert averages[0].training == (buffers == "ema_train")
    assert averages[0].second.weight is averages[0].first.weight


def test_buffers_are_copied_not_shared() -> None:
    model = net()
    handler = EMAHandler(model, 0.1)
    trainer = Engine(training(model))
    handler.attach(trainer)
    trainer.run([0])
    model.norm.running_mean.fill_(7.0)
    assert not (handler.ema_model.norm.running_mean == 7.0).any()


def test_swapping_is_exact_however_often_and_after_an_error() -> None:
    model = net()
    handler = EMAHandler(nn.DataParallel(model), 0.1)
    trainer = Engine(training(model))
    handler.attach(trainer)
    trainer.run([0] * 5)
    weights, average = (copy.deepcopy(one.state_dict()) for one in (model, handler.ema_model))
    parameters = list(model.parameters())

    def equal(one: nn.Module, state: dict[str, Tensor]) -> bool:
        return all(torch.equal(value, state[key]) for key, value in one.state_dict().items())

    def look_and_fail() -> None:
        with handler.swapped() as swapped:
            assert swapped is model
            assert equal(model, average)
            assert equal(handler.ema_model, weights)
            with pytest.raises(RuntimeError, match="swapped already"), handler.swapped():
                pass
            raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            look_and_fail()
        assert equal(model, weights)
        assert equal(handler.ema_model, average)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


def test_two_averages_of_one_trainer_have_a_momentum_each_that_can_be_scheduled() -> None:
    model = net()
    trainer = Engine(training(model))
    first = EMAHandler(model, 0.1, 0.5, 4)
    first.attach(trainer, "first")
    second = EMAHandler(model, 0.2)
    second.attach(trainer, "second", event=Events.ITERATION_COMPLETED(every=2))
    LambdaStateScheduler(lambda step: 0.2 / step, "second").attach(trainer)
    state: Any = trainer.run([0] * 4)
    assert (state.first, state.second) == (0.1, 0.05)
    with pytest.warns(UserWarning, match="'first' already, which is now the momentum"):
        first.attach(Engine(lambda *_: None)) or first.attach(trainer, "first")
    EMAHandler(model).attach(trainer, "first", warn_if_exists=False)


def test_mistakes_are_told() -> None:
    with pytest.raises(TypeError, match="must be a module, got int"):
        EMAHandler(3)
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        EMAHandler(net(), 1.0)
    with pytest.raises(ValueError, match="needs both momentum_warmup and warmup_iters"):
        EMAHandler(net(), momentum_warmup=0.5)
    with pytest.raises(ValueError, match="got 'share'"):
        EMAHandler(net(), handle_buffers="share")
    with pytest.raises(ValueError, match="the state lacks 'momentum'"):
        EMAHandler(net()).load_state_dict({"ema_model": {}})


@pytest.mark.parametrize("handle_buffers", ["copy", "update", "ema_train"])
def test_parameters_that_are_whole_numbers_are_copied(handle_buffers: Any) -> None:
    model = net()
    model.scale = nn.Parameter(torch.tensor([1, 2]), requires_grad=False)
    trainer = Engine(lambda *_: model.scale.add_(10))
    handler = EMAHandler(model, 0.5, handle_buffers=handle_buffers)
    handler.attach(trainer)
    trainer.run([0] * 2)
    assert handler.ema_model.scale.tolist() == [21, 22]
