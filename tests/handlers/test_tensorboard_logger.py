import re
import sys
import threading
import warnings

import matplotlib
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from cookfire.engine import Engine, Events
from cookfire.handlers import tensorboard_logger
from cookfire.handlers.tensorboard_logger import *  # noqa: F403 - as ported scripts do
from cookfire.handlers.tensorboard_logger import (
    TensorboardLogger,
    WeightsHistHandler,
    global_step_from_engine,
)
from tests.handlers.saying import saying

matplotlib.use("Agg")


def read(folder):
    accumulator = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0, "tensors": 0}
    )
    accumulator.Reload()
    return accumulator


def points(folder):
    """Return what the folder holds: for each scalar its (step, value), by step.

    Files of one second are read in the order of their names, so sorting is left to us.
    """
    accumulator = read(folder)
    return {
        name: sorted((point.step, point.value) for point in accumulator.Scalars(name))
        for name in accumulator.Tags()["scalars"]
    }


def test_the_introductions_handlers_write_scalars_over_iterations_and_epochs(tmp_path):
    trainer = Engine(lambda engine, batch: torch.tensor(float(batch)))
    evaluator = Engine(lambda engine, batch: batch)
    logger = TensorboardLogger(log_dir=tmp_path)
    logger.attach_output_handler(
        trainer,
        event_name=Events.ITERATION_COMPLETED(every=2),
        tag="training",
        output_transform=lambda loss: {"batchloss": loss},
    )
    logger.attach_output_handler(
        evaluator,
        event_name=Events.EPOCH_COMPLETED,
        tag="validation",
        metric_names="all",
        global_step_transform=global_step_from_engine(trainer),
    )

    @trainer.on(Events.EPOCH_COMPLETED)
    def evaluate():
        evaluator.state.metrics["accuracy"] = trainer.state.epoch / 4
        evaluator.run([0])

    @evaluator.on(Events.STARTED)
    def measure():
        evaluator.state.metrics["accuracy"] = trainer.state.epoch / 4

    trainer.run(range(4), max_epochs=3)
    logger.close()
    assert points(tmp_path) == {
        "training/batchloss": [(2, 1.0), (4, 3.0), (6, 1.0), (8, 3.0), (10, 1.0), (12, 3.0)],
        "validation/accuracy": [(1, 0.25), (2, 0.5), (3, 0.75)],
    }


def test_images_figures_histograms_and_parameters_are_written(tmp_path):
    from matplotlib import pyplot

    with TensorboardLogger(tmp_path) as logger:
        logger.log_image(torch.rand(3, 4, 5), "colours", 1)
        logger.log_image(torch.randint(0, 255, (4, 5), dtype=torch.uint8), "greys", 1)
        figure = pyplot.figure()
        logger.log_figure(figure, "plot", 2)
        logger.log_histogram(torch.arange(10.0), "values", 3)
        logger.log_histogram(torch.arange(10, dtype=torch.bfloat16), "halves", 3)
        logger.log_params({"lr": 0.1, "model": {"name": "resnet"}})
    accumulator = read(tmp_path)
    assert set(accumulator.Tags()["images"]) == {"colours", "greys", "plot"}
    assert accumulator.Images("colours")[0].width == 5
    assert accumulator.Images("plot")[0].step == 2
    histogram = accumulator.Histograms("values")[0]
    assert (histogram.step, histogram.histogram_value.num) == (3, 10)
    assert histogram.histogram_value.sum == 45
    assert accumulator.Histograms("halves")[0].histogram_value.max == 9
    (text,) = accumulator.Tensors("parameters/text_summary")
    assert b"|lr|0.1|\n|model.name|resnet|" in text.tensor_proto.string_val[0]
    assert not pyplot.fignum_exists(figure.number), "figures would pile up"


def test_a_handler_of_the_users_own_draws_through_the_writer(tmp_path):
    from matplotlib import pyplot

    evaluator = Engine(lambda engine, batch: batch)

    def predictions_handler(engine, logger, *args, **kwargs):
        figure = pyplot.figure(figsize=(2, 2))
        logger.writer.add_figure("predictions", figure=figure, global_step=engine.state.epoch)

    logger = TensorboardLogger(log_dir=str(tmp_path))
    logger.attach(
        evaluator,
        log_handler=predictions_handler,
        event_name=Events.ITERATION_COMPLETED(once=1),
    )
    evaluator.run([0, 1])
    logger.add_text("note", "by a call that is forwarded", 5)
    logger.flush()
    assert logger.get_logdir() == str(tmp_path)
    logger.close()
    accumulator = read(tmp_path)
    assert [image.step for image in accumulator.Images("predictions")] == [1]
    assert accumulator.Tensors("note/text_summary")[0].step == 5


def test_values_equal_those_that_ignites_logger_writes(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ignite.engine
        import ignite.handlers.tensorboard_logger as theirs

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    model(torch.rand(4, 3)).sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    found = []
    for module, engine_class, events, folder in (
        (theirs, ignite.engine.Engine, ignite.engine.Events, tmp_path / "theirs"),
        (tensorboard_logger, Engine, Events, tmp_path / "ours"),
    ):
        engine = engine_class(lambda engine, batch: {"loss": torch.tensor(batch / 7)})
        with module.TensorboardLogger(log_dir=folder) as logger:
            logger.attach_opt_params_handler(engine, events.EPOCH_STARTED, optimizer, tag="a")
            for handler in (
                module.OutputHandler("train", output_transform=lambda output: output),
                module.WeightsScalarHandler(model),
                module.WeightsHistHandler(model, tag="a"),
                module.GradsScalarHandler(model, torch.mean),
                module.GradsHistHandler(model),
            ):
                logger.attach(engine, handler, events.ITERATION_COMPLETED(every=2))
            engine.run(range(5), max_epochs=2)
        accumulator = read(folder)
        histograms = {
            name: [(item.step, item.histogram_value) for item in accumulator.Histograms(name)]
            for name in accumulator.Tags()["histograms"]
        }
        found.append((points(folder), histograms))
    assert found[0] == found[1]
    assert len(found[1][0]) == 6
    assert len(found[1][1]) == 4


class TestResuming:
    """A run that logs over iterations and epochs, is killed, and continued."""

    def train(self, logger, state=None, save_at=None, kill_at=None):
        """Train; return what a checkpoint held at ``save_at``."""
        trainer = Engine(lambda engine, batch: float(engine.state.iteration))
        saved = {}
        logger.attach_output_handler(
            trainer, Events.ITERATION_COMPLETED, "train", output_transform=lambda x: {"loss": x}
        )
        logger.attach_output_handler(
            trainer, Events.EPOCH_COMPLETED, "epoch", output_transform=lambda x: {"last": x}
        )

        @trainer.on(Events.ITERATION_COMPLETED)
        def save_and_be_killed():
            if trainer.state.iteration == save_at:
                saved.update(trainer=trainer.state_dict(), logger=logger.state_dict())
            if trainer.state.iteration == kill_at:
                trainer.terminate(skip_completed=True)

        if state is not None:
            trainer.load_state_dict(state["trainer"])
            logger.load_state_dict(state["logger"])
        trainer.run(range(5), max_epochs=4)
        if kill_at is not None:
            logger.writer.flush()  # killed later than all of it reached the disk
        else:
            logger.close()
        return saved

    @pytest.fixture
    def expected(self, tmp_path):
        self.train(TensorboardLogger(tmp_path / "whole"))
        return points(tmp_path / "whole")

    def test_no_point_is_doubled_or_lost(self, tmp_path, expected):
        folder = tmp_path / "cut"
        state = self.train(TensorboardLogger(folder), save_at=7, kill_at=13)
        assert points(folder)["train/loss"][-1] == (13, 13.0)
        self.train(TensorboardLogger(folder), state)
        assert points(folder) == expected

    def test_nor_after_several_interruptions_some_without_a_new_checkpoint(
        self, tmp_path, expected
    ):
        folder = tmp_path / "cut"
        first = self.train(TensorboardLogger(folder), save_at=3, kill_at=7)
        self.train(TensorboardLogger(folder), first, kill_at=12)
        second = self.train(TensorboardLogger(folder), first, save_at=6, kill_at=16)
        self.train(TensorboardLogger(folder), second, kill_at=18)
        self.train(TensorboardLogger(folder), second)
        assert points(folder) == expected

    def test_a_checkpoint_before_the_first_point_counts(self, tmp_path, expected):
        folder = tmp_path / "cut"
        logger = TensorboardLogger(folder)
        state = {"trainer": Engine(print).state_dict(), "logger": logger.state_dict()}
        self.train(logger, kill_at=7)
        logger = TensorboardLogger(folder)
        logger.load_state_dict(state["logger"])
        self.train(logger)
        assert points(folder) == expected

    def test_what_was_logged_before_the_checkpoint_was_loaded_is_not_doubled(
        self, tmp_path, expected
    ):
        folder = tmp_path / "cut"
        logger = TensorboardLogger(folder)
        logger.log_params({"lr": 1})
        state = self.train(logger, save_at=7, kill_at=13)
        logger = TensorboardLogger(folder)
        logger.log_params({"lr": 1})
        self.train(logger, state)
        assert points(folder) == expected
        assert len(read(folder).Tensors("parameters/text_summary")) == 1

    def test_other_runs_in_the_folder_are_left_alone(self, tmp_path, expected):
        folder = tmp_path / "cut"
        with TensorboardLogger(folder) as other:
            other.log_metrics({"other": 1.0}, 100)
        state = self.train(TensorboardLogger(folder), save_at=7, kill_at=13)
        with TensorboardLogger(folder) as other:
            other.log_metrics({"another": 1.0}, 100)
        self.train(TensorboardLogger(folder), state)
        assert points(folder) == expected | {"other": [(100, 1.0)], "another": [(100, 1.0)]}

    def test_a_default_folder_is_found_again(self, tmp_path, monkeypatch, expected):
        monkeypatch.chdir(tmp_path)
        state = self.train(TensorboardLogger(), save_at=7, kill_at=13)
        (folder,) = (tmp_path / "runs").iterdir()
        monkeypatch.chdir("/")
        self.train(TensorboardLogger(), state)
        assert points(folder) == expected

    def test_the_state_can_be_loaded_with_weights_only(self, tmp_path):
        logger = TensorboardLogger(tmp_path / "logs")
        torch.save(logger.state_dict(), tmp_path / "state.pt")
        loaded = torch.load(tmp_path / "state.pt", weights_only=True)
        assert loaded == logger.state_dict()
        logger.close()


def test_nothing_is_written_before_something_is_logged(tmp_path):
    logger = TensorboardLogger(tmp_path / "logs")
    logger.close()
    assert not (tmp_path / "logs").exists()


def test_names_of_event_files_begin_as_tensorboards(tmp_path):
    with TensorboardLogger(str(tmp_path), filename_suffix=".mine") as logger:
        logger.log_metrics({"loss": 1.0})
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"events\.out\.tfevents\.\d+\.\S+\.\d+\.\d+\.mine\.[0-9a-f]{8}", path.name)


def test_without_tensorboard_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"pip install 'cookfire-handlers\[tensorboard\]'"
    ):
        TensorboardLogger("logs")


def test_a_folder_that_cannot_be_written_does_not_stop_the_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    engine = Engine(lambda engine, batch: batch)
    logger = TensorboardLogger(tmp_path / "file" / "logs")
    logger.attach_output_handler(
        engine, Events.ITERATION_COMPLETED, "train", output_transform=lambda output: output
    )
    with saying() as said:
        engine.run(range(10))
        logger.add_text("note", "lost")
        state = logger.state_dict()
        logger.close()
    assert engine.state.iteration == 10
    assert state["lengths"] == {}
    first, last = said
    assert "TensorboardLogger could not write metrics: NotADirectoryError" in first
    assert "10 records are lost" in last


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_failed_is_replaced_when_the_disk_has_room_again(tmp_path, monkeypatch):
    from tensorboard.summary.writer.record_writer import RecordWriter

    from cookfire.handlers import _delivery

    monkeypatch.setattr(_delivery, "SECONDS", 0.0)
    monkeypatch.setattr(_delivery, "SHARE", 0.0)
    others = set(threading.enumerate())
    logger = TensorboardLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, 1)
    logger.writer.flush()
    write = RecordWriter.write

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    with saying() as said:
        while logger._writer is not None:  # the file is written by a thread
            logger.log_metrics({"loss": 2.0}, 2)
    for thread in set(threading.enumerate()) - others:
        thread.join()  # its error is this test's, not the next one's
    assert "No space left on device" in said[0]
    monkeypatch.setattr(RecordWriter, "write", write)
    logger.log_metrics({"loss": 3.0}, 3)
    logger.close()
    assert {1, 3} <= {step for step, _ in points(tmp_path)["loss"]}


def test_a_wrong_call_of_a_forwarded_function_is_the_users_error(tmp_path):
    logger = TensorboardLogger(tmp_path)
    with pytest.raises(TypeError, match="no_such_argument"):
        logger.add_text("note", "text", no_such_argument=1)
    with pytest.raises(AttributeError, match="no attribute 'module'"):
        _ = logger.module
    logger.close()


def test_a_tensor_that_makes_no_histogram_is_left_out(tmp_path):
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    engine = Engine(lambda engine, batch: batch)
    with TensorboardLogger(tmp_path) as logger:
        logger.attach(engine, WeightsHistHandler(model), Events.ITERATION_COMPLETED)
        with pytest.warns(UserWarning, match="could not write a histogram") as said:
            engine.run(range(3))
    assert len(said) == 1
    assert len(read(tmp_path).Histograms("weights/bias")) == 3
