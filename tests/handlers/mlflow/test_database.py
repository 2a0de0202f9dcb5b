"""The database that MLflow writes, made once by whoever comes first."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cookfire.handlers import _mlflow_store
from cookfire.handlers.mlflow_logger import MLflowLogger
from tests.handlers.mlflow.reading import runs

# MLflow's own models warn with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


class TestTheDatabase:
    def test_it_is_at_the_projects_root_wherever_a_recipe_runs(
        self, tmp_path, monkeypatch, migrated
    ):
        folder = tmp_path / "recipes" / "mnist"
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        assert _mlflow_store.default_uri() == f"sqlite:///{folder / 'mlflow.db'}"
        (tmp_path / ".dvc").mkdir()
        assert _mlflow_store.default_uri() == f"sqlite:///{tmp_path / 'mlflow.db'}"
        shutil.copy(migrated, tmp_path / "mlflow.db")
        with MLflowLogger(experiment="mnist") as logger:
            logger.log_metrics({"loss": 1})
            logger.log_text("text", "note.txt")
        assert list(folder.iterdir()) == []
        assert len(list((tmp_path / "mlruns" / "mnist").rglob("note.txt"))) == 1

    def test_what_mlflow_was_told_comes_first(self, uri, client, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with MLflowLogger() as logger:
            logger.log_metrics({"loss": 1})
        assert len(runs(client)) == 1
        assert not (tmp_path / "mlflow.db").exists()

    def test_a_new_one_keeps_files_beside_itself(self, migrated):
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{migrated}")
        location = client.get_experiment_by_name("Default").artifact_location
        assert Path(location) == migrated.parent / "mlruns" / "0"

    def test_other_stores_are_left_to_mlflow(self):
        for uri in (
            "http://server",
            "sqlite://",
            "sqlite:///:memory:",
            "file:///runs",
            "databricks",
        ):
            assert _mlflow_store.database_of(uri) is None
        assert _mlflow_store.database_of("sqlite:///a b.db") == Path.cwd() / "a b.db"

    def test_a_kill_while_it_is_made_leaves_none_and_two_at_once_make_one(self, tmp_path):
        path = tmp_path / "mlflow.db"
        partial = tmp_path / ".mlflow.db.partial"
        # Only this module, so that the processes need not import torch.
        program = (
            "import pathlib, runpy, sys\n"
            f"module = runpy.run_path({_mlflow_store.__file__!r})\n"
            "module['create_database'](pathlib.Path(sys.argv[1]))\n"
        )

        command = [sys.executable, "-c", program, str(path)]
        killed = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not (partial.exists() and partial.stat().st_size > 100_000):
            assert killed.poll() is None, killed.communicate()[1]
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert partial.exists(), "it was killed too late for this test to say anything"
        assert not path.exists()

        with ThreadPoolExecutor() as pool:
            list(pool.map(_mlflow_store.create_database, [path, path]))
        assert [entry.name for entry in tmp_path.iterdir()] == ["mlflow.db"]
        with sqlite3.connect(path) as database:
            assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        database.close()
        with MLflowLogger(f"sqlite:///{path}") as logger:
            logger.log_metrics({"loss": 1.0}, 1)
            assert logger.run_id is not None

    def test_a_database_that_mlflow_made_meanwhile_stays(self, tmp_path):
        (tmp_path / "partial").write_text("ours")
        (tmp_path / "mlflow.db").write_text("theirs")
        _mlflow_store._publish(tmp_path / "partial", tmp_path / "mlflow.db")
        assert (tmp_path / "mlflow.db").read_text() == "theirs"

    def test_a_file_system_without_links_will_do(self, tmp_path, monkeypatch):
        def refuse(*args):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        (tmp_path / "partial").write_text("ours")
        _mlflow_store._publish(tmp_path / "partial", tmp_path / "mlflow.db")
        assert (tmp_path / "mlflow.db").read_text() == "ours"
