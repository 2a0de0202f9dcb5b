"""Train Pascal VOC 2012 segmentation: DeepLabV3, or a light net on a CPU.

    python -m recipes.voc_segmentation.train --profile tiny
    python -m recipes.voc_segmentation.train --profile full
    python -m recipes.voc_segmentation.train --profile small --data DIR --out DIR
    torchrun --nproc_per_node 2 -m recipes.voc_segmentation.train --profile full --out DIR

The weights after the last step are in ``model.pt``, the metrics of each epoch in ``curves.tsv``. No
validation image has a say in either. An interrupted training goes on where it was when the same
command is given again.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import asdict

import torch
from torch import Tensor

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
from .metrics import HEADLINE, create_evaluator
from .model import create_model
from .palette import VOID
from .solver import create_optimizer, create_schedule, summed_loss


def train(config: Config, run: recipe.Run) -> dict[str, float]:
    """Train as ``config`` says, into the folders of ``run``; return the last metrics."""
    device = idist.device()
    data = load(config, run.data)
    steps = round(config.epochs * len(data.training))

    torch.manual_seed(config.seed)
    net = create_model(config)
    # `net` is what is saved; `model` is what is called: the same weights on the device, compiled
    # or not, and with several processes wrapped, so that these share their gradients.
    sync_norm = config.sync_norm and device.type == "cuda"
    model = idist.auto_model(net, sync_norm, compile=config.compile)
    optimizer = idist.auto_optim(create_optimizer(config, net))
    schedule = create_schedule(config, optimizer, steps)
    autocast, scaler = recipe.mixed_precision(config.precision, device)

    def train_step(_: Engine, batch: Batch) -> Tensor:
        x, y = prepare_batch(batch, device, non_blocking=True)
        # Each pixel of the batch that is not void counts alike, whichever part and process has it:
        # gradients are averaged over the processes, so each divides by its share of all.
        pixels = idist.all_reduce((y != VOID).sum()) / idist.get_world_size()
        total = torch.zeros((), device=device)
        parts = list(zip(x.chunk(config.accumulate), y.chunk(config.accumulate), strict=True))
        optimizer.zero_grad()
        for number, (images, masks) in enumerate(parts, start=1):
            with nullcontext() if number == len(parts) else idist.no_sync(model):
                with autocast:
                    outputs = model(images)
                    loss = summed_loss(
                        outputs, masks, config.auxiliary, config.background_weight
                    ) / pixels.clamp(min=1)
                torch.autograd.backward(scaler.scale(loss))
            total += loss.detach()
        scaler.step(optimizer)
        scaler.update()
        return total

    trainer = Engine(train_step)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: model.train())
    LRScheduler(schedule).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=50))

    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    progress = ProgressBar()
    progress.attach(trainer, metric_names=["loss"])

    evaluator = create_evaluator(model, config.views[:1])

    @trainer.on(Events.EPOCH_COMPLETED(every=config.validate_every))
    def measure() -> None:
        evaluator.run(data.validation)
        metrics = evaluator.state.metrics
        progress.log_message(
            f"epoch {trainer.state.epoch}: mIoU {metrics['miou']:.4f}, "
            f"pixels {metrics['pixel_accuracy']:.4f}, loss {metrics['loss']:.4f}"
        )

    curves = TableLogger(run.outputs / "curves.tsv")
    tensorboard = TensorboardLogger(log_dir=run.logs)
    trackers: dict[str, BaseLogger] = {"tensorboard": tensorboard}
    if config.mlflow:
        trackers["mlflow"] = MLflowLogger(experiment="voc_segmentation", run_name=run.profile)
    for tracker in trackers.values():
        tracker.log_params(asdict(config))
    loggers: dict[str, BaseLogger] = {"curves": curves, **trackers}
    for logger in loggers.values():
        logger.attach_output_handler(
            evaluator,
            Events.COMPLETED,
            tag="validation",
            metric_names=list(HEADLINE),
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
    last = create_evaluator(model, config.views, flip=config.flip)
    metrics = last.run(data.validation).metrics
    return {name: float(metrics[name]) for name in HEADLINE}


if __name__ == "__main__":
    recipe.main(train, Config, __file__)
