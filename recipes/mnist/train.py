"""Train MNIST's two-convolution net.

    python -m recipes.mnist.train --profile tiny
    python -m recipes.mnist.train --profile full
    python -m recipes.mnist.train --profile full --data DIR --out DIR
    torchrun --nproc_per_node 2 -m recipes.mnist.train --profile full

The weights after the last step are in ``model.pt``, those of the epoch with the best validation F1
in ``best.pt``, the metrics of each epoch in ``curves.tsv``. An interrupted training goes on where
it was when the same command is given again. ``train_plain.py`` is the same training without
engine, handlers and metrics: ``diff`` the two.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.optim import SGD

from cookfire import distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers import (
    BaseLogger,
    Checkpoint,
    DiskSaver,
    MLflowLogger,
    ProgressBar,
    TableLogger,
    TensorboardLogger,
    global_step_from_engine,
    recipe,
)

from .config import Config
from .data import Batch, load, prepare_batch
from .metrics import create_evaluator
from .model import Net
from .pictures import draw_predictions


def train(config: Config, run: recipe.Run) -> dict[str, float]:
    """Train as ``config`` says, into the folders of ``run``; return the last validation metrics."""
    device = idist.device()
    data = load(config, run.data)

    torch.manual_seed(config.seed)
    net = Net(config.dropout)
    # The same initial weights in every process, then dropout of its own in each.
    torch.manual_seed(idist.derive_seed(config.seed, 0, idist.get_rank()))
    # `net` is what is saved; `model` is what is called: the same weights on the device, and with
    # several processes wrapped, so that these share their gradients.
    model = idist.auto_model(net, compile=config.compile)
    optimizer = idist.auto_optim(SGD(model.parameters(), lr=config.lr, momentum=config.momentum))
    criterion = nn.NLLLoss()
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

    progress = ProgressBar()
    progress.attach(trainer, output_transform=lambda loss: {"batch loss": loss})

    # At the end of each epoch: metrics of the training and of the validation images.
    evaluators = {"training": create_evaluator(model), "validation": create_evaluator(model)}

    @trainer.on(Events.EPOCH_COMPLETED)
    def measure() -> None:
        evaluators["training"].run(data.training_in_order)
        evaluators["validation"].run(data.validation)

    @trainer.on(Events.EPOCH_COMPLETED)
    def print_results() -> None:
        for name, evaluator in evaluators.items():
            metrics = evaluator.state.metrics
            progress.log_message(
                f"epoch {trainer.state.epoch} {name:>10}: accuracy {metrics['accuracy']:.4f}, "
                f"loss {metrics['loss']:.4f}, F1 {metrics['f1']:.4f}"
            )

    best = Checkpoint(
        {"model": net},
        DiskSaver(run.outputs, require_empty=False),
        filename_pattern="best.{ext}",
        score_name="f1",
    )
    evaluators["validation"].add_event_handler(Events.COMPLETED, best)

    curves = TableLogger(run.outputs / "curves.tsv")
    tensorboard = TensorboardLogger(log_dir=run.logs)
    trackers: dict[str, BaseLogger] = {"tensorboard": tensorboard}
    if config.mlflow:
        trackers["mlflow"] = MLflowLogger(experiment="mnist", run_name=run.profile)
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
    tensorboard.attach_output_handler(
        trainer,
        Events.ITERATION_COMPLETED(every=100),
        tag="training",
        output_transform=lambda loss: {"batch_loss": loss},
    )

    # Once in each evaluation: iterations are counted anew in each.
    @evaluators["validation"].on(Events.ITERATION_COMPLETED(once=1))
    def show_predictions(evaluator: Engine) -> None:
        images, _ = evaluator.state.batch
        log_probabilities, labels = evaluator.state.output
        figure = draw_predictions(images, labels, log_probabilities)
        tensorboard.log_figure(figure, "predictions", trainer.state.epoch)

    with ExitStack() as stack:
        for logger in loggers.values():
            stack.enter_context(logger)
        # Puts the trainer and all these back to where an interrupted run was, if there is one; and
        # from here on keeps what is needed to go on with this one.
        run.keep(trainer, model=net, optimizer=optimizer, scaler=scaler, best=best, **loggers)
        trainer.run(data.training, max_epochs=config.epochs)
    run.save("model.pt", net.state_dict())
    return dict(evaluators["validation"].state.metrics)


if __name__ == "__main__":
    recipe.main(train, Config, __file__)
