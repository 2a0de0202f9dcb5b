"""MLflow."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cookfire.handlers._arrays import pixels
from cookfire.handlers._mlflow_calls import imported, is_outage, quick
from cookfire.handlers._mlflow_names import MLflowNames
from cookfire.handlers._mlflow_store import ARTIFACTS, create_database, database_of, default_uri
from cookfire.handlers._run_logger import RunLogger
from cookfire.handlers.base_logger import (
    GradsScalarHandler,
    OptimizerParamsHandler,
    OutputHandler,
    WeightsScalarHandler,
    global_step_from_engine,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GradsScalarHandler",
    "MLflowLogger",
    "OptimizerParamsHandler",
    "OutputHandler",
    "WeightsScalarHandler",
    "global_step_from_engine",
]

# What MLflow takes in one call.
METRICS_A_CALL = 1000
PARAMS_A_CALL = 100


class MLflowLogger(RunLogger):
    """Logs metrics, parameters, figures, images and files into a run of MLflow.

    MLflow is imported, and the run started, when the first thing but parameters is logged: a
    continued run (this logger's ``state_dict`` in a checkpoint) goes on with the same run, in
    which points that are there already are not written again. ``close`` ends the run; leaving a
    ``with`` block by an exception marks it as failed. A run that was active before belongs to
    the caller: it is used, and left open.

    Functions of MLflow are at hand: ``logger.set_tag("kind", "baseline")``,
    ``logger.log_text(...)``. They too warn in place of raising when MLflow fails.

    Args:
        tracking_uri: where MLflow keeps its runs. Default: what MLflow was told
            (``mlflow.set_tracking_uri``, MLFLOW_TRACKING_URI), else one database for the whole
            project: ``mlflow.db`` in the nearest folder with ``.dvc``, upwards from the working
            folder, or else in the working folder; files go to ``mlruns`` beside it. View it by
            ``mlflow ui --backend-store-uri sqlite:///mlflow.db`` there.
        experiment: name of the experiment, made if need be; default: what MLflow was told
            (``mlflow.set_experiment``, MLFLOW_EXPERIMENT_NAME), else "Default".
        run_name: name of a new run; default: one that MLflow makes up.

    Raises:
        ModuleNotFoundError: mlflow is not installed.

    Example:
        >>> with MLflowLogger(experiment="cifar10") as logger:  # doctest: +SKIP
        ...     logger.log_params({"lr": 0.1})
        ...     logger.attach_output_handler(
        ...         evaluator, Events.COMPLETED, tag="validation", metric_names="all",
        ...         global_step_transform=global_step_from_engine(trainer),
        ...     )
        ...     trainer.run(data, max_epochs=5)
    """

    package = "mlflow"
    forwarded = ("log_", "set_", "get_", "active_run")

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str | None = None,
        run_name: str | None = None,
    ) -> None:
        super().__init__()
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._run_name = run_name
        self._names = MLflowNames(self._warn_once)
        # Of a continued run: the steps that each metric has already.
        self._steps_there: dict[str, set[int]] | None = None

    def start_run(self, run_id: str | None) -> tuple[Any, str]:
        """Start or continue the run, in a store that is made if need be; return a client."""
        with quick():
            mlflow = imported()
            uri = self._tracking_uri
            if uri is None:
                uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else default_uri()
            database = database_of(uri)
            if database is not None:
                create_database(database)
                uri = f"sqlite:///{database}"
            mlflow.set_tracking_uri(uri)
            client = mlflow.MlflowClient(uri)
            active = mlflow.active_run()
            if run_id is not None and self._can_continue(client, run_id):
                if active is None:
                    mlflow.start_run(run_id)
                else:
                    client.update_run(run_id, "RUNNING")
                return client, run_id
            self._is_ours = active is None
            if active is None:
                experiment = self._experiment_id(client, database)
                active = mlflow.start_run(experiment_id=experiment, run_name=self._run_name)
            self._steps_there = None
            return client, active.info.run_id

    def end_run(self, run: Any, error: type[BaseException] | None) -> None:
        """Give the run its last status: finished, failed by an exception, or killed."""
        status = "FINISHED"
        if error is not None:
            status = "FAILED" if issubclass(error, Exception) else "KILLED"
        mlflow = imported()
        active = mlflow.active_run()
        with quick():
            if active is not None and active.info.run_id == self._run_id:
                mlflow.end_run(status)
            else:
                run.set_terminated(self._run_id, status)

    def discard_run(self, run: Any) -> None:
        """Remove a run that was started too early."""
        mlflow = imported()
        early = mlflow.active_run().info.run_id
        mlflow.end_run("KILLED")
        run.delete_run(early)

    def is_outage(self, error: Exception) -> bool:
        """Tell by the code of MLflow's exceptions."""
        return is_outage(error)

    def interface(self) -> Any:
        """Return MLflow's module, whose functions act on the active run."""
        return imported()

    functions = interface

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the run of the checkpoint, without a second point at any step."""
        before = self._run_id
        super().load_state_dict(state_dict)
        if self._run_id != before:
            self._steps_there = {}

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Log all metrics of an event in one call."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        with quick():
            metrics = [
                Metric(name, float(value), now, step)
                for name, value in zip(self._names(scalars), scalars.values(), strict=True)
                if not self._is_there(name, step)
            ]
            for first in range(0, len(metrics), METRICS_A_CALL):
                self._run.log_batch(self._run_id, metrics[first : first + METRICS_A_CALL])

    def write_params(self, params: dict[str, object]) -> None:
        """Log parameters, as strings."""
        from mlflow.entities import Param

        listed = [
            Param(name, str(value))
            for name, value in zip(self._names(params), params.values(), strict=True)
        ]
        with quick():
            for first in range(0, len(listed), PARAMS_A_CALL):
                some = listed[first : first + PARAMS_A_CALL]
                try:
                    self._run.log_batch(self._run_id, params=some)
                except Exception as error:  # of the store or the server: one of them is refused
                    if is_outage(error):
                        raise
                    self._write_params_singly(some)

    def _write_params_singly(self, params: Iterable[Any]) -> None:
        """Write what can be: one value that has changed makes MLflow refuse all of a call."""
        refused = []
        for param in params:
            try:
                self._run.log_param(self._run_id, param.key, param.value)
            except Exception as error:  # likewise; all of them are named below
                refused.append(f"{param.key} ({error})")
        if refused:
            raise ValueError(f"refused were {', '.join(refused)}")

    def write_image(self, image: Tensor, name: str, step: int) -> None:
        """Store the image as a PNG file, named like a figure's."""
        self._run.log_image(self._run_id, pixels(image), _picture(name, step))

    def write_figure(self, figure: Figure, name: str, step: int) -> None:
        """Store the figure as ``name`` if that ends in ``.png`` or the like, else one a step."""
        self._run.log_figure(self._run_id, figure, _picture(name, step))

    def write_artifact(self, path: Path, folder: str | None) -> None:
        """Log a file or a folder."""
        write = self._run.log_artifacts if path.is_dir() else self._run.log_artifact
        write(self._run_id, str(path), folder)

    def _can_continue(self, client: Any, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            stage = client.get_run(run_id).info.lifecycle_stage
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            stage = "unknown here"
        if stage != "active":
            self._warn_once(
                "run", f"MLflowLogger: the run {run_id} is {stage}; a new one is started"
            )
        return bool(stage == "active")

    def _experiment_id(self, client: Any, database: Path | None) -> str | None:
        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name:
            return None
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(name)
        if found is None:
            # MLflow would put the files of a local database into the working folder.
            folder = None if database is None else str(database.parent / ARTIFACTS / _file(name))
            try:
                return str(client.create_experiment(name, folder))
            except MlflowException:  # unless another process was faster
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _is_there(self, name: str, step: int) -> bool:
        if self._steps_there is None:
            return False
        if name not in self._steps_there:
            history = self._run.get_metric_history(self._run_id, name)
            self._steps_there[name] = {metric.step for metric in history}
        return step in self._steps_there[name]


def _picture(name: str, step: int) -> str:
    """Name a picture's file; the same at the same step of a continued run, which replaces it."""
    return name if Path(name).suffix else f"{name}/{step:08d}.png"


def _file(name: str) -> str:
    return re.sub(r"[^\w.\-]", "_", name)
