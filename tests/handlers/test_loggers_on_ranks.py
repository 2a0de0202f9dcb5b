"""Loggers in two real processes: one writes, handlers run everywhere."""

import io
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from cookfire.engine import Engine, Events
from cookfire.handlers.base_logger import (
    WeightsHistHandler,
    WeightsScalarHandler,
)
from cookfire.handlers.clearml_logger import ClearMLLogger
from cookfire.handlers.mlflow_logger import MLflowLogger
from cookfire.handlers.neptune_logger import NeptuneLogger
from cookfire.handlers.polyaxon_logger import PolyaxonLogger
from cookfire.handlers.table_logger import TableLogger
from cookfire.handlers.tensorboard_logger import TensorboardLogger
from cookfire.handlers.tqdm_logger import ProgressBar
from cookfire.handlers.visdom_logger import VisdomLogger
from cookfire.handlers.wandb_logger import WandBLogger
from tests.handlers.recorder import Recorder
from tests.handlers.saying import saying
from tests.handlers.tracker_doubles import Tracker


def _base_logger():
    """Log through handlers of all kinds; return what was written, called and said."""
    import torch.distributed as dist

    logger, called = Recorder(), []

    def communicating(engine, logger, event):
        total = torch.ones(())
        dist.all_reduce(total)
        called.append(total.item())
        logger.log_metrics({"total": total}, 1)

    engine = Engine(lambda engine, batch: batch)
    logger.attach(engine, communicating, Events.COMPLETED)
    logger.attach_output_handler(engine, Events.COMPLETED, "x", metric_names=["missing"])
    with saying() as said:
        engine.run([0])
        logger.log_params({"a": 1})
        logger.log_histogram(torch.ones(1), "h")
        logger.close()
    return logger.scalars, logger.params, len(logger.histograms), called, len(said)


def _sharded():
    """Return the norms that are logged of a model, whole and sharded, and a histogram's shape."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model, logger = nn.Linear(3, 5), Recorder()
    engine = Engine(lambda engine, batch: None)
    WeightsScalarHandler(model)(engine, logger, Events.COMPLETED)
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    WeightsScalarHandler(model)(engine, logger, Events.COMPLETED)
    WeightsHistHandler(model)(engine, logger, Events.COMPLETED)
    return logger.scalars, [tuple(values.shape) for _, _, values in logger.histograms]


def _progress_bar():
    file, engine = io.StringIO(), Engine(lambda engine, batch: batch)
    bar = ProgressBar(file=file)
    bar.attach(engine)
    engine.run(range(3))
    bar.log_message("done")
    return file.getvalue().count("\n")


def _table(folder, rank):
    table = TableLogger(folder / f"{rank}.tsv")
    table.log_metrics({"loss": torch.tensor(1.0)}, 1)
    table.load_state_dict(table.state_dict())
    table.close()
    return table.state_dict()["rows"]


def _tensorboard(folder, rank):
    engine = Engine(lambda engine, batch: float(batch))
    with TensorboardLogger(folder / f"events{rank}") as logger:
        logger.attach(
            engine,
            lambda engine, logger, event: logger.writer.add_scalar("own", 1.0, 1),
            Events.COMPLETED,
        )
        engine.run(range(3))
        logger.add_text("note", "text")
        logger.log_metrics({"loss": 1.0}, 1)
        logger.load_state_dict(logger.state_dict())
    return logger.writes


def _mlflow(rank):
    """Log on rank 1 alone, where nothing may come of it, not even an import."""
    if rank == 0:
        return None
    with MLflowLogger("http://127.0.0.1:9") as logger:
        logger.log_metrics({"loss": 1.0}, 1)
        logger.log_params({"lr": 1.0})
        logger.set_tag("kind", "none")
        logger.load_state_dict(logger.state_dict())
        return logger.run_id, logger.active_run(), "mlflow" in sys.modules


def _trackers():
    """Log with the trackers of runs; return how often each was called."""
    called = []
    for package, make, options in [
        ("wandb", WandBLogger, {"project": "p"}),
        ("clearml", ClearMLLogger, {"project_name": "p"}),
        ("neptune", NeptuneLogger, {"project": "p"}),
        ("polyaxon.tracking", PolyaxonLogger, {"project": "p"}),
        ("visdom", VisdomLogger, {"env": "first"}),
    ]:
        tracker = Tracker(package)
        sys.modules[package] = sys.modules[package.split(".")[0]] = tracker.module
        tracker.module.run = None  # W&B's active one
        asked = []
        tracker.called = lambda path, arguments, asked=asked: asked.append(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger = make(**options)
            logger.log_params({"lr": 1.0})
            logger.log_metrics({"loss": 1.0}, 1)
            logger.log_histogram(torch.ones(2), "h", 1)
            logger.load_state_dict(logger.state_dict())
            if logger.forwarded:
                getattr(logger, logger.forwarded[0], lambda _: None)("what it is given")
            logger.close()
        called.append(bool(asked))
    return called


def _log_on_each_rank(folder):
    import torch.distributed as dist

    folder, rank = Path(folder), dist.get_rank()
    return {
        "base": _base_logger(),
        "sharded": _sharded(),
        "progress": _progress_bar(),
        "table": _table(folder, rank),
        "tensorboard": _tensorboard(folder, rank),
        "mlflow": _mlflow(rank),
        "trackers": _trackers(),
    }


def test_rank_0_alone_writes_and_handlers_run_everywhere(processes, tmp_path):
    first, second = processes(2, _log_on_each_rank, str(tmp_path))
    (whole, sharded), shapes = first.pop("sharded")
    assert whole == sharded
    assert shapes == [(5, 3), (5,)]
    assert second.pop("sharded") == ([], [])
    assert first == {
        "base": ([(1, {"total": 2.0})], {"a": 1}, 1, [2.0], 1),
        "progress": 2,
        "table": [[1, {"loss": 1.0}]],
        "tensorboard": True,
        "mlflow": None,
        "trackers": [True] * 5,
    }
    assert second == {
        "base": ([], {}, 0, [2.0], 0),
        "progress": 0,
        "table": [],
        "tensorboard": False,
        "mlflow": (None, None, False),
        "trackers": [False] * 5,
    }
    assert {path.name for path in tmp_path.iterdir()} == {"0.tsv", "events0"}
