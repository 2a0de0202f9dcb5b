"""A run that is saved, and loaded into new objects, goes on as if it had never stopped."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from cookfire.distributed import DataOrder
from cookfire.engine import Engine, Events, create_supervised_trainer
from cookfire.handlers import (
    Checkpoint,
    EarlyStopping,
    LRScheduler,
    RunState,
    TerminateOnNan,
    Timer,
)
from cookfire.handlers._files import load_file, save_file
from cookfire.metrics import Average, RunningAverage
from tests.handlers.helpers import checkpoints, model
from tests.handlers.ranks import train_in_parts


class Training:
    """A run with everything that draws random numbers or remembers something."""

    def __init__(self, folder: Path, seed: int) -> None:
        torch.manual_seed(seed)  # of the new process: resuming must not depend on it
        numpy.random.seed(seed)
        random.seed(seed)
        self.model = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.trainer = create_supervised_trainer(self.model, self.optimizer, nn.MSELoss())
        self.scheduler = LRScheduler(StepLR(self.optimizer, step_size=5, gamma=0.7))
        self.scheduler.attach(self.trainer)
        self.noise: list[float] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._draw)
        RunningAverage(output_transform=float).attach(self.trainer, "loss")
        Average(output_transform=float).attach(self.trainer, "mean loss")
        self.seen: list[tuple[int, float, float]] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._see)
        self.best = Checkpoint(
            {"model": self.model}, folder, n_saved=2,
            score_function=lambda engine: -engine.state.metrics["mean loss"],
            global_step_transform=lambda engine, event: engine.state.epoch,
        )  # fmt: skip
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.best)
        self.state = RunState(self.trainer, model=self.model, optimizer=self.optimizer)

    def _draw(self) -> None:
        self.noise.append(numpy.random.random() + random.random())

    def _see(self, engine: Engine) -> None:
        lr = self.optimizer.param_groups[0]["lr"]
        self.seen.append((engine.state.iteration, lr, engine.state.metrics["loss"]))

    def run(self) -> None:
        generator = torch.Generator().manual_seed(0)
        data = TensorDataset(
            torch.randn(50, 4, generator=generator), torch.randn(50, 1, generator=generator)
        )
        order = DataOrder(50, 8, shuffle=True, seed=3)  # 7 batches, the last of 2
        loader = DataLoader(data, batch_sampler=order, generator=torch.Generator())
        self.trainer.run(loader, max_epochs=4)

    def save_at(self, iteration: int, path: Path) -> None:
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED(once=iteration),
            lambda: save_file(self.state.state_dict(), path),
        )


@pytest.mark.parametrize("iteration", [1, 7, 10, 20, 28])
def test_resumed_equals_uninterrupted_also_in_the_middle_of_an_epoch(
    tmp_path: Path, iteration: int
) -> None:
    whole = Training(tmp_path / "whole", seed=0)
    whole.save_at(iteration, tmp_path / "state.pt")
    whole.run()

    part = Training(tmp_path / "whole", seed=99)
    saved: Any = load_file(tmp_path / "state.pt")
    part.state.load_state_dict(saved)
    part.run()

    assert part.seen == whole.seen[iteration:]
    assert part.noise == whole.noise[iteration:]
    assert part.trainer.state.metrics == whole.trainer.state.metrics
    for first, second in zip(
        part.model.state_dict().values(), whole.model.state_dict().values(), strict=True
    ):
        assert torch.equal(first, second)
    assert part.best.state_dict() == whole.best.state_dict()
    assert len(checkpoints(tmp_path / "whole")) == 2
    # What a further save holds is the same to the byte.
    for training, name in ((whole, "a.pt"), (part, "b.pt")):
        save_file(training.state.state_dict(), tmp_path / name)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_saving_changes_nothing(tmp_path: Path) -> None:
    plain, saving = (Training(tmp_path / name, seed=0) for name in ("a", "b"))
    torch.manual_seed(5)
    plain.run()
    for iteration in (3, 7, 15):
        saving.save_at(iteration, tmp_path / "state.pt")
    torch.manual_seed(5)
    saving.run()
    assert [lr for _, lr, _ in plain.seen] == [lr for _, lr, _ in saving.seen]
    assert plain.seen[0] != plain.seen[1]


def engine() -> Engine:
    return Engine(lambda engine, batch: None)


def attached(state: RunState) -> list[str]:
    return sorted(state.state_dict()["ranks"][0]["attached"])


def test_stateful_handlers_are_found_once_each_and_named_by_class_and_order() -> None:
    trainer, net = engine(), model()
    stopping = [EarlyStopping(3, lambda engine: 0.0, trainer) for _ in range(3)]
    trainer.add_event_handler(Events.EPOCH_COMPLETED, stopping[0])
    trainer.add_event_handler(Events.STARTED, stopping[0].reset)
    trainer.add_event_handler(Events.COMPLETED, functools.partial(stopping[1].__call__))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, stopping[2])
    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan())
    trainer.add_event_handler(Events.EPOCH_STARTED, net.train)
    Timer().attach(trainer)
    trainer.add_event_handler(Events.COMPLETED, lambda: None)
    state = RunState(trainer, model=net, early_stopping=stopping[2])
    trainer.add_event_handler(Events.COMPLETED, state.state_dict)
    names = ["EarlyStopping 1", "EarlyStopping 2", "TerminateOnNan 1"]
    assert attached(state) == names
    stopping[0].counter, stopping[1].counter, stopping[2].counter = 1, 2, 3
    saved = state.state_dict()
    for one in stopping:
        one.reset()
    state.load_state_dict(saved)
    assert sorted(one.counter for one in stopping) == [1, 2, 3]
    assert attached(RunState(trainer)) == [
        "EarlyStopping 1", "EarlyStopping 2", "EarlyStopping 3", "Linear 1", "TerminateOnNan 1",
    ]  # fmt: skip


def test_another_runs_state_is_refused_and_nothing_of_it_is_loaded() -> None:
    first = RunState(engine(), model=model(1.0), optimizer=model())
    net, trainer = model(2.0), engine()
    trainer.add_event_handler(Events.STARTED, EarlyStopping(3, lambda engine: 0.0, trainer))
    second = RunState(trainer, model=net, scheduler=model())
    with pytest.raises(
        ValueError, match="the state has no object 'scheduler'; the run has no object 'optimizer'"
    ):
        second.load_state_dict(first.state_dict())
    third = RunState(trainer, model=net, optimizer=model())
    with pytest.raises(ValueError, match="has no attached handler 'EarlyStopping 1'"):
        third.load_state_dict(first.state_dict())
    assert torch.equal(net.weight, torch.full((2, 3), 2.0))
    with pytest.raises(ValueError, match="not the state of a run: it has no 'trainer'"):
        third.load_state_dict({"model": {}})


def test_one_process_goes_on_with_what_two_saved_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = RunState(engine(), model=model())
    saved = state.state_dict()
    expected = torch.rand(1)
    saved["ranks"] = [*saved["ranks"], saved["ranks"][0] | {"random": "of the other"}]
    state.load_state_dict(saved)
    assert "saved by 2 processes and goes on with 1" in caplog.text
    assert torch.equal(torch.rand(1), expected)


def test_only_engines_and_objects_with_a_state_are_taken() -> None:
    with pytest.raises(TypeError, match="trainer must be an engine, got int"):
        RunState(3)
    with pytest.raises(TypeError, match=r"objects\['criterion'\] must have state_dict\(\)"):
        RunState(engine(), criterion=len)


def test_random_numbers_go_on_with_any_numpy_generator() -> None:
    state = RunState(engine())
    generators: Any = numpy.random  # the next two functions have no types
    before = generators.get_bit_generator()
    generators.set_bit_generator(numpy.random.PCG64(1))
    try:
        numpy.random.standard_normal()
        saved = state.state_dict()
        expected = [torch.rand(1).item(), numpy.random.standard_normal(), random.gauss(0, 1)]
        state.load_state_dict(saved)
        found = [torch.rand(1).item(), numpy.random.standard_normal(), random.gauss(0, 1)]
    finally:
        generators.set_bit_generator(before)
    assert found == expected


def test_each_rank_goes_on_with_its_own_random_numbers(
    tmp_path: Path, processes: Callable[..., list[Any]]
) -> None:
    first, second = processes(2, train_in_parts, str(tmp_path))
    for rank in (first, second):
        assert rank["resumed"] == rank["whole"]
    assert first["whole"]["noise"] != second["whole"]["noise"]
    assert first["whole"]["weights"] == second["whole"]["weights"]
    # What one process saved: the second has random numbers of its own, the same each time.
    for rank in (first, second):
        assert rank["at"] == 2
        assert rank["of one"][0] == rank["of one"][1]
    assert not set(first["of one"][0]) & set(second["of one"][0])
