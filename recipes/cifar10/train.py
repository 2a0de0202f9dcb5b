"""Train CIFAR-10: the fast net to 94 %, or ResNet-18 to 95 %.

    python -m recipes.cifar10.train --profile tiny
    python -m recipes.cifar10.train --profile full
    python -m recipes.cifar10.train --profile full --data DIR --out DIR
    torchrun --nproc_per_node 8 -m recipes.cifar10.train --profile resnet18

The weights after the last step are in ``model.pt``, the metrics of each epoch in ``curves.tsv``. No
test image has a say in either. An interrupted training goes on where it was when the same command
is given again.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict

import torch
from torch import Tensor, nn

from cookfire import distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers import (
    BaseLogger,
    LRScheduler,
    MLflowLogger,
    ProgressBar,
    TableLogger,
    TensorboardLogger,
    TerminateOnNan,
    global_step_from_engine,
    recipe,
)
from cookfire.metrics import RunningAverage

from .config import Config
from .data import Batch, load, prepare_batch
from .lookahead import Lookahead
from .metrics import create_evaluator
from .model import create_model
from .solver import create_optimizer, create_schedule

WHITENING_IMAGES = 5000  # from which the fast net's first layer is computed


def train(config: Config, run: recipe.Run) -> dict[str, float]:
    """Train as ``config`` says, into the folders of ``run``; return the last test metrics."""
    device = idist.device()
    data = load(config, run.data)
    steps = round(config.epochs * len(data.training))

    torch.manual_seed(config.seed)
    images, _ = prepare_batch(data.images.first(WHITENING_IMAGES))
    net = create_model(config, images)
    # `net` is what is saved; `model` is what is called: the same weights on the device, compiled
    # or not, and with several processes wrapped, so that these share their gradients.
    model = idist.auto_model(net, compile=config.compile)
    optimizer = idist.auto_optim(create_optimizer(config, net))
    schedule = create_schedule(config, optimizer, steps)
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    autocast, scaler = recipe.mixed_precision(config.precision, device)

    def train_step(_: Engine, batch: Batch) -> Tensor:
        x, y = prepare_batch(batch, device, non_blocking=True)
        with autocast:
            loss: Tensor = criterion(model(x), y)
        optimizer.zero_grad()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    trainer = Engine(train_step)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: model.train())
    LRScheduler(schedule).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=50))
    if config.lookahead:
        if config.lookahead > steps:
            raise recipe.RecipeError(f"lookahead: {config.lookahead}, but there are {steps} steps")
        lookahead = Lookahead(net, config.lookahead, steps)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lookahead)

    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    progress = ProgressBar()
    progress.attach(trainer, metric_names=["loss"])

    evaluator = create_evaluator(model)

    @trainer.on(Events.EPOCH_COMPLETED(every=config.validate_every))
    def measure() -> None:
        evaluator.run(data.test)
        metrics = evaluator.state.metrics
        progress.log_message(
            f"epoch {trainer.state.epoch}: accuracy {metrics['accuracy']:.4f}, "
            f"top 5 {metrics['top5']:.4f}, loss {metrics['loss']:.4f}"
        )

    curves = TableLogger(run.outputs / "curves.tsv")
    tensorboard = TensorboardLogger(log_dir=run.logs)
    trackers: dict[str, BaseLogger] = {"tensorboard": tensorboard}
    if config.mlflow:
        trackers["mlflow"] = MLflowLogger(experiment="cifar10", run_name=run.profile)
    for tracker in trackers.values():
        tracker.log_params(asdict(config))
    loggers: dict[str, BaseLogger] = {"curves": curves, **trackers}
    for logger in loggers.values():
        logger.attach_output_handler(
            evaluator,
            Events.COMPLETED,
            tag="test",
            metric_names="all",
            global_step_transform=global_step_from_engine(trainer),
        )
    every_tenth = Events.ITERATION_COMPLETED(every=10)
    tensorboard.attach_output_handler(trainer, every_tenth, tag="training", metric_names=["loss"])
    tensorboard.attach_opt_params_handler(trainer, every_tenth, optimizer=optimizer)

    with ExitStack() as stack:
        for logger in loggers.values():
            stack.enter_context(logger)
        # Puts the trainer and all these back to where an interrupted run was, if there is one; and
        # from here on keeps what is needed to go on with this one.
        run.keep(trainer, model=net, optimizer=optimizer, scaler=scaler, **loggers)
        trainer.run(data.training, max_iters=steps)
    run.save("model.pt", net.state_dict())
    return dict(create_evaluator(model, config.views).run(data.test).metrics)


if __name__ == "__main__":
    recipe.main(train, Config, __file__)
