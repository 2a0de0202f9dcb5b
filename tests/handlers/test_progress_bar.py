import io
import os
import pty
import re
import sys
import termios
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cookfire.engine import Engine, Events
from cookfire.handlers import tqdm_logger
from cookfire.handlers.tqdm_logger import ProgressBar


class Terminal:
    """A pseudo-terminal: something to draw on, and what was drawn."""

    def __init__(self):
        self._controller, terminal = pty.openpty()
        attributes = termios.tcgetattr(terminal)
        attributes[1] &= ~termios.OPOST  # newlines as they are
        termios.tcsetattr(terminal, termios.TCSANOW, attributes)
        self.file = os.fdopen(terminal, "w")
        os.set_blocking(self._controller, False)

    def read(self):
        self.file.flush()
        parts = []
        while True:
            try:
                parts.append(os.read(self._controller, 1 << 16))
            except OSError:  # nothing more, or the other side is closed
                return b"".join(parts).decode()

    def frames(self):
        """Return what was drawn, one after the other, times as 00:00."""
        frames = re.split(r"[\r\n]+", re.sub(r"\d\d:\d\d", "00:00", self.read()))
        return [frame for frame in frames if frame.strip()]

    def close(self):
        self.file.close()
        os.close(self._controller)


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by a second at each step of an engine, and not otherwise."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(tqdm_logger, "monotonic", lambda: clock.now)
    return clock


def make_engine(clock=None):
    def step(engine, batch):
        if clock is not None:
            clock.now += 1.0
        return torch.tensor(1.2345)

    return Engine(step)


def loss(output):
    return {"batch loss": output}


class TestInATerminal:
    def test_a_bar_is_drawn_for_each_epoch(self, terminal, clock):
        engine = make_engine(clock)
        bar = ProgressBar(file=terminal.file, ncols=80, ascii=True)
        bar.attach(engine, output_transform=loss)
        engine.run(range(2), max_epochs=2)
        assert [re.sub("[#0-9]+ *,", ",", frame) for frame in terminal.frames()] == [
            "Epoch [1/2]: [1/2]  50%|, batch loss=1.23 [00:00<?]",
            "Epoch [1/2]: [2/2] 100%|, batch loss=1.23 [00:00<00:00]",
            "Epoch [1/2]: [2/2] 100%|, batch loss=1.23 [00:00<00:00]",
            "Epoch [2/2]: [1/2]  50%|, batch loss=1.23 [00:00<?]",
            "Epoch [2/2]: [2/2] 100%|, batch loss=1.23 [00:00<00:00]",
            "Epoch [2/2]: [2/2] 100%|, batch loss=1.23 [00:00<00:00]",
        ]

    def test_finished_bars_vanish_unless_they_shall_persist(self, terminal, clock):
        for persist in (False, True):
            engine = make_engine(clock)
            ProgressBar(persist, file=terminal.file, ncols=80).attach(engine)
            engine.run(range(2), max_epochs=1)
            drawn = terminal.read()
            last = drawn.rstrip("\n").split("\r")[-1]
            assert drawn.endswith("\n") == persist
            assert ("100%" in last) == persist

    @pytest.mark.parametrize(
        ("options", "arguments", "run"),
        [
            ({}, {"output_transform": lambda x: x}, {"max_epochs": 2}),
            ({}, {"output_transform": loss}, {"max_epochs": 1}),
            ({"desc": "Train"}, {"metric_names": "all"}, {"max_epochs": 2}),
            ({}, {"metric_names": ["v"], "state_attributes": ["alpha"]}, {"max_epochs": 2}),
            (
                {},
                {"event_name": "EPOCH_COMPLETED", "closing_event_name": "COMPLETED"},
                {"max_epochs": 3},
            ),
        ],
    )
    def test_the_finished_bar_reads_like_ignites(self, terminal, options, arguments, run):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ignite.engine
            import ignite.handlers

        last = []
        for engine_class, events, bar_class in (
            (ignite.engine.Engine, ignite.engine.Events, ignite.handlers.ProgressBar),
            (Engine, Events, ProgressBar),
        ):
            engine = engine_class(lambda engine, batch: torch.tensor(1.2345))
            engine.state.alpha = 5

            @engine.on(events.ITERATION_COMPLETED)
            def measure(engine):
                engine.state.metrics["accuracy"] = 0.123456
                engine.state.metrics["v"] = torch.tensor([1.0, 12345.6])

            given = {
                name: events[value] if name.endswith("event_name") else value
                for name, value in arguments.items()
            }
            bar = bar_class(persist=True, file=terminal.file, ncols=90, **options)
            bar.attach(engine, **given)
            engine.run(range(3), **run)
            last.append(terminal.frames()[-1])
        assert last[0] == last[1]

    def test_values_are_read_when_the_bar_is_drawn_and_not_otherwise(self, terminal, clock):
        reads = []
        engine = make_engine(clock)
        bar = ProgressBar(file=terminal.file, mininterval=10)
        bar.attach(engine, output_transform=lambda output: reads.append(engine.state.iteration))
        engine.run(range(100))
        assert reads == [1, *range(11, 92, 10), 100]

    def test_a_run_that_raises_leaves_no_open_bar(self, terminal, clock):
        def step(engine, batch):
            clock.now += 1.0
            if batch == 2:
                raise ZeroDivisionError

        engine = Engine(step)
        ProgressBar(persist=True, file=terminal.file, ncols=80).attach(engine)
        with pytest.raises(ZeroDivisionError):
            engine.run(range(10))
        assert terminal.read().endswith("\n")

    @pytest.mark.parametrize("leave", ["terminate", "interrupt"])
    def test_a_run_that_is_left_leaves_no_open_bar(self, terminal, clock, leave):
        engine = make_engine(clock)
        ProgressBar(persist=True, file=terminal.file, ncols=80).attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), getattr(engine, leave))
        engine.run(range(10))
        drawn = terminal.read()
        assert drawn.endswith("\n")
        assert "[3/10]" in drawn.rstrip("\n").split("\r")[-1]

    def test_bars_of_a_trainer_and_its_evaluator_do_not_mix(self, terminal, clock):
        trainer, evaluator = make_engine(clock), make_engine(clock)
        bar = ProgressBar(file=terminal.file, ncols=60, persist=True)
        bar.attach(trainer)
        bar.attach(evaluator)
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED(every=2), lambda: evaluator.run(range(3))
        )
        trainer.run(range(4), max_epochs=1)
        drawn = terminal.read()
        assert drawn.count("[3/3] 100%") >= 2
        assert "[4/4] 100%" in drawn

    def test_messages_are_printed_above_the_bar(self, terminal, clock):
        engine = make_engine(clock)
        bar = ProgressBar(file=terminal.file, ncols=60)
        bar.attach(engine)
        engine.add_event_handler(
            Events.ITERATION_COMPLETED(once=2), lambda: bar.log_message("half of it")
        )
        engine.run(range(4))
        assert "\rhalf of it\n" in terminal.read()

    def test_a_terminal_that_goes_away_does_not_stop_the_training(self, clock):
        terminal = Terminal()
        engine = make_engine(clock)
        ProgressBar(file=terminal.file).attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), terminal.close)
        with pytest.warns(UserWarning, match="ProgressBar: nothing more is shown") as said:
            state = engine.run(range(10), max_epochs=3)
        assert state.iteration == 30
        assert len(said) == 1

    def test_a_full_disk_does_not_stop_the_training(self, clock):
        engine = make_engine(clock)
        file = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails
        ProgressBar(file=file, mininterval=0).attach(engine)
        with pytest.warns(UserWarning, match="nothing more is shown .*No space left") as said:
            state = engine.run(range(40), max_epochs=2)
        with pytest.raises(OSError, match="No space left"):
            file.close()
        assert state.iteration == 80
        assert len(said) == 1

    def test_data_of_unknown_length_have_no_percentage(self, terminal, clock):
        engine = make_engine(clock)
        ProgressBar(file=terminal.file, ncols=80, persist=True).attach(engine)
        engine.run(iter(range(3)), max_epochs=1)
        assert re.match(r"Iteration: \[3\] \[00:00, .*it/s\]", terminal.frames()[-1])

    def test_a_notebook_counts_as_a_terminal(self, monkeypatch, clock):
        shell = SimpleNamespace(config={"IPKernelApp": {}})
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
        file = io.StringIO()
        assert tqdm_logger._is_looked_at(file)
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
        assert not tqdm_logger._is_looked_at(file)


class TestInAFile:
    def test_a_line_is_printed_now_and_then_and_at_the_end(self, clock, tmp_path):
        path = tmp_path / "log.txt"
        engine = make_engine(clock)
        with path.open("w") as file:
            ProgressBar(file=file).attach(engine, output_transform=loss)
            engine.run(range(70), max_epochs=2)
        lines = path.read_text().splitlines()
        assert [re.sub(r"\[[\d:]+<.*", "", line) for line in lines] == [
            "Epoch [1/2]: [31/70]  44%, batch loss=1.23 ",
            "Epoch [1/2]: [61/70]  87%, batch loss=1.23 ",
            "Epoch [1/2]: [70/70] 100%, batch loss=1.23 ",
            "Epoch [2/2]: [31/70]  44%, batch loss=1.23 ",
            "Epoch [2/2]: [61/70]  87%, batch loss=1.23 ",
            "Epoch [2/2]: [70/70] 100%, batch loss=1.23 ",
        ]
        assert lines[0].endswith("[00:30<00:39]")

    def test_lines_go_to_stderr_by_default(self, clock, capsys):
        engine = make_engine(clock)
        ProgressBar().attach(engine)
        engine.run(range(3))
        captured = capsys.readouterr()
        assert captured.err == "Iteration: [3/3] 100% [00:02<00:00]\n"
        assert captured.out == ""

    def test_mininterval_is_the_time_between_lines(self, clock):
        file, engine = io.StringIO(), make_engine(clock)
        ProgressBar(file=file, mininterval=2).attach(engine)
        engine.run(range(6))
        assert re.findall(r"\[(\d)/6\]", file.getvalue()) == ["3", "5", "6"]

    def test_a_line_is_not_said_twice(self, clock):
        file, engine = io.StringIO(), make_engine(clock)
        ProgressBar(file=file, mininterval=2).attach(engine)
        engine.run(range(5))
        assert re.findall(r"\[(\d)/5\]", file.getvalue()) == ["3", "5"]

    def test_a_continued_epoch_counts_on(self, clock):
        state = make_engine()
        state.add_event_handler(Events.ITERATION_COMPLETED(once=7), state.terminate)
        state.run(range(5), max_epochs=2)
        file, engine = io.StringIO(), make_engine(clock)
        ProgressBar(file=file, mininterval=1).attach(engine)
        engine.load_state_dict(state.state_dict())
        engine.run(range(5))
        assert re.findall(r"Epoch \[(.)/2\]: \[(.)/5\]", file.getvalue()) == [
            ("2", "4"),
            ("2", "5"),
        ]

    def test_one_bar_over_all_iterations(self, clock):
        file, engine = io.StringIO(), make_engine(clock)
        ProgressBar(file=file).attach(engine, closing_event_name=Events.COMPLETED)
        engine.run(range(5), max_epochs=3)
        assert file.getvalue().startswith("Epoch: [15/15] 100%")

    def test_a_limit_of_iterations_is_known_to_the_bar(self, clock):
        file, engine = io.StringIO(), make_engine(clock)
        ProgressBar(file=file).attach(engine)
        engine.run(range(4), max_iters=6)
        found = re.findall(r"(Epoch .*?\]: \[./.\])", file.getvalue())
        assert found == ["Epoch [1/2]: [4/4]", "Epoch [2/2]: [2/4]"]

    def test_a_users_format_loses_only_its_bar(self, clock):
        file, engine = io.StringIO(), make_engine(clock)
        ProgressBar(bar_format="{n_fmt} of {total_fmt} {bar}{postfix}", file=file).attach(
            engine, output_transform=lambda output: {"note": " text "}
        )
        engine.run(range(3))
        assert file.getvalue() == "3 of 3 , note=text\n"

    @pytest.mark.parametrize("disable", [True, None])
    def test_disabled_it_prints_nothing(self, clock, disable):
        file, engine = io.StringIO(), make_engine(clock)
        ProgressBar(file=file, disable=disable).attach(engine)
        engine.run(range(3))
        assert file.getvalue() == ""

    def test_metrics_that_come_late_are_shown_when_they_are_there(self, clock):
        file, engine = io.StringIO(), make_engine(clock)

        @engine.on(Events.EPOCH_COMPLETED)
        def measure():
            engine.state.metrics["accuracy"] = 0.5

        ProgressBar(file=file).attach(engine, ["accuracy"])
        engine.run(range(3))
        assert "accuracy=0.5" in file.getvalue()

    def test_a_metric_that_never_comes_is_said_once(self, clock):
        engine = make_engine(clock)
        ProgressBar(file=io.StringIO()).attach(engine, ["acuracy"])
        with pytest.warns(UserWarning, match="ProgressBar: there is no metric 'acuracy'") as said:
            engine.run(range(3), max_epochs=3)
        assert len(said) == 1

    def test_a_wrong_transform_is_the_users_error(self, clock):
        engine = make_engine(clock)
        ProgressBar(file=io.StringIO()).attach(engine, output_transform=lambda output: int("x"))
        with pytest.raises(ValueError, match="invalid literal"):
            engine.run(range(3))


def test_events_that_make_no_bar_are_refused():
    engine = make_engine()
    with pytest.raises(ValueError, match="counts 'completed' can't end at 'epoch_completed'"):
        ProgressBar().attach(
            engine, event_name=Events.COMPLETED, closing_event_name=Events.EPOCH_COMPLETED
        )
    with pytest.raises(TypeError, match="counts one event and ends at one"):
        ProgressBar().attach(engine, event_name=Events.STARTED | Events.COMPLETED)
