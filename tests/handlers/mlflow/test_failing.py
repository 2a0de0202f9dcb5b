"""MLflow out of reach."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cookfire.engine import Engine, Events
from cookfire.handlers import _delivery
from cookfire.handlers.mlflow_logger import MLflowLogger
from tests.handlers.mlflow.reading import points, runs, wait_for
from tests.handlers.saying import saying

# MLflow's own models warn with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


class TestFailing:
    def test_a_server_out_of_reach_does_not_stop_or_hold_up_the_training(self):
        engine = Engine(lambda engine, batch: batch)
        logger = MLflowLogger("http://127.0.0.1:9")
        logger.log_params({"lr": 0.1})
        logger.attach_output_handler(
            engine, Events.ITERATION_COMPLETED, "train", output_transform=lambda output: output
        )
        begin = time.monotonic()
        with saying() as said:
            engine.run(range(100))
            assert logger.state_dict() == {"run_id": None}
            logger.close()
        assert time.monotonic() - begin < 30
        assert engine.state.iteration == 100
        first, last = said
        assert "MLflowLogger could not write metrics: ConnectionError: no run could be" in first
        assert "101 records are lost" in last or "100 records are lost" in last

    def test_a_server_that_dies_midway_keeps_what_it_got(self, tmp_path, migrated, monkeypatch):
        import mlflow

        monkeypatch.setattr(_delivery, "SHARE", 0.0)
        monkeypatch.setattr(_delivery, "SECONDS", 1000.0)
        database = tmp_path / "server.db"
        shutil.copy(migrated, database)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = (tmp_path / "server.log").open("wb")
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--backend-store-uri", f"sqlite:///{database}", "--workers", "1",
             "--artifacts-destination", str(tmp_path / "files")],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(port, server)
            trainer = Engine(lambda engine, batch: float(batch))
            logger = MLflowLogger(f"http://127.0.0.1:{port}", experiment="live", run_name="first")
            logger.log_params({"lr": 0.1})
            logger.attach_output_handler(
                trainer, Events.ITERATION_COMPLETED, "train", output_transform=lambda x: {"loss": x}
            )

            @trainer.on(Events.ITERATION_COMPLETED(once=2))
            def query_and_kill():
                logger.log_artifact(__file__, "code")
                client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
                (run,) = runs(client, "live")
                assert run.info.run_name == "first"
                assert run.data.params == {"lr": "0.1"}
                assert points(client, run.info.run_id) == {"train/loss": [(1, 5.0), (2, 6.0)]}
                (file,) = client.list_artifacts(run.info.run_id, "code")
                assert file.path == f"code/{Path(__file__).name}"
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(10)

            with saying() as said:
                state = trainer.run([5, 6, 7, 8])
                logger.close()
        finally:
            log.close()
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(10)
        assert state.iteration == 4
        outage, lost = said
        assert "MLflowLogger could not write metrics: ConnectionError" in outage
        assert lost == "MLflowLogger is still out of reach: 2 records are lost"
        # What the server had is in its database.
        client = mlflow.MlflowClient(f"sqlite:///{database}")
        assert points(client, logger.run_id) == {"train/loss": [(1, 5.0), (2, 6.0)]}

    def test_what_was_kept_is_written_when_the_database_can_be(self, uri, client, monkeypatch):
        database = Path(uri.removeprefix("sqlite:///"))
        monkeypatch.setattr(_delivery, "SECONDS", 0.0)
        monkeypatch.setattr(_delivery, "SHARE", 0.0)
        logger = MLflowLogger(f"sqlite:///{database.parent / 'file' / 'mlflow.db'}")
        (database.parent / "file").write_text("in the way")
        logger.log_params({"lr": 0.1})
        with saying() as said:
            for step in range(3):
                logger.log_metrics({"loss": step}, step)
        (text,) = said
        assert "no run could be started" in text
        (database.parent / "file").unlink()
        (database.parent / "file").symlink_to(database.parent)
        logger.log_metrics({"loss": 3}, 3)
        logger.close()
        (run,) = runs(client)
        assert run.data.params == {"lr": "0.1"}
        assert points(client, run.info.run_id) == {"loss": [(i, float(i)) for i in range(4)]}

    def test_a_locked_database_is_waited_for_by_nobody(self, uri, client, monkeypatch):
        from mlflow.exceptions import MlflowException

        logger = MLflowLogger(uri)
        logger.log_metrics({"loss": 0}, 0)

        def locked(*args, **kwargs):
            raise MlflowException("database is locked")

        with monkeypatch.context() as patch:
            patch.setattr(type(logger.run), "log_batch", locked)
            with pytest.warns(UserWarning, match="ConnectionError: database is locked"):
                logger.log_metrics({"loss": 1}, 1)
            logger.log_params({"lr": 0.1})
        logger.close()
        (run,) = runs(client)
        assert points(client, run.info.run_id) == {"loss": [(0, 0.0), (1, 1.0)]}
        assert run.data.params == {"lr": "0.1"}

    def test_a_file_that_is_no_database_does_not_stop_the_training(self, tmp_path, monkeypatch):
        import mlflow.store.db.utils

        monkeypatch.setattr(mlflow.store.db.utils, "MAX_RETRY_COUNT", 1)
        (tmp_path / "mlflow.db").write_bytes(b"nonsense" * 1000)
        logger = MLflowLogger(f"sqlite:///{tmp_path / 'mlflow.db'}")
        with pytest.warns(UserWarning, match="no run could be started .*not a database"):
            logger.log_metrics({"loss": 1.0})

    def test_without_mlflow_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "mlflow", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'cookfire-handlers\[mlflow\]'"):
            MLflowLogger()
