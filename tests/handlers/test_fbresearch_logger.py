import io
import logging
import re
import time

import pytest
import torch

from cookfire.engine import Engine, Events
from cookfire.handlers import FBResearchLogger
from tests.handlers.saying import saying


def lines_of(engine, run, **options):
    """Return what is written about a run, times as #."""
    logger = logging.getLogger(f"test {id(engine)}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    stream = io.StringIO()
    logger.addHandler(logging.StreamHandler(stream))
    attach = {
        name: options.pop(name)
        for name in ("every", "output_transform", "state_attributes", "optimizer")
        if name in options
    }
    FBResearchLogger(logger, **options).attach(engine, "Train", **attach)
    run()
    text = re.sub(r"\d:\d\d:\d\d", "#:##:##", stream.getvalue())
    return re.sub(r"\d\.\d{4} s", "# s", text).splitlines()


def test_lines_tell_epochs_values_and_times():
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(0.5), "image": torch.ones(2, 2)})
    engine.state.alpha = 3
    sgd = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.ones(1)], "lr": 0.2}], 1)
    engine.add_event_handler(
        Events.EPOCH_STARTED, lambda: engine.state.metrics.update(accuracy=0.25)
    )
    lines = lines_of(
        engine,
        lambda: engine.run(range(4), max_epochs=2),
        every=2,
        show_output=True,
        state_attributes=["alpha"],
        optimizer=sgd,
    )
    values = "lr: 1, 0.2  loss: 0.5000  alpha: 3  Iter time: # s  Data prep time: # s"
    assert lines == [
        line
        for epoch in ("[1/2]", "[2/2]")
        for line in (
            f"Train: start epoch {epoch}",
            f"Epoch {epoch}  [2/4]:  ETA: #:##:##  {values}",
            f"Epoch {epoch}  [4/4]:  ETA: #:##:##  {values}",
            f"Train: Epoch {epoch}  Total time: #:##:##  (# s / it)  accuracy: 0.2500",
        )
    ] + ["Train: run completed  Total time: #:##:##"]


def test_each_line_has_what_ignites_has():
    import ignite.engine
    import ignite.handlers.fbresearch_logger as theirs

    stream = io.StringIO()
    logger = logging.getLogger("theirs")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(stream))
    sgd = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    engine = ignite.engine.Engine(lambda engine, batch: torch.tensor(0.5))
    theirs.FBResearchLogger(logger, show_output=True).attach(
        engine, "Train", 2, lambda loss: {"loss": loss}, optimizer=sgd
    )
    engine.run(range(4), max_epochs=2)
    ours = Engine(lambda engine, batch: torch.tensor(0.5))
    lines = lines_of(
        ours,
        lambda: ours.run(range(4), max_epochs=2),
        every=2,
        output_transform=lambda loss: {"loss": loss},
        optimizer=sgd,
    )
    for line, other in zip(lines, stream.getvalue().splitlines(), strict=True):
        labels = re.findall(r"[A-Za-z][A-Za-z ]*", re.sub(r"\d\.\d+ s", "", other))
        assert [label for label in labels if label.strip() not in line] == []


def test_times_are_those_of_iterations_and_of_data(monkeypatch):
    def data():
        for batch in range(4):
            time.sleep(0.02)
            yield batch

    engine = Engine(lambda engine, batch: time.sleep(0.03))
    stream = io.StringIO()
    logger = logging.getLogger("times")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(stream))
    FBResearchLogger(logger, delimiter=" | ").attach(engine, "Train", every=2)
    engine.run(data(), max_epochs=1, epoch_length=4)
    found = re.findall(r"Iter time: ([\d.]+) s \| Data prep time: ([\d.]+) s", stream.getvalue())
    assert len(found) == 2
    for iteration, preparation in found:
        assert float(preparation) >= 0.02
        assert float(iteration) >= float(preparation) + 0.03


def test_data_of_unknown_length_have_no_total():
    engine = Engine(lambda engine, batch: batch)
    lines = lines_of(engine, lambda: engine.run(iter(range(2)), max_epochs=1), show_output=True)
    assert lines[1].startswith("Epoch [1/1]  [1]:  output: 0  Iter time")


def test_a_missing_attribute_is_said_once():
    engine = Engine(lambda engine, batch: batch)
    with saying() as said:
        lines_of(engine, lambda: engine.run(range(3)), state_attributes=["beta"])
    assert said == ["FBResearchLogger (Train): engine.state has no attribute 'beta'"]


def test_a_closed_file_does_not_stop_the_training(tmp_path, capsys):
    file = (tmp_path / "log.txt").open("w")
    logger = logging.getLogger("closing")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(file))
    engine = Engine(lambda engine, batch: batch)
    FBResearchLogger(logger).attach(engine, "Train")
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), file.close)
    assert engine.run(range(5)).iteration == 5
    assert "start epoch [1/1]" in (tmp_path / "log.txt").read_text()
    assert "Logging error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("logger", "options", "message"),
    [
        (3, {}, "must be a logging.Logger, got int"),
        (logging.getLogger("x"), {"output_transform": 3}, "output_transform .* got 3"),
        (logging.getLogger("x"), {"state_attributes": "alpha"}, "must be a list, got 'alpha'"),
    ],
)
def test_wrong_arguments_are_refused(logger, options, message):
    with pytest.raises(TypeError, match=message):
        FBResearchLogger(logger).attach(Engine(lambda *_: None), "Train", **options)
