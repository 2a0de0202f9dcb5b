import csv
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cookfire.engine import Engine, Events
from cookfire.handlers.base_logger import OutputHandler, global_step_from_engine
from cookfire.handlers.table_logger import TableLogger
from tests.handlers.saying import saying


@pytest.fixture
def path(tmp_path):
    return tmp_path / "curves" / "curves.tsv"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_what_engines_log_for_one_epoch_is_one_row(path):
    trainer = Engine(lambda engine, batch: torch.tensor(0.1 * engine.state.epoch))
    evaluator = Engine(lambda engine, batch: None)
    table = TableLogger(path)
    table.attach_output_handler(
        trainer, Events.EPOCH_COMPLETED, "train", output_transform=lambda loss: {"loss": loss}
    )
    table.attach_output_handler(
        evaluator,
        Events.COMPLETED,
        "val",
        metric_names="all",
        global_step_transform=global_step_from_engine(trainer),
    )

    @trainer.on(Events.EPOCH_COMPLETED)
    def evaluate():
        evaluator.run([0])

    @evaluator.on(Events.EPOCH_COMPLETED)
    def measure():
        evaluator.state.metrics = {"accuracy": 1 - 0.5**trainer.state.epoch, "n": 10}

    trainer.run([0], max_epochs=3)
    assert path.read_text() == (
        "epoch\ttrain_loss\tval_accuracy\tval_n\n"
        "1\t0.10000000149011612\t0.5\t10\n"
        "2\t0.20000000298023224\t0.75\t10\n"
        "3\t0.30000001192092896\t0.875\t10\n"
    )


def test_a_late_column_is_added_at_the_right_and_is_nan_before(path):
    table = TableLogger(path, step_name="step")
    table.log_metrics({"loss": 2.0}, 10)
    table.log_metrics({"loss": 1.0, "accuracy": 0.5}, 20)
    table.log_metrics({"accuracy": 0.75}, 30)
    assert path.read_text() == "step\tloss\taccuracy\n10\t2.0\tnan\n20\t1.0\t0.5\n30\tnan\t0.75\n"
    assert table.columns == ("step", "loss", "accuracy")


def test_declared_columns_are_those_of_the_file(path):
    table = TableLogger(path, ["val/accuracy", "train_loss"])
    with saying() as said:
        for epoch in (1, 2):
            table.log_metrics({"lr": 0.1, "train": {"loss": 1.0}}, epoch)
    (text,) = said
    assert "'lr' is none of the columns of curves.tsv (val_accuracy, train_loss)" in text
    assert path.read_text() == "epoch\tval_accuracy\ttrain_loss\n1\tnan\t1.0\n2\tnan\t1.0\n"
    with pytest.raises(ValueError, match="declared twice: epoch, loss, loss"):
        TableLogger(path, ["loss", "loss"])


def test_a_metric_called_like_the_step_is_left_out(path):
    table = TableLogger(path)
    with pytest.warns(UserWarning, match="'epoch' is none of the columns"):
        table.log_metrics({"epoch": 3, "loss": 1.0}, 1)
    assert path.read_text() == "epoch\tloss\n1\t1.0\n"


def test_names_hold_no_separators(path):
    TableLogger(path).log_metrics({"train/batch\tloss\n": 1.0}, 1)
    assert path.read_text() == "epoch\ttrain_batch loss\n1\t1.0\n"


def test_a_value_logged_again_replaces_the_first_and_rows_are_in_order(path):
    table = TableLogger(path)
    for step, value in [(2, 2.0), (1, 1.0), (2, 3.0)]:
        table.log_metrics({"loss": value}, torch.tensor(step))
    assert path.read_text() == "epoch\tloss\n1\t1.0\n2\t3.0\n"


@given(st.lists(st.floats(), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_floats_are_written_without_loss(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("table") / "curves.tsv"
    table = TableLogger(path)
    table.load_state_dict(
        {"columns": ["x"], "rows": [[step, {"x": value}] for step, value in enumerate(values)]}
    )
    for row, value in zip(rows(path), values, strict=True):
        assert float(row["x"]) == value or math.isnan(value)


class TestResuming:
    def train(self, table, state=None, save_at=None, kill_at=None):
        saved = {}
        trainer = Engine(lambda engine, batch: None)
        # Not the step's output: a checkpoint of an epoch's last iteration does not hold it.
        handler = OutputHandler("train", state_attributes=["iteration"])
        table.attach(trainer, handler, Events.EPOCH_COMPLETED)
        table.attach(
            trainer,
            lambda engine, logger, event: logger.log_metrics(
                {"val/accuracy": engine.state.epoch / 3}, engine.state.epoch
            ),
            Events.EPOCH_COMPLETED(every=2),
        )

        @trainer.on(Events.ITERATION_COMPLETED)
        def save_and_be_killed():
            if trainer.state.iteration == save_at:
                saved.update(trainer=trainer.state_dict(), table=table.state_dict())
            if trainer.state.iteration == kill_at:
                trainer.terminate(skip_completed=True)

        if state is not None:
            trainer.load_state_dict(state["trainer"])
            table.load_state_dict(state["table"])
        trainer.run(range(5), max_epochs=5)
        return saved

    @pytest.mark.parametrize("columns", [None, ["val_accuracy", "train_iteration"]])
    @pytest.mark.parametrize(("save_at", "kill_at"), [(2, 3), (4, 12), (10, 11), (13, 24)])
    def test_the_bytes_equal_an_uninterrupted_runs(self, tmp_path, columns, save_at, kill_at):
        self.train(TableLogger(tmp_path / "whole.tsv", columns))
        path = tmp_path / "cut.tsv"
        state = self.train(TableLogger(path, columns), save_at=save_at, kill_at=kill_at)
        torch.save(state, tmp_path / "state.pt")
        path.unlink(missing_ok=True)  # as DVC does with a stage's outs
        self.train(TableLogger(path, columns), torch.load(tmp_path / "state.pt", weights_only=True))
        assert path.read_bytes() == (tmp_path / "whole.tsv").read_bytes()

    def test_loading_writes_the_table_as_it_was(self, path):
        table = TableLogger(path)
        table.log_metrics({"loss": 1.0}, 1)
        state = table.state_dict()
        before = path.read_bytes()
        table.log_metrics({"loss": 2.0}, 2)
        TableLogger(path).load_state_dict(state)
        assert path.read_bytes() == before


def test_a_table_that_cannot_be_written_does_not_stop_the_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    table = TableLogger(tmp_path / "file" / "curves.tsv")
    with saying() as said:
        for epoch in range(3):
            table.log_metrics({"loss": 1.0}, epoch)
    (text,) = said
    assert "TableLogger could not write metrics: " in text
    (tmp_path / "file").unlink()
    table.close()
    assert len(rows(tmp_path / "file" / "curves.tsv")) == 3


def test_images_and_figures_are_png_beside_the_table_with_bytes_of_their_own_alone(path):
    from matplotlib.figure import Figure
    from PIL import Image

    table = TableLogger(path)
    contents = []
    for _ in range(2):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([1, 2])
        table.log_figure(figure, "val/predictions.png", 3)
        contents.append((path.parent / "val_predictions.png").read_bytes())
    assert contents[0] == contents[1]
    assert b"matplotlib" not in contents[0].lower()
    table.log_image(torch.tensor([[[0.0, 1.0]], [[0.5, 0.0]], [[2.0, -1.0]]]), "colours")
    table.log_image(torch.tensor([[0, 7]], dtype=torch.uint8), "greys")
    table.log_image(torch.ones(1, 2, 3), "white")
    with Image.open(path.parent / "colours.png") as image:
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [(0, 128, 255), (255, 0, 0)]
    with Image.open(path.parent / "greys.png") as image:
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [0, 7]
    with Image.open(path.parent / "white.png") as image:
        assert (image.size, image.getpixel((0, 0))) == ((3, 2), 255)


def test_what_a_table_has_no_place_for_is_said(path):
    table = TableLogger(path)
    with pytest.warns(UserWarning, match="TableLogger has no place for parameters"):
        table.log_params({"lr": 0.1})
    with pytest.warns(UserWarning, match="TableLogger has no place for a file"):
        table.log_artifact(path)
