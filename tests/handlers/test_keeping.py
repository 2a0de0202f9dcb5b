"""A run kept in a folder goes on with what is there; what is not its own is refused, untouched."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader

from cookfire.engine import Engine, Events, create_supervised_trainer
from cookfire.handlers import (
    CosineAnnealingScheduler,
    DamagedCheckpoint,
    EarlyStopping,
    LambdaScheduler,
    PiecewiseLinear,
    RunState,
    TimeLimit,
)
from cookfire.metrics import Average
from tests import warm
from tests.handlers.helpers import model
from tests.handlers.preempted import train, train_until
from tests.handlers.ranks import keep_together

BATCHES = 5


class Script:
    """A run of five batches an epoch, kept in a folder."""

    def __init__(self, folder: Path, seed: int = 0, **objects: Any) -> None:
        torch.manual_seed(seed)
        self.net = model(float(seed))
        self.optimizer = SGD(self.net.parameters(), lr=0.1)
        self.trainer = create_supervised_trainer(self.net, self.optimizer, nn.MSELoss())
        self.run_state = RunState(
            self.trainer, **{"model": self.net, "optimizer": self.optimizer, **objects}
        )
        self.folder = folder

    def keep(self, **options: Any) -> bool:
        return self.run_state.keep(self.folder, **{"every": 2, "signals": (), **options})

    def run(self, max_epochs: int = 2) -> None:
        data = [(torch.full((1, 3), float(index)), torch.ones(1, 2)) for index in range(BATCHES)]
        self.trainer.run(data, max_epochs=max_epochs)

    def stop_at(self, iteration: int) -> None:
        self.trainer.add_event_handler(Events.ITERATION_STARTED(once=iteration), fail)
        with pytest.raises(ArithmeticError):
            self.run()

    def weights(self) -> list[Any]:
        return [value.tolist() for value in self.net.state_dict().values()]


def fail() -> None:
    raise ArithmeticError("as the test wished")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pt"))


def kept(folder: Path, stop_at: int | None = None) -> Script:
    script = Script(folder)
    script.keep()
    if stop_at is None:
        script.run()
    else:
        script.stop_at(stop_at)
    return script


def test_killed_three_times_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    for iteration in (3, 8, 17):
        # The fork server has imported torch already.
        process = warm.forkserver().Process(target=train_until, args=(tmp_path, iteration))
        process.start()
        process.join(100)
        assert process.exitcode == -signal.SIGKILL
    assert files(tmp_path / "run") == ["state_12.pt", "state_15.pt"]
    assert train(tmp_path, seed=3) == train(tmp_path / "whole")


def test_it_is_saved_every_so_often_and_after_each_epoch_and_the_newest_are_kept(
    tmp_path: Path,
) -> None:
    script = Script(tmp_path / "run")
    seen: list[list[str]] = []
    assert script.keep(n_saved=3) is False
    script.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda: seen.append(files(tmp_path / "run"))
    )
    script.run()
    assert [len(names) for names in seen] == [0, 0, 1, 1, 2, 3, 3, 3, 3, 3]
    assert files(tmp_path / "run") == ["state_10.pt", "state_6.pt", "state_8.pt"]
    again = Script(tmp_path / "run", seed=1)
    assert again.keep() is True
    assert again.trainer.state.iteration == 10


def test_what_is_attached_to_the_same_events_later_still_runs_before_it_is_saved(
    tmp_path: Path,
) -> None:
    script, order = Script(tmp_path), list[tuple[int, list[str]]]()
    script.keep(every=None)
    script.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: order.append((engine.state.epoch, files(tmp_path)))
    )
    script.run()
    assert order == [(1, []), (2, ["state_5.pt"])]


def test_the_newest_is_damaged_and_the_one_before_it_is_used_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = kept(tmp_path / "whole")
    kept(tmp_path / "run", stop_at=8)
    newest = tmp_path / "run" / "state_6.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    script = Script(tmp_path / "run", seed=1)
    assert script.keep() is True
    assert f"skipped: {newest}: damaged" in caplog.text
    assert script.trainer.state.iteration == 5
    script.run()
    assert script.weights() == whole.weights()


def test_without_any_intact_file_it_begins_anew_and_leaves_no_later_file_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(tmp_path, stop_at=8)
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no intact state_<iteration>\.pt"):
        Script(tmp_path).run_state.resume(tmp_path)
    script = Script(tmp_path)
    assert script.keep() is False
    assert caplog.text.count("skipped: ") == 4
    script.stop_at(4)
    assert files(tmp_path) == ["state_2.pt"]


def test_a_run_at_its_end_says_so_and_a_larger_limit_continues_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(tmp_path)
    script = Script(tmp_path, seed=1)
    script.keep()
    assert "the run is at its end (iteration 10 (epoch 2 of 2)): nothing is left" in caplog.text
    script.run()
    assert script.trainer.state.iteration == 10
    script.run(max_epochs=3)
    assert script.trainer.state.iteration == 15


def refused(script: Script, said: str) -> None:
    """Find that the folder's file is refused by one line that names it, with nothing loaded."""
    weights, state = script.weights(), torch.get_rng_state()
    with pytest.raises(ValueError, match=said) as caught:
        script.keep()
    assert "state_6.pt: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert script.weights() == weights
    assert script.trainer.state.iteration == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_another_runs_file_is_refused_and_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    kept(tmp_path, stop_at=8)
    refused(Script(tmp_path, 1, net=model()), "the state has no object 'net'")
    refused(Script(tmp_path, 1, optimizer=Adam(model().parameters())),
            "'optimizer' was a SGD and is a Adam")  # fmt: skip
    shapes = r"its 'weight' has the shape \(2, 3\), that of the model \(3, 3\)"
    refused(Script(tmp_path, 1, model=nn.Linear(3, 3)), shapes)
    refused(Script(tmp_path, 1, model=nn.Linear(3, 2, bias=False)), "the model has no 'bias'")
    refused(Script(tmp_path, 1, optimizer=SGD(nn.Linear(3, 2, bias=False).parameters())),
            r"it is of groups of \[2\] parameters, the optimizer has \[1\]")  # fmt: skip
    script = Script(tmp_path, 1)
    CosineAnnealingScheduler(script.optimizer, "lr", 0.1, 0.0, 9).attach(script.trainer)
    refused(script, "the state has no attached handler 'CosineAnnealingScheduler 1'")


def test_another_class_of_a_schedule_is_refused_whether_it_is_named_or_attached(
    tmp_path: Path,
) -> None:
    optimizer = SGD(model().parameters(), lr=0.1)
    first = Script(tmp_path, schedule=LambdaScheduler(optimizer, "lr", lambda step: 0.1))
    LambdaScheduler(first.optimizer, "lr", lambda step: 0.1).attach(first.trainer)
    first.keep()
    first.stop_at(8)
    pieces = PiecewiseLinear(optimizer, "lr", [(0, 0.1)])
    script = Script(tmp_path, 1, schedule=pieces)
    LambdaScheduler(script.optimizer, "lr", lambda step: 0.1).attach(script.trainer)
    refused(script, "'schedule' was a LambdaScheduler and is a PiecewiseLinear")
    script = Script(tmp_path, 1, schedule=LambdaScheduler(optimizer, "lr", lambda step: 0.1))
    PiecewiseLinear(script.optimizer, "lr", [(0, 0.1)]).attach(script.trainer)
    refused(script, "the run has no attached handler 'LambdaScheduler 1'")


class Refusing:
    """Takes no state."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        raise KeyError("count")


def test_an_object_that_refuses_when_loaded_is_named_and_the_model_is_untouched(
    tmp_path: Path,
) -> None:
    script = Script(tmp_path, third=Refusing())
    script.keep()
    script.stop_at(8)
    refused(
        Script(tmp_path, 1, third=Refusing()),
        r"'third' \(Refusing\) does not take its state: KeyError: 'count'; nothing was loaded",
    )


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    script = Script(tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        script.run_state.resume(tmp_path / "run.pt")
    with pytest.raises(FileNotFoundError, match="no intact"):
        script.run_state.resume(tmp_path)
    torch.save(script.net.state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt: not the state of a run: it has no 'trainer'"):
        script.run_state.resume(tmp_path / "model.pt")
    torch.save([1], tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt: not the state of a run, but a list"):
        script.run_state.resume(tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(b"PK")
    with pytest.raises(DamagedCheckpoint):
        script.run_state.resume(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt: a file; resume points are kept in a folder"):
        script.run_state.keep(tmp_path / "model.pt")
    for options in ({"every": 0}, {"n_saved": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            script.keep(**options)
    script.trainer.add_event_handler(Events.STARTED, lambda: script.run_state.resume(tmp_path))
    script.run_state.save(tmp_path / "state_3.pt")
    with pytest.raises(RuntimeError, match="a running trainer can't take another state"):
        script.run()


def test_what_is_attached_after_keep_could_not_be_brought_back_and_is_refused(
    tmp_path: Path,
) -> None:
    script = Script(tmp_path)
    script.keep()
    Average(output_transform=float).attach(script.trainer, "loss")
    with pytest.raises(ValueError, match="AttachedMetrics 1 was attached after keep"):
        script.run()


def test_a_wish_to_stop_is_kept_but_not_that_time_is_up(tmp_path: Path) -> None:
    script = Script(tmp_path / "stopped")
    script.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: script.trainer.terminate())
    script.keep()
    script.run(4)
    again = Script(tmp_path / "stopped")
    again.keep()
    again.run(4)
    assert again.trainer.state.iteration == 5

    out_of_time = Script(tmp_path / "late")
    limit = TimeLimit(100)
    out_of_time.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), limit)
    limit.start_time -= 1000
    out_of_time.keep()
    out_of_time.run()
    assert files(tmp_path / "late") == ["state_2.pt", "state_3.pt"]
    again = Script(tmp_path / "late")
    again.trainer.add_event_handler(Events.ITERATION_COMPLETED, TimeLimit(100))
    again.keep()
    again.run()
    assert again.trainer.state.iteration == 10


def test_after_an_error_that_a_handler_took_the_half_done_iteration_is_not_saved(
    tmp_path: Path,
) -> None:
    script = Script(tmp_path)
    script.trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, _: engine.terminate())
    script.trainer.add_event_handler(Events.ITERATION_STARTED(once=4), fail)
    script.keep()
    script.run()
    assert files(tmp_path) == ["state_2.pt"]


def test_metrics_in_force_and_small_outputs_are_there_before_they_are_measured_again(
    tmp_path: Path,
) -> None:
    measured: list[float] = []

    def evaluating(seed: int) -> tuple[Script, Engine]:
        evaluator = Engine(lambda _, batch: measured.append(batch) or batch)
        Average().attach(evaluator, "mean")
        script = Script(tmp_path, seed, evaluator=evaluator)
        stopping = EarlyStopping(9, lambda engine: engine.state.metrics["mean"], script.trainer)
        evaluator.add_event_handler(Events.COMPLETED, stopping)
        # Every second epoch only; what looks at it does so in each.
        script.trainer.add_event_handler(
            Events.EPOCH_COMPLETED(every=2), lambda: evaluator.run([1.0, 2.0])
        )
        script.keep()
        return script, evaluator

    script, _ = evaluating(0)
    script.run(2)
    again, evaluator = evaluating(1)
    assert evaluator.state.metrics == {"mean": 1.5}
    assert float(again.trainer.state.output) == float(script.trainer.state.output)
    assert "EarlyStopping 1 of evaluator" in again.run_state._attached()
    again.run(4)
    # The evaluator was at its end, so it began anew, and its metric with it.
    assert evaluator.state.metrics == {"mean": 1.5}
    assert measured == [1.0, 2.0] * 2


def test_a_second_engine_that_runs_an_epoch_at_a_time_goes_on_too(tmp_path: Path) -> None:
    def alternating() -> tuple[Script, Engine]:
        critic = Engine(lambda *_: None)
        script = Script(tmp_path, critic=critic)
        script.keep()
        script.trainer.add_event_handler(
            Events.EPOCH_STARTED, lambda engine: critic.run([1, 2], max_epochs=engine.state.epoch)
        )
        return script, critic

    script, critic = alternating()
    assert critic.status.value == "fresh"
    script.run(2)
    again, critic = alternating()
    assert (critic.state.epoch, critic.state.iteration) == (2, 4)
    again.run(3)
    assert (critic.state.epoch, critic.state.iteration) == (3, 6)


def test_data_whose_order_is_lost_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Engine(lambda *_: None)
    RunState(trainer).keep(tmp_path, signals=())
    trainer.run(DataLoader([1, 2], shuffle=False))
    assert "RandomSampler" not in caplog.text
    caplog.set_level(logging.WARNING)
    trainer = Engine(lambda *_: None)
    RunState(trainer).keep(tmp_path / "other", signals=())
    trainer.run(DataLoader([1, 2], shuffle=True))
    assert "use cookfire.distributed.auto_dataloader" in caplog.text


def test_two_processes_go_on_together_and_one_goes_on_with_what_they_kept(
    tmp_path: Path, processes: Callable[..., list[Any]]
) -> None:
    first, second = processes(2, keep_together, str(tmp_path))
    for rank in (first, second):
        assert rank["begins"] == 3
        assert rank["resumed"] == rank["whole"]
    assert first["whole"]["noise"] != second["whole"]["noise"]
    assert first["error"].startswith("FileNotFoundError")
    assert "rank 0 raised FileNotFoundError" in second["error"]
    assert processes(1, keep_together, str(tmp_path)) == [{"begins": 3, "ends": 6}]
