"""A training that W&B tracks offline, for test_wandb_logger.py (W&B leaves threads behind).

python live_wandb.py FOLDER
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
from torch import nn

from cookfire.engine import Engine, Events
from cookfire.handlers import global_step_from_engine
from cookfire.handlers.wandb_logger import GradsHistHandler, WandBLogger
from tests.handlers.saying import saying


def train(folder: Path) -> None:
    """Train; go on from what was saved; go on although W&B is killed."""
    settings = {"project": "p", "mode": "offline", "dir": str(folder)}
    settings["settings"] = {"silent": True, "console": "off", "x_disable_stats": True}
    net = nn.Linear(1, 1)
    trainer = Engine(lambda _, batch: net(torch.ones(1)).mul(batch).sum().backward())
    evaluator = Engine(lambda *_: None)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: evaluator.state.metrics.update(acc=trainer.state.epoch / 4)
    )
    with WandBLogger(**settings) as logger:
        logger.log_params({"lr": 0.5, "model": {"name": "linear"}})
        logger.attach_output_handler(
            evaluator,
            Events.COMPLETED,
            "val",
            "all",
            global_step_transform=global_step_from_engine(trainer),
        )
        logger.attach_opt_params_handler(
            trainer,
            Events.ITERATION_STARTED(every=2),
            SimpleNamespace(param_groups=[{"lr": 0.5}]),  # a real one takes seconds to import
        )
        logger.attach(trainer, GradsHistHandler(net, whitelist=["bias"]), Events.COMPLETED)
        trainer.run([1.0, 2.0], max_epochs=2)
        logger.log_image(torch.rand(3, 2, 2), "image", 4)
        logger.log_artifact(__file__, "code")
        saved = logger.state_dict()
    again = WandBLogger(**settings)
    again.load_state_dict(saved)
    again.log_metrics({"val/acc": 0.75}, 3)
    again.close()
    print("continued", saved["run_id"] == again.run_id, saved["run_id"])

    dying = WandBLogger(**settings)
    engine = Engine(lambda _, batch: batch)
    dying.attach_output_handler(
        engine, Events.ITERATION_COMPLETED, "x", output_transform=lambda output: output
    )
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), kill)
    with saying() as said:
        engine.run(range(6))
        dying.close()
    print("after the kill", engine.state.iteration, len(said))
    print(said[0])
    print(said[-1])


def kill() -> None:
    """Kill the process that W&B runs beside ours."""
    for process in psutil.Process().children():
        if "wandb" in process.name():
            process.kill()
            process.wait(10)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
