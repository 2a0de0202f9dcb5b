"""Stand-ins for trackers: they have the signatures of what the adapters call, and record the calls.

Where a tracker is installed, ``python tests/handlers/tracker_doubles.py`` compares the signatures.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Of each tracker, what the adapters call, with the parameters that they may use. A name with an
# upper-case beginning is a class, its parameters those of its constructor.
INTERFACES: dict[str, dict[str, str]] = {
    "wandb": {
        "init": "entity=None, project=None, dir=None, id=None, name=None, config=None, mode=None, "
        "resume=None, settings=None",
        "Run.log": "data, step=None, commit=None",
        "Run.define_metric": "name, step_metric=None",
        "Run.finish": "exit_code=None",
        "Run.log_artifact": "artifact_or_path, name=None, type=None, aliases=None",
        "Run.watch": "models, criterion=None, log='gradients', log_freq=1000",
        "Image": "data_or_path, mode=None, caption=None",
        "Histogram": "sequence=None, np_histogram=None, num_bins=64",
        "Artifact": "name, type, description=None, metadata=None",
        "Artifact.add_file": "local_path, name=None, is_tmp=False",
        "Artifact.add_dir": "local_path, name=None",
    },
    "clearml": {
        "Task.init": "project_name=None, task_name=None, reuse_last_task_id=True, "
        "continue_last_task=False, output_uri=None, auto_connect_frameworks=True",
        "Task.current_task": "",
        "Task.is_offline": "",
        "Task.set_offline": "offline_mode=False",
        "Task.get_logger": "",
        "Task.update_parameters": "*args, **kwargs",
        "Task.upload_artifact": "name, artifact_object, metadata=None",
        "Task.mark_failed": "ignore_errors=True, status_reason=None",
        "Task.close": "",
        "Logger.report_scalar": "title, series, value, iteration",
        "Logger.report_image": "title, series, iteration=None, local_path=None, image=None",
        "Logger.report_matplotlib_figure": "title, series, figure, iteration=None, "
        "report_image=False",
        "Logger.report_histogram": "title, series, values, iteration=None, labels=None, "
        "xlabels=None",
        "Logger.report_text": "msg, level=None, print_console=True",
        "OutputModel": "task=None, name=None, framework=None",
        "OutputModel.update_weights": "weights_filename=None, upload_uri=None, "
        "target_filename=None, auto_delete_file=True",
        "OutputModel.set_upload_destination": "uri",
        "OutputModel.get_weights": "raise_on_error=False",
    },
    "neptune": {
        "init_run": "with_id=None, *, project=None, api_token=None, mode=None, **kwargs",
        "Run.stop": "*, seconds=None",
        "Run.pop": "path, *, wait=False",
        "Run.sync": "*, wait=True",
        "handler.Handler.append": "value, *, step=None, timestamp=None, wait=False",
        "handler.Handler.upload": "value, *, wait=False",
        "handler.Handler.upload_files": "value, *, wait=False",
        "handler.Handler.fetch": "",
        "types.File.as_image": "image, autoscale=True",
    },
    "polyaxon.tracking": {
        "Run": "owner=None, project=None, run_uuid=None, is_new=None, is_offline=None, name=None",
        "Run.log_metric": "name, value, step=None, timestamp=None",
        "Run.log_inputs": "reset=False, async_req=True, **inputs",
        "Run.log_outputs": "reset=False, async_req=True, **outputs",
        "Run.log_image": "data, name=None, step=None, timestamp=None, rescale=1, dataformats='CHW'",
        "Run.log_mpl_image": "data, name=None, close=True, step=None",
        "Run.log_np_histogram": "name, values, counts, step=None",
        "Run.log_artifact": "path, name=None, kind=None, summary=None, step=None, rel_path=None",
        "Run.log_failed": "reason=None, message=None",
        "Run.end": "",
    },
    "visdom": {
        "Visdom": "server='http://localhost', port=8097, env='main', raise_exceptions=None, "
        "log_to_filename=None, username=None, password=None, offline=False",
        "Visdom.line": "Y, X=None, win=None, env=None, opts=None, update=None, name=None",
        "Visdom.image": "img, win=None, env=None, opts=None",
        "Visdom.matplot": "plot, opts=None, env=None, win=None",
        "Visdom.histogram": "X, win=None, env=None, opts=None",
        "Visdom.properties": "data, win=None, env=None, opts=None",
        "Visdom.save": "envs",
        "Visdom.check_connection": "timeout_seconds=0",
    },
}

Call = tuple[str, dict[str, Any]]


def signature(parameters: str) -> inspect.Signature:
    """Return the signature that is written so."""
    function: Callable[..., object] = eval(f"lambda {parameters}: None")
    return inspect.signature(function)


class Double:
    """A tracker's object: its functions are those of the interface; each call is recorded."""

    def __init__(self, tracker: Tracker, path: str, **attributes: Any) -> None:
        self._tracker, self._path = tracker, path
        self.__dict__ |= attributes

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}".strip(".")
        known = self._tracker.interface
        if path not in known and not any(one.startswith(f"{path}.") for one in known):
            raise AttributeError(f"the double has no {path}")
        return Double(self._tracker, path, **self._field())

    @property
    def __signature__(self) -> inspect.Signature:
        return signature(self._tracker.interface[self._path])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Record a call that the real function takes."""
        arguments = self.__signature__.bind(*args, **kwargs).arguments
        return self._tracker.called(self._path, self._field() | arguments)

    def _field(self) -> dict[str, Any]:
        """Return which field of Neptune's it is a function of."""
        return {"key": self.key} if "key" in self.__dict__ else {}

    def __getitem__(self, key: str) -> Double:
        return Double(self._tracker, "handler.Handler", key=key)

    def __setitem__(self, key: str, value: object) -> None:
        self._tracker.called(f"set {key}", {"value": value})


class Tracker:
    """A tracker's package in place of the real one: what is called, and what it answers."""

    def __init__(self, package: str) -> None:
        self.interface = INTERFACES[package]
        self.calls: list[Call] = []
        self.error: Exception | None = None  # what each call raises
        self.answers: dict[str, Any] = {}
        self.module = ModuleType(package)
        self.module.__spec__ = ModuleSpec(package, None)
        root = Double(self, "")
        self.module.__getattr__ = lambda name: getattr(root, name)

    def object(self, path: str, **attributes: Any) -> Double:
        """Return an object of the tracker's class ``path``."""
        return Double(self, path, **attributes)

    def called(self, path: str, arguments: dict[str, Any]) -> Any:
        """Record a call, and answer it."""
        if self.error is not None:
            raise self.error
        self.calls.append((path, arguments))
        answer = self.answers.get(path)
        if callable(answer) and not isinstance(answer, Double):
            return answer(**arguments)
        return Double(self, path) if answer is None and path[0].isupper() else answer

    def of(self, path: str) -> list[dict[str, Any]]:
        """Return the arguments of all calls of a function."""
        return [arguments for called, arguments in self.calls if called == path]


def differences(package: str) -> list[str]:
    """Say where the real tracker does not take what its double takes."""
    found = []
    for path, parameters in INTERFACES[package].items():
        real: Any = importlib.import_module(package)
        for name in path.split("."):
            if name == "handler":
                real = importlib.import_module(f"{package}.handler")
            else:
                real = getattr(real, name)
        theirs = inspect.signature(real).parameters
        takes_any = any(one.kind is one.VAR_KEYWORD for one in theirs.values())
        for one in signature(parameters).parameters.values():
            if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
                continue
            if one.name not in theirs and not takes_any:
                found.append(f"{package}.{path} takes no {one.name}")
        needed = {
            one.name
            for one in theirs.values()
            if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        }
        needed.discard("self")
        found += [
            f"{package}.{path} needs {name}"
            for name in needed - set(signature(parameters).parameters)
        ]
    return found


if __name__ == "__main__":
    for name in INTERFACES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"{name}: {error}")
            continue
        print(f"{name}: {differences(name) or 'as its double'}")
