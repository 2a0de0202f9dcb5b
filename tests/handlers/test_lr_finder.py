"""The search for a learning rate, and that it leaves nothing behind."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import ignite.engine
import ignite.handlers
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cookfire.engine import Engine, create_supervised_trainer
from cookfire.handlers import CosineAnnealingScheduler, EMAHandler, FastaiLRFinder


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 4, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=True)


class Training:
    """A model with dropout, momentum, a schedule and an average: all that could be left behind."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.trainer = create_supervised_trainer(self.model, self.optimizer, nn.MSELoss())
        CosineAnnealingScheduler(self.optimizer, "lr", 0.01, 0.0, 30).attach(self.trainer)
        self.ema = EMAHandler(self.model, 0.1)
        self.ema.attach(self.trainer)
        self.to_save = {"model": self.model, "optimizer": self.optimizer}

    def weights(self) -> list[Any]:
        return [
            value.tolist()
            for one in (self.model, self.ema.ema_model)
            for value in one.state_dict().values()
        ]


@pytest.mark.parametrize("trained", [0, 1])
def test_a_training_after_the_search_has_the_bits_of_one_without(trained: int) -> None:
    results = []
    for searching in (False, True):
        training, loader = Training(), data()
        trainer = training.trainer
        if trained:
            trainer.run(loader, max_epochs=trained)
        if searching:
            finder = FastaiLRFinder()
            with finder.attach(trainer, training.to_save, num_iter=50, diverge_th=2.0) as search:
                assert search is trainer
                search.run(loader)
            assert len(finder.get_results()["lr"]) > 10
            assert trainer.state.iteration == trained * 12
        trainer.run(loader, max_epochs=2)
        results.append(
            (training.weights(), trainer.state.iteration, str(training.optimizer.state_dict()))
        )
    assert results[0] == results[1]
    assert results[0][1] == 24


def bowl(optimizer: torch.optim.SGD) -> Any:
    """Return a step whose loss falls to a learning rate of 0.1, and rises steeply above it."""
    return lambda engine, batch: loss_at(optimizer.param_groups[0]["lr"])


def loss_at(lr: float) -> float:
    return 1 + (math.log10(lr) + 1) ** 2 + max(lr - 0.1, 0) ** 3 * 1e5


def optimizer(groups: int = 1) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [torch.zeros(1)]} for _ in range(groups)], lr=1e-4)


@pytest.mark.parametrize("mode", ["exp", "linear"])
def test_losses_and_suggestion_are_those_of_ignite(mode: str) -> None:
    ours, theirs = optimizer(), optimizer()
    finder, their_finder = FastaiLRFinder(), ignite.handlers.FastaiLRFinder()
    kwargs: Any = {"num_iter": 40, "step_mode": mode, "diverge_th": 3.0, "smooth_f": 0.2}
    with finder.attach(Engine(bowl(ours)), {"optimizer": ours}, **kwargs) as search:
        search.run([0] * 60)
    trainer: Any = ignite.engine.Engine(bowl(theirs))
    with their_finder.attach(trainer, {"optimizer": theirs}, **kwargs) as search, \
            warnings.catch_warnings():  # fmt: skip
        warnings.simplefilter("ignore")
        search.run([0] * 60)
    results, their_results = finder.get_results(), their_finder.get_results()
    # ignite's first rate of 40 is one step above the start, ours is the start: 40 values, 39 steps.
    their_step = 1e5 ** (1 / 40) if mode == "exp" else 1.0
    assert their_results["lr"][0] == pytest.approx(1e-4 * their_step)
    step = 10 / 1e-4
    for number, lr in enumerate(results["lr"]):
        part = number / 39
        assert lr == pytest.approx(1e-4 * step**part if mode == "exp" else 1e-4 + 9.9999 * part)
    smooth = loss_at(results["lr"][0])
    for lr, loss in zip(results["lr"][1:], results["loss"][1:], strict=True):
        smooth = 0.2 * loss_at(lr) + 0.8 * smooth
        assert loss == pytest.approx(smooth)
    if mode == "exp":
        # The rates differ, by up to a step; the same curve has the same suggestion.
        assert 0.5 < finder.lr_suggestion() / their_finder.lr_suggestion() < 2
        their_finder._history = results
        assert finder.lr_suggestion() == their_finder.lr_suggestion()


def test_groups_have_a_range_each_and_the_suggestion_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    sgd = optimizer(groups=2)
    finder = FastaiLRFinder()
    with finder.attach(
        Engine(bowl(sgd)), {"optimizer": sgd}, start_lr=[1e-4, 1e-5], end_lr=[10.0, 1.0],
        diverge_th=3.0,
    ) as search:  # fmt: skip
        search.run([0] * 30)
    assert finder.get_results()["lr"][0] == [1e-4, 1e-5]
    assert [group["lr"] for group in sgd.param_groups] == [1e-4, 1e-4]
    finder.apply_suggested_lr(sgd)
    first, second = (group["lr"] for group in sgd.param_groups)
    assert 1e-4 < first < 0.1
    assert second == pytest.approx(first / 10)
    axes = finder.plot(skip_start=1, skip_end=1, fname=tmp_path / "lr.png")
    assert (tmp_path / "lr.png").stat().st_size > 1000
    assert len(axes.lines) == 4
    axes.figure.clear()
    with pytest.raises(RuntimeError, match="with 2 parameter groups, the optimizer has 1"):
        finder.apply_suggested_lr(optimizer())


def test_a_search_that_fails_restores_too_and_one_that_does_not_diverge_warns() -> None:
    sgd = optimizer()
    trainer = Engine(lambda *_: {"loss": 1.0})
    with (
        pytest.raises(TypeError, match="needs the loss, a number; got dict"),
        FastaiLRFinder().attach(trainer, {"optimizer": sgd}) as search,
    ):
        search.run([0])
    assert sgd.param_groups[0]["lr"] == 1e-4
    with (
        pytest.warns(UserWarning, match="the loss has not diverged"),
        FastaiLRFinder().attach(
            trainer, {"optimizer": sgd}, lambda output: torch.tensor(output["loss"])
        ) as search,
    ):
        search.run([0] * 3)
    assert trainer.run([0] * 3, max_epochs=2).iteration == 6


def test_mistakes_are_told() -> None:
    sgd, trainer, finder = optimizer(), Engine(lambda *_: 1.0), FastaiLRFinder()
    with pytest.raises(RuntimeError, match="no search yet"):
        finder.lr_suggestion()
    mistakes: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        ({"model": nn.Linear(1, 1)}, {}, ValueError, "must have the 'optimizer'"),
        ({"optimizer": nn.Linear(1, 1)}, {}, TypeError, "must be an optimizer, got Linear"),
        ({"optimizer": 3}, {}, TypeError, "must have state_dict"),
        ({"optimizer": sgd}, {"num_iter": 0}, ValueError, "at least 1 iteration, got 0"),
        ({"optimizer": sgd}, {"step_mode": "log"}, ValueError, "'exp' or 'linear', got 'log'"),
        ({"optimizer": sgd}, {"smooth_f": 1.0}, ValueError, "below 1, got 1.0"),
        ({"optimizer": sgd}, {"diverge_th": 0.5}, ValueError, "at least 1, got 0.5"),
        ({"optimizer": sgd}, {"start_lr": 20.0}, ValueError, "0 < start_lr < end_lr"),
        ({"optimizer": sgd}, {"start_lr": [1e-3] * 2}, ValueError, "one for each of 1 groups"),
        ({"optimizer": sgd}, {"end_lr": {}}, TypeError, "a number or a list of them, got dict"),
    ]
    for to_save, kwargs, kind, message in mistakes:
        with pytest.raises(kind, match=message), finder.attach(trainer, to_save, **kwargs):
            pass
    with (
        pytest.raises(ValueError, match="needs num_iter="),
        finder.attach(trainer, {"optimizer": sgd}) as search,
    ):
        search.run(iter([0, 1]))


def test_a_loss_that_falls_below_zero_has_not_diverged() -> None:
    losses = iter([1.0, 0.5, 0.1, -0.1, -0.2, -0.5, -1.0])
    parameter = nn.Parameter(torch.zeros(1))
    trainer = Engine(lambda *_: next(losses))
    finder = FastaiLRFinder()
    to_save = {"optimizer": torch.optim.SGD([parameter], lr=0.1)}
    with (
        pytest.warns(UserWarning, match="has not diverged"),
        finder.attach(trainer, to_save, num_iter=6, smooth_f=0.0) as finding,
    ):
        finding.run([0] * 6)
    assert len(finder.get_results()["loss"]) == 6
