"""MLflow gets metrics and parameters, in runs that go on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cookfire.engine import Engine, Events
from cookfire.handlers.base_logger import global_step_from_engine
from cookfire.handlers.mlflow_logger import MLflowLogger
from tests.handlers.mlflow.reading import points, runs
from tests.handlers.saying import saying

# MLflow's own models warn with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


class TestLogging:
    def test_metrics_and_parameters_are_read_back(self, uri, client):
        trainer = Engine(lambda engine, batch: torch.tensor(float(batch)))
        evaluator = Engine(lambda engine, batch: None)
        with MLflowLogger(uri, run_name="first") as logger:
            logger.log_params({"lr": 0.1, "model": {"name": "resnet"}})
            logger.attach_output_handler(
                trainer,
                Events.ITERATION_COMPLETED(every=2),
                tag="train",
                output_transform=lambda loss: {"loss": loss},
            )
            logger.attach_output_handler(
                evaluator,
                Events.COMPLETED,
                tag="val",
                metric_names="all",
                global_step_transform=global_step_from_engine(trainer),
            )

            @trainer.on(Events.EPOCH_COMPLETED)
            def evaluate():
                evaluator.run([0])

            @evaluator.on(Events.EPOCH_COMPLETED)
            def measure():
                evaluator.state.metrics["accuracy"] = trainer.state.epoch / 4

            trainer.run(range(4), max_epochs=2)
        (run,) = runs(client)
        assert run.info.run_name == "first"
        assert run.info.status == "FINISHED"
        assert run.data.params == {"lr": "0.1", "model.name": "resnet"}
        assert points(client, run.info.run_id) == {
            "train/loss": [(2, 1.0), (4, 3.0), (6, 1.0), (8, 3.0)],
            "val/accuracy": [(1, 0.25), (2, 0.5)],
        }

    def test_an_event_is_one_call(self, uri, client, monkeypatch):
        import mlflow

        calls = []
        log_batch = mlflow.MlflowClient.log_batch
        monkeypatch.setattr(
            mlflow.MlflowClient,
            "log_batch",
            lambda *args, **kwargs: calls.append(args) or log_batch(*args, **kwargs),
        )
        with MLflowLogger(uri) as logger:
            logger.log_metrics({f"metric {index}": index for index in range(50)}, 3)
            assert len(calls) == 1
            logger.log_metrics({f"many {index}": index for index in range(1500)}, 3)
            logger.log_params({f"param {index}": index for index in range(150)})
            logger.log_params({"long": "x" * 10_000})
        (run,) = runs(client)
        assert len(run.data.metrics) == 1550
        assert len(run.data.params) == 151

    def test_figures_images_and_files_are_stored_beside_the_database(self, uri, client, tmp_path):
        from matplotlib.figure import Figure

        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.txt").write_text("note")
        with MLflowLogger(uri, experiment="pictures/one") as logger:
            logger.log_figure(Figure(figsize=(1, 1)), "predictions", 7)
            logger.log_figure(Figure(figsize=(1, 1)), "confusion.png")
            logger.log_image(torch.rand(3, 4, 5), "val/image", 7)
            logger.log_image(torch.zeros(4, 5, dtype=torch.uint8), "grey", 7)
            logger.log_artifact(tmp_path / "notes" / "a.txt", "texts")
            logger.log_artifact(str(tmp_path / "notes"), "folder")
        (run,) = runs(client, "pictures/one")
        stored = Path(run.info.artifact_uri)
        assert stored.is_relative_to(tmp_path / "my project" / "mlruns")
        files = {str(path.relative_to(stored)) for path in stored.rglob("*") if path.is_file()}
        assert files == {
            "predictions/00000007.png",
            "val/image/00000007.png",
            "grey/00000007.png",
            "confusion.png",
            "texts/a.txt",
            "folder/a.txt",
        }

    def test_names_that_mlflow_does_not_allow_are_changed_with_one_warning(self, uri, client):
        with MLflowLogger(uri) as logger:
            with saying() as said:
                for step in range(3):
                    logger.log_metrics({"a=b": 1, "a+b": 2, "/c//../d": 3, "fine - 1.0:": 4}, step)
            assert said == [
                "MLflow does not allow all names; logged are "
                "'a=b' as 'a_b', 'a+b' as 'a_b_2', '/c//../d' as 'c/d'"
            ]
            with pytest.warns(UserWarning, match=r"'\.\.' as '_'"):
                logger.log_metrics({"..": 1})
            with pytest.warns(UserWarning, match="nnn_2'"):
                logger.log_metrics({"n" * 250: 1, "n" * 251: 2})
        (run,) = runs(client)
        assert {"a_b": 1, "a_b_2": 2, "c/d": 3, "fine - 1.0:": 4, "_": 1}.items() <= (
            run.data.metrics.items()
        )
        assert points(client, run.info.run_id)["a_b"] == [(0, 1.0), (1, 1.0), (2, 1.0)]

    def test_values_that_are_not_finite_are_taken(self, uri, client):
        with MLflowLogger(uri) as logger:
            logger.log_metrics({"nan": float("nan"), "inf": float("inf"), "loss": 1})
        (run,) = runs(client)
        assert set(run.data.metrics) == {"nan", "inf", "loss"}

    def test_mlflows_own_functions_are_at_hand(self, uri, client):
        logger = MLflowLogger(uri)
        logger.set_tag("kind", "baseline")
        logger.log_metric("loss", 0.5, step=3)
        logger.log_text("some text", "notes.txt")
        assert logger.active_run().info.run_id == logger.run_id
        with pytest.raises(TypeError, match="no_such"):
            logger.set_tag("kind", "baseline", no_such="argument")
        with pytest.raises(AttributeError, match="no attribute 'module'"):
            _ = logger.module
        with pytest.raises(AttributeError, match="no attribute 'log_everything'"):
            _ = logger.log_everything
        with pytest.warns(UserWarning, match="could not write what log_metric was given"):
            logger.log_metric("a=b", 1)
        logger.close()
        (run,) = runs(client)
        assert run.data.tags["kind"] == "baseline"
        assert points(client, run.info.run_id) == {"loss": [(3, 0.5)]}


class TestRuns:
    @pytest.mark.parametrize(
        ("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")]
    )
    def test_an_exception_marks_the_run(self, uri, client, error, status):
        def train():
            with MLflowLogger(uri) as logger:
                logger.log_metrics({"loss": 1})
                raise error

        with pytest.raises(error):
            train()
        assert [run.info.status for run in runs(client)] == [status]

    def test_a_run_that_is_active_is_used_and_left_open(self, uri, client):
        import mlflow

        mlflow.set_tracking_uri(uri)
        with mlflow.start_run(run_name="mine") as run:
            with MLflowLogger() as logger:
                logger.log_metrics({"loss": 1.0}, 1)
            assert client.get_run(run.info.run_id).info.status == "RUNNING"
            mlflow.log_metric("after", 2.0)
        assert [run.data.metrics for run in runs(client)] == [{"loss": 1.0, "after": 2.0}]

    def test_parameters_alone_make_a_run_too(self, uri, client):
        with MLflowLogger(uri) as logger:
            logger.log_params({"lr": 0.1})
            assert runs(client) == []
        assert [run.data.params for run in runs(client)] == [{"lr": "0.1"}]

    def test_nothing_logged_makes_none(self, uri, client):
        MLflowLogger(uri).close()
        assert runs(client) == []

    def test_an_experiment_is_made_once_and_found_again(self, uri, client, monkeypatch):
        for _ in range(2):
            with MLflowLogger(uri, experiment="cifar10") as logger:
                logger.log_metrics({"loss": 1})
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cifar10")
        with MLflowLogger(uri) as logger:
            logger.log_metrics({"loss": 1})
        assert len(runs(client, "cifar10")) == 3

    def test_a_changed_parameter_is_said_and_the_others_are_kept(self, uri, client):
        with MLflowLogger(uri) as logger:
            logger.log_metrics({"loss": 1})
            logger.log_params({"lr": 0.1})
            with pytest.warns(UserWarning, match="could not write parameters: .*lr"):
                logger.log_params({"lr": 0.2, "momentum": 0.9})
        assert runs(client)[0].data.params == {"lr": "0.1", "momentum": "0.9"}


class TestResuming:
    def train(self, logger, state=None, save_at=None, kill_at=None):
        logger.log_params({"lr": 0.1})
        trainer = Engine(lambda engine, batch: float(engine.state.iteration))
        saved = {}
        for event, tag in [
            (Events.ITERATION_COMPLETED, "train"),
            (Events.EPOCH_COMPLETED, "epoch"),
        ]:
            logger.attach_output_handler(
                trainer, event, tag, output_transform=lambda x: {"loss": x}
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
        trainer.run(range(3), max_epochs=3)
        if kill_at is None:
            logger.close()
        else:  # another process would know nothing of it
            import mlflow

            mlflow.end_run("KILLED")
        return saved

    def test_the_same_run_goes_on_without_a_doubled_point(self, uri, client, tmp_path):
        self.train(MLflowLogger(uri, experiment="whole"))
        state = self.train(MLflowLogger(uri), save_at=4, kill_at=7)
        torch.save(state, tmp_path / "state.pt")
        self.train(MLflowLogger(uri), torch.load(tmp_path / "state.pt", weights_only=True))
        (run,) = runs(client, view=3)
        assert run.info.status == "FINISHED"
        assert run.data.params == {"lr": "0.1"}
        (whole,) = runs(client, "whole")
        assert points(client, run.info.run_id) == points(client, whole.info.run_id)

    def test_a_checkpoint_before_the_first_point_counts(self, uri, client):
        logger = MLflowLogger(uri)
        state = {"trainer": Engine(print).state_dict(), "logger": logger.state_dict()}
        self.train(logger, kill_at=4)
        logger = MLflowLogger(uri)
        logger.load_state_dict(state["logger"])
        self.train(logger)
        (run,) = runs(client)
        assert len(points(client, run.info.run_id)["train/loss"]) == 9

    def test_a_run_that_was_started_too_early_is_removed(self, uri, client):
        state = self.train(MLflowLogger(uri), save_at=4, kill_at=7)
        logger = MLflowLogger(uri)
        logger.set_tag("too", "early")
        self.train(logger, state)
        assert len(runs(client)) == 1
        assert len(runs(client, view=2)) == 1

    def test_a_run_that_is_gone_is_replaced_with_a_warning(self, uri, client):
        state = self.train(MLflowLogger(uri), save_at=4, kill_at=7)
        client.delete_run(state["logger"]["run_id"])
        with pytest.warns(UserWarning, match="is deleted; a new one is started"):
            self.train(MLflowLogger(uri), state)
        (run,) = runs(client)
        assert len(points(client, run.info.run_id)["train/loss"]) == 5
        logger = MLflowLogger(uri)
        logger.load_state_dict({"run_id": "f" * 32})
        with pytest.warns(UserWarning, match="is unknown here; a new one is started"):
            logger.log_metrics({"loss": 1})
        logger.close()

    def test_a_caller_who_has_a_run_of_his_own_keeps_it(self, uri, client):
        import mlflow

        state = self.train(MLflowLogger(uri), save_at=4, kill_at=7)
        mlflow.set_tracking_uri(uri)
        with mlflow.start_run() as own:
            self.train(MLflowLogger(uri), state)
            assert client.get_run(own.info.run_id).info.status == "RUNNING"
        assert client.get_run(state["logger"]["run_id"]).info.status == "FINISHED"
        assert points(client, own.info.run_id) == {}


def test_making_a_logger_imports_nothing():
    program = (
        "import sys\n"
        "from cookfire.handlers.mlflow_logger import MLflowLogger\n"
        "from cookfire.handlers.tensorboard_logger import TensorboardLogger\n"
        "from cookfire.handlers.tqdm_logger import ProgressBar\n"
        "MLflowLogger(), TensorboardLogger('logs'), ProgressBar()\n"
        "heavy = {'mlflow', 'tensorboard', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
