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
from cookfire.distributed import auto_dataloader
from cookfire.engine import Engine, Events
from tests.handlers.helpers import engine_at, model

MODULES = [
    "_arrays", "_base_scheduler", "_batch_size_scheduler", "_checkpoint", "_combined_schedulers",
    "_file_names", "_files", "_fitting", "_fsspec_saver", "_loading", "_model_checkpoint",
    "_objects", "_optimizer_schedulers", "_random_states", "_run_state", "_savers", "_score",
    "_torch_schedulers", "_weights", "common", "early_stopping", "ema_handler",
    "fbresearch_logger", "gradients", "logger_utils", "lr_finder", "preemption", "schedules",
    "state_param_scheduler", "stores", "terminate_on_nan", "time_limit", "time_profilers",
    "timing", "torch_profiler", "utils", "visdom_logger", "wandb_logger",
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
        "auto_dataloader": auto_dataloader,
        "folder": tmp_path,
        "model": net,
        "optimizer": torch.optim.SGD(net.parameters(), lr=1.0),
        "trainer": Engine(lambda *_: 0.5),
        "engine": engine_at(5),
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
    assert result.attempted > 0 or name in ("_random_states", "_base_scheduler")


CALLS = [
    "Checkpoint", "Checkpoint.load_objects", "Checkpoint.reload_objects", "Checkpoint.reset",
    "Checkpoint.setup_filename_pattern", "Checkpoint.get_default_score_fn",
    "Checkpoint.state_dict", "Checkpoint.load_state_dict", "ModelCheckpoint",
    "ModelCheckpoint.__call__", "DiskSaver", "DiskSaver.__call__", "DiskSaver.remove",
    "EarlyStopping", "EarlyStopping.attach", "Timer", "Timer.attach", "LRScheduler",
    "LRScheduler.__call__", "LRScheduler.attach", "LRScheduler.get_param",
    "LRScheduler.simulate_values", "LRScheduler.plot_values", "global_step_from_engine",
    "BatchSizeScheduler", "BatchSizeScheduler.attach", "ConcatScheduler",
    "CosineAnnealingScheduler", "LinearCyclicalScheduler",
    "ParamGroupScheduler", "ParamScheduler", "ParamScheduler.attach", "PiecewiseLinear",
    "ReduceLROnPlateauScheduler", "ReduceLROnPlateauScheduler.simulate_values",
    "create_lr_scheduler_with_warmup", "ParamGroupScheduler.simulate_values",
    "BasicTimeProfiler", "BasicTimeProfiler.attach",
    "BasicTimeProfiler.write_results", "BasicTimeProfiler.print_results", "EMAHandler",
    "EMAHandler.attach", "EpochOutputStore.attach", "FastaiLRFinder",
    "FastaiLRFinder.plot", "FastaiLRFinder.apply_suggested_lr", "HandlersTimeProfiler",
    "HandlersTimeProfiler.attach", "HandlersTimeProfiler.write_results",
    "param_scheduler.BaseParamScheduler", "param_scheduler.CyclicalScheduler",
    "state_param_scheduler.StateParamScheduler",
    "state_param_scheduler.StateParamScheduler.attach",
    "state_param_scheduler.LambdaStateScheduler",
    "state_param_scheduler.PiecewiseLinearStateScheduler",
    "state_param_scheduler.ExpStateScheduler", "state_param_scheduler.StepStateScheduler",
    "state_param_scheduler.MultiStepStateScheduler",
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_signatures_are_those_of_ignite(call: str) -> None:
    # What is ours beside it is given by name.
    own = {"background", "storage_options"}
    signatures = []
    for package in (cookfire.handlers, ignite.handlers):
        found: Any = package
        for name in call.split("."):
            found = getattr(found, name)
        parameters = inspect.signature(found).parameters.values()
        # An event's default is compared by its name.
        signatures.append(
            [
                (one.name, one.kind, getattr(one.default, "name", one.default))
                for one in parameters
                if not (one.kind is one.KEYWORD_ONLY and one.name in own)
            ]
        )
    assert signatures[0] == signatures[1]
