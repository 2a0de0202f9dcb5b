"""Train a classifier of images: ResNet-50 on ImageNet, or any other model on any folder of images.

    python -m recipes.imagenet.train --profile tiny
    python -m recipes.imagenet.train --profile small --data DIR --out DIR
    torchrun --nproc_per_node 8 -m recipes.imagenet.train --profile full

The weights after the last step are in ``model.pt``, their moving average in ``ema.pt``, the metrics
of each epoch in ``curves.tsv``, the images that could not be decoded in ``corrupt.tsv``. No
validation image has a say in the weights. An interrupted training goes on where it was when the
same command is given again.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict

import torch
from torch import Tensor, nn

from cookfire import distributed as idist
from cookfire.engine import Events, create_supervised_trainer
from cookfire.handlers import (
    BaseLogger,
    EMAHandler,
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
from .corrupt import CorruptImages, refuse_corrupt
from .data import Batch, create_mixing, load, prepare_batch
from .metrics import create_evaluator
from .model import create_model, set_training, share_buffers
from .solver import create_optimizer, create_schedule
from .speed import Speed


def train(config: Config, run: recipe.Run) -> dict[str, float]:
    """Train as ``config`` says, into the folders of ``run``; return the last validation metrics."""
    device = idist.device()
    data = load(config, run.data)
    if config.corrupt == "fatal":
        refuse_corrupt(data.sources)
    classes, iterations = len(data.classes), config.epochs * len(data.training)

    if config.sync_bn and device.type == "cpu" and idist.get_world_size() > 1:
        raise recipe.RecipeError("sync_bn: torch can do that on GPUs only; expected false on a CPU")

    torch.manual_seed(config.seed)
    net = create_model(config, classes)
    # `net` is what is saved; `model` is what is called: the same weights on the device, compiled
    # or not, and with several processes wrapped, so that these share their gradients.
    model = idist.auto_model(net, sync_bn=config.sync_bn, compile=config.compile)
    optimizer = idist.auto_optim(create_optimizer(config, net))
    schedule = create_schedule(config, optimizer, iterations)
    _, scaler = recipe.mixed_precision(config.precision, device)
    mixed = config.precision != "float32"
    mix = create_mixing(config, classes)

    def prepare_and_mix(
        batch: Batch, device: torch.device, non_blocking: bool
    ) -> tuple[Tensor, Tensor]:
        return mix(*prepare_batch(batch, device, non_blocking))

    trainer = create_supervised_trainer(
        model,
        optimizer,
        nn.CrossEntropyLoss(label_smoothing=config.label_smoothing),
        device=device,
        non_blocking=True,
        prepare_batch=prepare_and_mix,
        amp_mode="amp" if mixed else None,
        amp_dtype=getattr(torch, config.precision) if mixed else None,
        scaler=scaler if scaler.is_enabled() else False,
        gradient_accumulation_steps=config.accumulate,
    )
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: set_training(config, model, net))
    LRScheduler(schedule).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=50))
    ema = EMAHandler(net, momentum=config.ema or 0.5)
    if config.ema:
        ema.attach(trainer)

    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    speed = Speed(config.batch_size, iterations)
    speed.attach(trainer)
    progress = ProgressBar()
    progress.attach(trainer, metric_names=["loss"], output_transform=speed.values)

    evaluators = {name: create_evaluator(model, classes) for name in ("validation", "ema")}
    corrupt = CorruptImages(data.sources, progress.log_message)
    corrupt.attach(trainer, "train")
    for evaluator in evaluators.values():
        corrupt.attach(evaluator, "val")

    @trainer.on(Events.EPOCH_COMPLETED)
    def measure() -> None:
        epoch = trainer.state.epoch
        if epoch % config.validate_every and epoch < config.epochs:
            return
        metrics = evaluators["validation"].run(data.validation).metrics
        text = f"accuracy {metrics['accuracy']:.4f}, top 5 {metrics['top5']:.4f}"
        if config.ema:
            with ema.swapped():
                share_buffers(net)
                evaluators["ema"].run(data.validation)
            text += f", of the average {evaluators['ema'].state.metrics['accuracy']:.4f}"
        progress.log_message(f"epoch {epoch}: {text}, loss {metrics['loss']:.4f}")

    curves = TableLogger(run.outputs / "curves.tsv")
    tensorboard = TensorboardLogger(log_dir=run.logs)
    trackers: dict[str, BaseLogger] = {"tensorboard": tensorboard}
    if config.mlflow:
        trackers["mlflow"] = MLflowLogger(experiment="imagenet", run_name=run.profile)
    for tracker in trackers.values():
        tracker.log_params(asdict(config))
    loggers: dict[str, BaseLogger] = {"curves": curves, **trackers}
    for logger in loggers.values():
        for name, evaluator in evaluators.items():
            logger.attach_output_handler(
                evaluator,
                Events.COMPLETED,
                tag=name,
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
        parts = {"model": net, "optimizer": optimizer, "scaler": scaler, **evaluators}
        run.keep(trainer, **parts, **loggers)
        trainer.run(data.training, max_epochs=config.epochs)
    run.save("model.pt", net.state_dict())
    run.save("ema.pt", (ema.ema_model if config.ema else net).state_dict())
    run.write("corrupt.tsv", lambda file: file.write(corrupt.table().encode()))
    return dict(evaluators["validation"].state.metrics)


if __name__ == "__main__":
    recipe.main(train, Config, __file__)
