"""A database of MLflow of its own for each test."""

import os
import shutil
import sys

import pytest

from cookfire.handlers import _mlflow_store

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """MLflow's database, made once: its migrations take seconds."""
    path = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    _mlflow_store.create_database(path)
    return path


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Let MLflow, which keeps where it writes in globals, forget it after each test."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    yield
    if sys.modules.get("mlflow") is not None:
        import mlflow

        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.set_tracking_uri(None)


@pytest.fixture
def uri(tmp_path, migrated):
    path = tmp_path / "my project" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(migrated, path)
    return f"sqlite:///{path}"


@pytest.fixture
def client(uri):
    import mlflow

    return mlflow.MlflowClient(uri)
