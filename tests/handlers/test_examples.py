"""The examples in the docstrings do what they show, and the signatures are ignite's."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import ignite.handlers
import ignite.handlers.param_scheduler
import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR, StepLR

import cookfire.handlers
from cookfire.engine import Engine, Events
from tests.handlers.helpers import engine_at, model

MODULES = [
    "_arrays", "_file_names", "_files", "_loading", "_objects", "_random_states", "_run_state",
    "_savers", "_score", "checkpoint", "common", "early_stopping", "fbresearch_logger",
    "logger_utils", "param_scheduler", "terminate_on_nan", "timing", "utils", "visdom_logger",
    "wandb_logger",
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_show(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"cookfire.handlers.{name}")
    net = model()
    checkpoint = cookfire.handlers.Checkpoint({"model": net}, tmp_path, n_saved=None)
    for step in (10, 40):
        checkpoint(engine_at(step))
    torch.save(net.state_dict(), tmp_path / "model.pt")
    names: dict[str, Any] = {
        **{name: getattr(cookfire.handlers, name) for name in cookfire.handlers.__all__},
        "folder": tmp_path,
        "model": net,
        "optimizer": torch.optim.SGD(net.parameters(), lr=1.0),
        "trainer": Engine(lambda *_: 0.5),
        "evaluator": engine_at(accuracy=0.5, loss=0.5),
        "checkpoint": checkpoint,
        "data": [0, 1],
        "torch": torch,
        "Events": Events,
        "ExponentialLR": ExponentialLR,
        "StepLR": StepLR,
    }
    if name == "logger_utils":  # MLflow has tests of its own, and takes seconds
        names["setup_mlflow_logging"] = lambda *_, **__: None
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted > 0 or name == "_random_states"


CALLS = [
    "Checkpoint", "Checkpoint.load_objects", "Checkpoint.reload_objects", "Checkpoint.reset",
    "Checkpoint.setup_filename_pattern", "Checkpoint.get_default_score_fn",
    "Checkpoint.state_dict", "Checkpoint.load_state_dict", "ModelCheckpoint",
    "ModelCheckpoint.__call__", "DiskSaver", "DiskSaver.__call__", "DiskSaver.remove",
    "EarlyStopping", "EarlyStopping.attach", "Timer", "Timer.attach", "LRScheduler",
    "LRScheduler.__call__", "LRScheduler.attach", "LRScheduler.get_param",
    "LRScheduler.simulate_values", "LRScheduler.plot_values", "global_step_from_engine",
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_signatures_are_those_of_ignite(call: str) -> None:
    signatures = []
    for package in (cookfire.handlers, ignite.handlers):
        found: Any = package
        for name in call.split("."):
            found = getattr(found, name)
        parameters = inspect.signature(found).parameters.values()
        # An event's default is compared by its name.
        signatures.append(
            [(one.name, one.kind, getattr(one.default, "name", one.default)) for one in parameters]
        )
    assert signatures[0] == signatures[1]
