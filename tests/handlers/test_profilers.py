"""Where the time goes: by event, by handler, by operator."""

from __future__ import annotations

import csv
import functools
import json
import time
from pathlib import Path
from typing import Any

import ignite.engine
import ignite.handlers
import pytest
import torch

from cookfire.engine import Engine, EventEnum, Events
from cookfire.handlers import BasicTimeProfiler, HandlersTimeProfiler, TorchProfiler, time_profilers

STEP, FETCH, SLOW = 0.004, 0.003, 0.005


class Sleepy:
    """A handler that takes its time."""

    def __call__(self, engine: Engine) -> None:
        time.sleep(SLOW)


def nap(seconds: float, engine: Engine) -> None:
    time.sleep(seconds)


class MyEvents(EventEnum):
    HALFWAY = "halfway"


def slow_data() -> Any:
    class Data:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            for number in range(3):
                time.sleep(FETCH)
                yield number

    return Data()


def run(profiler: Any, attach_late: bool = False) -> Engine:
    def step(engine: Engine, batch: int) -> None:
        time.sleep(STEP)
        engine.fire_event(MyEvents.HALFWAY)

    trainer = Engine(step)
    trainer.register_events(*MyEvents)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, Sleepy())
    profiler.attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, functools.partial(nap, 0.001))
    trainer.add_event_handler(MyEvents.HALFWAY, lambda: None)
    trainer.run([0], max_epochs=1)  # of which nothing is left in the results
    trainer.state.max_epochs = None  # begin anew
    trainer.run(slow_data(), max_epochs=2)
    return trainer


def test_times_are_those_of_the_step_the_data_and_the_handlers() -> None:
    profiler = BasicTimeProfiler()
    run(profiler)
    results = profiler.get_results()
    # A sleep takes at least as long as it is told.
    assert results["processing_stats"]["total"] >= 6 * STEP
    assert results["dataflow_stats"]["total"] >= 6 * FETCH
    events = results["event_handlers_stats"]
    assert events["ITERATION_COMPLETED"]["total"] >= 6 * SLOW
    assert events["EPOCH_COMPLETED"]["total"] >= 2 * 0.001
    assert 0 < events["HALFWAY"]["total"] < SLOW
    assert events["total_time"] == pytest.approx(
        sum(one["total"] for name, one in events.items() if name != "total_time")
    )
    names = results["event_handlers_names"]
    assert names["ITERATION_COMPLETED_names"] == ["Sleepy"]
    assert names["EPOCH_COMPLETED_names"] == ["nap"]


def test_statistics_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = BasicTimeProfiler()
    run(profiler)
    one = profiler.get_results()["processing_stats"]
    seconds = torch.tensor(profiler._recorder.processing.seconds, dtype=torch.float64)
    assert len(seconds) == 6
    assert one["mean"] == pytest.approx(seconds.mean().item())
    assert one["std"] == pytest.approx(seconds.std().item())
    assert one["min/index"] == (seconds.min().item(), int(seconds.argmin()))
    assert one["max/index"] == (seconds.max().item(), int(seconds.argmax()))


def test_the_results_have_the_form_of_ignites() -> None:
    theirs: list[Any] = [
        ignite.handlers.BasicTimeProfiler(),
        ignite.handlers.HandlersTimeProfiler(),
    ]
    trainer: Any = ignite.engine.Engine(lambda *_: None)
    for profiler in theirs:
        profiler.attach(trainer)
    trainer.run([0] * 3)
    basic, handlers = BasicTimeProfiler(), HandlersTimeProfiler()
    run(basic)
    run(handlers)
    ours, expected = basic.get_results(), theirs[0].get_results()
    assert ours.keys() == expected.keys()
    assert ours["processing_stats"].keys() == expected["processing_stats"].keys()
    rows, their_rows = handlers.get_results(), theirs[1].get_results()
    assert [row[0] for row in rows[-3:]] == [row[0] for row in their_rows[-3:]]
    assert {len(row) for row in rows} == {len(row) for row in their_rows} == {7}


def test_handlers_are_listed_by_their_time_and_tables_fit_on_a_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    profiler, basic = HandlersTimeProfiler(), BasicTimeProfiler()
    trainer = run(profiler)
    basic.attach(trainer)
    handler = lambda: None  # noqa: E731 - to give it a long name
    handler.__qualname__ = "a_module.with_a_long_name.<locals>.and_a_handler"
    trainer.add_event_handler(Events.DATALOADER_STOP_ITERATION, handler)
    trainer.run(slow_data(), max_epochs=2)
    rows = profiler.get_results()
    assert [(row[0], row[1]) for row in rows[:2]] == [
        ("Sleepy", "ITERATION_COMPLETED"), ("nap", "EPOCH_COMPLETED"),
    ]  # fmt: skip
    assert [row[0] for row in rows[-3:]] == ["Total", "Processing", "Dataflow"]
    assert rows[-3][2] == pytest.approx(sum(row[2] for row in rows[:-3]))
    for results, printing in ((rows, profiler), (basic.get_results(), basic)):
        text = printing.print_results(results)
        assert capsys.readouterr().out == text + "\n"
        assert max(map(len, text.splitlines())) <= 100
        assert "the step" in text
    assert ".<locals>.and_a_handler" in profiler.print_results(rows)
    assert profiler.print_results(HandlersTimeProfiler().get_results()).count("-  ") >= 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0, "0 s"), (1.23e-5, "12.3 µs"), (0.0456, "45.6 ms"), (7.891, "7.89 s"),
     (123.4, "123 s"), (4567.8, "4568 s"), (2.5e-7, "0.25 µs")],
)  # fmt: skip
def test_seconds_have_three_digits_and_a_unit(seconds: float | None, text: str) -> None:
    assert time_profilers._seconds(seconds) == text


def test_tables_are_written_as_csv(tmp_path: Path) -> None:
    basic, handlers = BasicTimeProfiler(), HandlersTimeProfiler()
    run(basic)
    run(handlers)
    basic.write_results(tmp_path / "basic.csv")
    handlers.write_results(tmp_path / "handlers.csv")
    with (tmp_path / "basic.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["iteration"]) for row in rows] == [
        ("1", "1"), ("1", "2"), ("1", "3"), ("2", "4"), ("2", "5"), ("2", "6")
    ]  # fmt: skip
    assert all(float(row["processing_stats"]) >= STEP for row in rows)
    assert all(float(row["dataflow_stats"]) >= FETCH for row in rows)
    assert all(float(row["Event_ITERATION_COMPLETED"]) >= SLOW for row in rows)
    assert rows[0]["Event_EPOCH_COMPLETED"] == rows[2]["Event_EPOCH_COMPLETED"]
    with (tmp_path / "handlers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["#"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[5]["Sleepy (ITERATION_COMPLETED)"]) >= SLOW
    assert rows[2]["nap (EPOCH_COMPLETED)"] == ""


def test_profiling_leaves_the_handlers_what_they_are_and_errors_go_through() -> None:
    trainer, handler = Engine(lambda *_: None), Sleepy()
    trainer.add_event_handler(Events.STARTED, handler)
    HandlersTimeProfiler().attach(trainer)
    assert trainer.has_event_handler(handler)

    def fail() -> None:
        raise KeyError("mine")

    trainer.add_event_handler(Events.ITERATION_COMPLETED, fail)
    with pytest.raises(KeyError, match="mine") as raised:
        trainer.run([0])
    assert "fail" in raised.value.__notes__[0]


def test_a_trace_shows_operators_and_handlers_of_the_iterations_asked_for(tmp_path: Path) -> None:
    trainer = Engine(lambda *_: torch.ones(8, 8) @ torch.ones(8, 8))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, Sleepy())
    profiler = TorchProfiler(tmp_path / "traces", wait=0, warmup=1, active=2, repeat=2)
    profiler.attach(trainer)
    calls: list[int] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: calls.append(1))
    trainer.run([0] * 9)
    names = ["rank0_iteration3.json", "rank0_iteration3.txt",
             "rank0_iteration6.json", "rank0_iteration6.txt"]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == names
    events = json.loads((tmp_path / "traces" / names[0]).read_text())["traceEvents"]
    found = [event["name"] for event in events if event.get("ph") == "X"]
    assert found.count("aten::mm") == 2
    assert found.count("iteration_completed: Sleepy") == 2
    assert "aten::mm" in (tmp_path / "traces" / names[1]).read_text()
    assert len(calls) == 9
    with pytest.raises(ValueError, match="active must be at least 1, got 0"):
        TorchProfiler(tmp_path, active=0)


def test_a_trace_ends_with_a_run_that_fails(tmp_path: Path) -> None:
    def step(engine: Engine, batch: int) -> None:
        if engine.state.iteration == 3:
            raise KeyError("mine")

    trainer = Engine(step)
    TorchProfiler(tmp_path, wait=0, warmup=1, active=10).attach(trainer)
    for _ in range(2):  # a profiler that still ran could not be started again
        with pytest.raises(KeyError, match="mine"):
            trainer.run([0] * 5)
        trainer.state.max_epochs = None
