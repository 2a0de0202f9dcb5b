"""A training that ClearML tracks offline, for test_clearml_logger.py: ClearML hooks much of Python.

python live_clearml.py FOLDER
"""

import sys
from pathlib import Path

import torch
from torch import nn

from cookfire.engine import Engine, Events
from cookfire.handlers.clearml_logger import ClearMLLogger, ClearMLSaver, WeightsScalarHandler


def train(folder: Path) -> None:
    """Train one epoch."""
    ClearMLLogger.set_bypass_mode(True)
    net = nn.Linear(1, 1)
    nn.init.constant_(net.weight, 2.0)
    trainer = Engine(lambda _, batch: torch.tensor(batch))
    with ClearMLLogger(
        project_name="p",
        task_name="t",
        auto_connect_arg_parser=False,
        auto_connect_streams=False,
        auto_resource_monitoring=False,
    ) as logger:
        logger.log_params({"lr": 0.5, "model": {"name": "linear"}})
        logger.attach_output_handler(
            trainer,
            Events.ITERATION_COMPLETED,
            "training",
            output_transform=lambda loss: {"loss": loss},
        )
        handler = WeightsScalarHandler(net, whitelist=["weight"])
        logger.attach(trainer, handler, Events.EPOCH_COMPLETED)
        trainer.run([1.0, 2.0])
        logger.log_histogram(torch.ones(3), "weights", 4)
        logger.log_image(torch.rand(3, 2, 2), "image", 4)
        saver = ClearMLSaver(logger, dirname=str(folder / "checkpoints"))
        saver(net.state_dict(), "model.pt")
        print(logger.get_task().get_offline_mode_folder())


if __name__ == "__main__":
    train(Path(sys.argv[1]))
