"""Doubles in the place of the trackers' packages, and what they got."""

import sys

from cookfire.handlers.clearml_logger import ClearMLLogger
from cookfire.handlers.neptune_logger import NeptuneLogger
from cookfire.handlers.polyaxon_logger import PolyaxonLogger
from cookfire.handlers.visdom_logger import VisdomLogger
from cookfire.handlers.wandb_logger import WandBLogger
from tests.handlers.tracker_doubles import Tracker

LOGGERS = {
    "wandb": (WandBLogger, {"project": "p"}),
    "clearml": (ClearMLLogger, {"project_name": "p"}),
    "neptune": (NeptuneLogger, {"project": "p"}),
    "polyaxon.tracking": (PolyaxonLogger, {"project": "p"}),
    "visdom": (VisdomLogger, {"env": "first"}),
}


def put(package, monkeypatch):
    """Put a double in the place of a tracker's package."""
    tracker = Tracker(package)
    monkeypatch.setitem(sys.modules, package, tracker.module)
    top = package.split(".")[0]
    if top != package:
        monkeypatch.setitem(sys.modules, top, tracker.module)
    match package:
        case "wandb":
            tracker.module.run = None
            tracker.answers["init"] = lambda **options: tracker.object(
                "Run", id=options.get("id", "made"), config=tracker.object("Run.config")
            )
            tracker.interface = tracker.interface | {
                "Run.config.update": "d, allow_val_change=None"
            }
        case "clearml":
            tracker.answers |= {
                "Task.is_offline": True,
                "Task.init": lambda reuse_last_task_id="made", **_: tracker.object(
                    "Task", id=reuse_last_task_id, name="task"
                ),
                "Task.get_logger": tracker.object("Logger"),
            }
            tracker.answers["Task.current_task"] = lambda: None
        case "neptune":
            tracker.answers["init_run"] = lambda **_: tracker.object("Run")
            tracker.answers["handler.Handler.fetch"] = "made"
        case "polyaxon.tracking":
            tracker.answers["Run"] = lambda run_uuid="made", **_: tracker.object(
                "Run", run_uuid=run_uuid
            )
        case "visdom":
            tracker.answers["Visdom.check_connection"] = True
            tracker.answers["Visdom"] = lambda env, server, port, **_: tracker.object(
                "Visdom", env=env, server=server, port=port, offline=False
            )
    return tracker


def make(tracker, **more):
    """Return the logger for a tracker."""
    logger, options = LOGGERS[tracker.module.__name__]
    return logger(**options | more)


def points(tracker):
    """Return the (name, value, step) that a tracker got."""
    found = []
    for path, arguments in tracker.calls:
        match path:
            case "Run.log":
                data = dict(arguments["data"])
                step = data.pop("global_step")
                found += [(name, value, step) for name, value in data.items()]
            case "Logger.report_scalar":
                title, series, value, step = arguments.values()
                found.append((f"{title}/{series}", value, step))
            case "handler.Handler.append":
                found.append((arguments["key"], arguments["value"], arguments["step"]))
            case "Run.log_metric":
                found.append((arguments["name"], arguments["value"], arguments["step"]))
            case "Visdom.line":
                assert arguments["update"] == "append"
                found.append((arguments["win"], arguments["Y"][0], arguments["X"][0]))
    return found
