"""Train a Cycle-GAN: two generators that turn the pictures of two domains into one another.

    python -m recipes.cyclegan.train --profile tiny
    python -m recipes.cyclegan.train --profile full
    python -m recipes.cyclegan.train --profile small --data DIR --out DIR
    torchrun --nproc_per_node 8 -m recipes.cyclegan.train --profile full

The generators and discriminators after the last step are in ``model.pt``, the losses and metrics of
each epoch in ``curves.tsv``, and in ``pictures/`` test pictures turned forth and back after each
epoch. An interrupted training goes on where it was when the same command is given again.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

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
from cookfire.metrics import Average

from . import losses
from .config import Config
from .data import Batch, load, prepare_batch
from .events import Phases
from .metrics import create_evaluator, results
from .model import Discriminators, Generators
from .pictures import make_grids, write_png
from .pool import PicturePool
from .schedule import create_schedule


def train(config: Config, run: recipe.Run) -> dict[str, float]:
    """Train as ``config`` says, into the folders of ``run``; return the last test metrics."""
    device = idist.device()
    data = load(config, run.data)
    epochs = config.epochs + config.decay_epochs

    torch.manual_seed(config.seed)
    generators, discriminators = Generators(config), Discriminators(config)
    # These are saved, evaluated and judged by; `*_model` is what is trained: the same weights on
    # the device, compiled or not, and with several processes wrapped, so that these share their
    # gradients. Both generators are wrapped as one, and so are both discriminators: each phase of
    # a step is one forward and one backward pass in which all weights of one wrapper take part.
    generators_model = idist.auto_model(generators, compile=config.compile)
    discriminators_model = idist.auto_model(discriminators, compile=config.compile)
    adam = partial(Adam, lr=config.lr, betas=config.betas)
    optimizer_g = idist.auto_optim(adam(generators.parameters()))
    optimizer_d = idist.auto_optim(adam(discriminators.parameters()))
    pool_a = PicturePool(config.pool, idist.derive_seed(config.seed, 0, 2))
    pool_b = PicturePool(config.pool, idist.derive_seed(config.seed, 0, 3))
    autocast, scaler = recipe.mixed_precision(config.precision, device)

    def train_step(engine: Engine, batch: Batch) -> dict[str, Tensor]:
        state: Any = engine.state  # which takes what a step wants to show its handlers
        real_a, real_b = prepare_batch(batch, device, non_blocking=True)

        # The generators learn from what the discriminators say, and these learn nothing from it:
        # they are not wrapped here, and no gradients of their weights are computed.
        discriminators.requires_grad_(False)
        with autocast:
            made = generators_model(real_a, real_b, identity=config.lambda_identity > 0)
            looks_a, looks_b = discriminators(made.fake_a, made.fake_b)
        loss, parts = losses.of_generators(config, made, looks_a, looks_b)
        optimizer_g.zero_grad()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer_g)
        state.pictures, state.output = made, parts
        engine.fire_event(Phases.GENERATORS_UPDATED)

        # The discriminators learn to tell real pictures from generated ones, some of them older.
        discriminators.requires_grad_(True)
        shown_a = pool_a.exchange(made.fake_a.detach().float(), state.iteration)
        shown_b = pool_b.exchange(made.fake_b.detach().float(), state.iteration)
        with autocast:
            looks_a, looks_b = discriminators_model(
                torch.cat([real_a, shown_a]), torch.cat([real_b, shown_b])
            )
        loss, more_parts = losses.of_discriminators(looks_a, looks_b)
        optimizer_d.zero_grad()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer_d)
        scaler.update()
        state.output = parts = parts | more_parts
        engine.fire_event(Phases.DISCRIMINATORS_UPDATED)
        state.pictures = None  # lest the graph of this step stays in memory during the next
        return parts

    trainer = Engine(train_step)
    trainer.register_events(*Phases)
    for optimizer in (optimizer_g, optimizer_d):
        schedule = create_schedule(config, optimizer, len(data.training))
        LRScheduler(schedule).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=50))

    for name in losses.names(config):
        Average(output_transform=itemgetter(name)).attach(trainer, name)
    progress = ProgressBar()
    progress.attach(trainer, output_transform=losses.summary)

    evaluator = create_evaluator(config, generators)

    @trainer.on(Events.EPOCH_COMPLETED(every=config.validate_every))
    def measure() -> None:
        evaluator.run(data.test)
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in results(evaluator).items())
        progress.log_message(f"epoch {trainer.state.epoch}: {metrics}")

    curves = TableLogger(run.outputs / "curves.tsv")
    tensorboard = TensorboardLogger(log_dir=run.logs)
    trackers: dict[str, BaseLogger] = {"tensorboard": tensorboard}
    if config.mlflow:
        trackers["mlflow"] = MLflowLogger(experiment="cyclegan", run_name=run.profile)
    for tracker in trackers.values():
        tracker.log_params(asdict(config))
    loggers: dict[str, BaseLogger] = {"curves": curves, **trackers}
    for logger in loggers.values():
        logger.attach_output_handler(
            trainer, Events.EPOCH_COMPLETED, tag="training", metric_names=losses.names(config)
        )
        logger.attach_output_handler(
            evaluator,
            Events.COMPLETED,
            tag="test",
            metric_names="all",
            global_step_transform=global_step_from_engine(trainer),
        )
    for tracker in trackers.values():
        every_tenth = Events.ITERATION_COMPLETED(every=10)
        tracker.attach_output_handler(
            trainer, every_tenth, tag="step", output_transform=lambda parts: parts
        )
        for name, optimizer in (("generators", optimizer_g), ("discriminators", optimizer_d)):
            tracker.attach_opt_params_handler(trainer, every_tenth, optimizer=optimizer, tag=name)

    @trainer.on(Events.EPOCH_COMPLETED)
    def show() -> None:
        for name, grid in make_grids(generators, data.shown).items():
            for tracker in trackers.values():
                tracker.log_image(grid, name, trainer.state.epoch)
            run.write(f"pictures/{name}/{trainer.state.epoch:04d}.png", partial(write_png, grid))

    with ExitStack() as stack:
        for logger in loggers.values():
            stack.enter_context(logger)
        # Puts the trainer and all these back to where an interrupted run was, if there is one; and
        # from here on keeps what is needed to go on with this one.
        run.keep(
            trainer,
            generators=generators,
            discriminators=discriminators,
            optimizer_g=optimizer_g,
            optimizer_d=optimizer_d,
            pool_a=pool_a,
            pool_b=pool_b,
            scaler=scaler,
            **loggers,
        )
        trainer.run(data.training, max_epochs=epochs)
    run.save(
        "model.pt",
        {"generators": generators.state_dict(), "discriminators": discriminators.state_dict()},
    )
    last = create_evaluator(config, generators)  # whose results no logger waits for
    last.run(data.test)
    return results(last)


if __name__ == "__main__":
    recipe.main(train, Config, __file__)
