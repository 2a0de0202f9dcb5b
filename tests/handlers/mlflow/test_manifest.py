"""A recipe's run in MLflow holds the manifest."""

import json
from pathlib import Path

import pytest
import torch

from cookfire.engine import Engine
from cookfire.handlers import MLflowLogger, recipe
from cookfire.handlers.recipe._worker import Task, work

# MLflow's own models warn with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


@pytest.fixture
def restored():
    """Put torch's global settings back that a run makes for its process."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)


def test_the_manifest_of_a_finished_training_is_in_its_run(tmp_path, uri, client, restored):
    folder = tmp_path / "toy"
    folder.mkdir()

    def train(_, run):
        logger = MLflowLogger(uri, experiment="toy", run_name=run.profile)
        logger.log_params({"lr": 1})
        trainer = Engine(lambda engine, batch: batch)
        with logger:
            run.keep(trainer, mlflow=logger)
            trainer.run([1, 2])
        run.save("model.pt", {"w": 1})
        return {"loss": 0.5}

    task = Task(
        entry="train", recipe=folder, profile="tiny", parameters={"lr": 1}, data=folder,
        outputs=folder / "runs" / "tiny", logs=folder / "logs" / "tiny",
        resume=folder / ".resume" / "tiny",
    )  # fmt: skip
    work(0, train, recipe.Config(data="data"), task)
    experiment = client.get_experiment_by_name("toy").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    copy = client.download_artifacts(run.info.run_id, "manifest.json", str(tmp_path))
    manifest = json.loads((task.logs / "manifest.json").read_text())
    assert json.loads(Path(copy).read_text()) == manifest
    assert manifest["train"]["result"] == {"loss": 0.5}
