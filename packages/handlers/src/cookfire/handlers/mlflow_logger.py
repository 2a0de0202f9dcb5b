"""MLflow."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cookfire.handlers._delivery import require
from cookfire.handlers._mlflow_calls import OUTAGES, imported, outages, quick
from cookfire.handlers._mlflow_store import ARTIFACTS, create_database, database_of, default_uri
from cookfire.handlers.base_logger import (
    BaseLogger,
    OptimizerParamsHandler,
    OutputHandler,
    global_step_from_engine,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MLflowLogger", "OptimizerParamsHandler", "OutputHandler", "global_step_from_engine"]

# What MLflow allows in names; and in one call.
FORBIDDEN = re.compile(r"[^/\w.\- :]")
LONGEST_NAME = 250
METRICS_A_CALL = 1000
PARAMS_A_CALL = 100


class MLflowLogger(BaseLogger):
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

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str | None = None,
        run_name: str | None = None,
    ) -> None:
        require("mlflow", type(self).__name__)
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._run_name = run_name
        self._run_id: str | None = None
        self._client: Any = None
        self._is_ours = True
        self._status = "FINISHED"
        self._held_params: dict[str, object] = {}
        self._names: dict[str, str] = {}
        # Of a continued run: the steps that each metric has already.
        self._steps_there: dict[str, set[int]] | None = None

    @property
    def run_id(self) -> str | None:
        """The run's id, after starting it if need be; None where nothing can be written."""
        if self.writes:
            self._deliver("its run", self._start)
        return self._run_id

    def __getattr__(self, name: str) -> Any:
        """Forward to the function ``mlflow.<name>``, for the active run."""
        wanted = name.startswith(("log_", "set_", "get_")) or name == "active_run"
        if wanted and self.writes:
            mlflow = imported()
            wanted = hasattr(mlflow, name)
        if not wanted:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._forward(f"what {name} was given", lambda: self._function(name))

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Log all metrics of an event in one call."""
        self._start()
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        names = self._allowed(scalars)
        metrics = [
            Metric(name, float(value), now, step)
            for name, value in zip(names, scalars.values(), strict=True)
            if not self._is_there(name, step)
        ]
        with quick():
            for first in range(0, len(metrics), METRICS_A_CALL):
                self._client.log_batch(self._run_id, metrics[first : first + METRICS_A_CALL])

    def write_params(self, params: dict[str, object]) -> None:
        """Log parameters once the run is started."""
        if self._client is None:  # a run is not started for these: another may be continued yet
            self._held_params |= params
            return
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        names = self._allowed(params)
        listed = [
            Param(name, str(value)) for name, value in zip(names, params.values(), strict=True)
        ]
        with quick():
            for first in range(0, len(listed), PARAMS_A_CALL):
                some = listed[first : first + PARAMS_A_CALL]
                try:
                    self._client.log_batch(self._run_id, params=some)
                except MlflowException as error:
                    if error.error_code in OUTAGES:
                        raise
                    self._write_params_singly(some)

    def _write_params_singly(self, params: Iterable[Any]) -> None:
        """Write what can be: one value that has changed makes MLflow refuse all of a call."""
        refused = []
        for param in params:
            try:
                self._client.log_param(self._run_id, param.key, param.value)
            except Exception as error:
                refused.append(f"{param.key} ({error})")
        if refused:
            raise ValueError(f"refused were {', '.join(refused)}")

    def write_image(self, image: Tensor, name: str, step: int) -> None:
        """Store the image as a PNG file, named like a figure's."""
        self._start()
        pixels = image.detach().cpu()
        array = (pixels.movedim(0, -1) if pixels.ndim == 3 else pixels).numpy()
        if array.dtype != np.uint8:
            array = array.astype(np.float64).clip(0, 1)
        with outages():
            self._client.log_image(self._run_id, array, _picture(name, step))

    def write_figure(self, figure: Figure, name: str, step: int) -> None:
        """Store the figure as ``name`` if that ends in ``.png`` or the like, else one a step."""
        self._start()
        with outages():
            self._client.log_figure(self._run_id, figure, _picture(name, step))

    def write_artifact(self, path: Path, folder: str | None) -> None:
        """Log a file or a folder."""
        self._start()
        write = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        with outages():
            write(self._run_id, str(path), folder)

    def close_tracker(self) -> None:
        """End the run, unless it is the caller's."""
        if self._held_params:
            self._start()
        if self._client is None:
            return
        mlflow = imported()
        client, self._client = self._client, None
        if self._is_ours:
            active = mlflow.active_run()
            with quick():
                if active is not None and active.info.run_id == self._run_id:
                    mlflow.end_run(self._status)
                else:
                    client.set_terminated(self._run_id, self._status)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        super().__exit__(kind, error, traceback)

    def state_dict(self) -> dict[str, Any]:
        """Return the run's id, after starting the run if need be."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the run of the checkpoint."""
        run_id = state_dict["run_id"]
        if run_id is None or run_id == self._run_id or not self.writes:
            return
        if self._client is not None and self._is_ours:  # started too early
            self._deliver("the end of a run that is not needed", self._discard)
        self._client = None
        self._run_id = run_id
        self._steps_there = {}

    def _discard(self) -> None:
        mlflow = imported()
        mlflow.end_run("KILLED")
        self._client.delete_run(self._run_id)

    def _start(self) -> None:
        """Start the run, or continue it; whatever goes wrong is an outage: tried again later."""
        if self._client is not None:
            return
        try:
            with quick():
                self._client = self._connected_client()
        except Exception as error:
            raise ConnectionError(f"no run could be started ({error})") from error
        held, self._held_params = self._held_params, {}
        if held:
            self._deliver.attempt("parameters", lambda: self.write_params(held))

    def _connected_client(self) -> Any:
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
        if self._run_id is not None and self._can_continue(client):
            if active is None:
                mlflow.start_run(self._run_id)
            else:
                client.update_run(self._run_id, "RUNNING")
            return client
        self._is_ours = active is None
        if active is None:
            experiment = self._experiment_id(client, database)
            active = mlflow.start_run(experiment_id=experiment, run_name=self._run_name)
        self._run_id = active.info.run_id
        self._steps_there = None
        return client

    def _can_continue(self, client: Any) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            stage = client.get_run(self._run_id).info.lifecycle_stage
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            stage = "unknown here"
        if stage != "active":
            self._warn_once(
                "run", f"MLflowLogger: the run {self._run_id} is {stage}; a new one is started"
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

    def _function(self, name: str) -> Any:
        self._start()
        mlflow = imported()
        return getattr(mlflow, name)

    def _is_there(self, name: str, step: int) -> bool:
        if self._steps_there is None:
            return False
        if name not in self._steps_there:
            history = self._client.get_metric_history(self._run_id, name)
            self._steps_there[name] = {metric.step for metric in history}
        return step in self._steps_there[name]

    def _allowed(self, names: Iterable[str]) -> list[str]:
        """Return names that MLflow takes; warn of those that are not the ones given."""
        changed = []
        for name in names:
            if name not in self._names:
                allowed = self._names[name] = self._allowed_name(name)
                if allowed != name:
                    changed.append(f"{name!r} as {allowed!r}")
        if changed:
            message = f"MLflow does not allow all names; logged are {', '.join(changed)}"
            self._warn_once(("names", *changed), message)
        return [self._names[name] for name in names]

    def _allowed_name(self, name: str) -> str:
        parts = FORBIDDEN.sub("_", name).split("/")
        clean = "/".join(part for part in parts if part.strip(".")) or "_"
        allowed, number = clean[:LONGEST_NAME], 1
        while allowed in self._names.values():
            number += 1
            allowed = f"{clean[: LONGEST_NAME - len(str(number)) - 1]}_{number}"
        return allowed


def _picture(name: str, step: int) -> str:
    """Name a picture's file; the same at the same step of a continued run, which replaces it."""
    return name if Path(name).suffix else f"{name}/{step:08d}.png"


def _file(name: str) -> str:
    return re.sub(r"[^\w.\-]", "_", name)
