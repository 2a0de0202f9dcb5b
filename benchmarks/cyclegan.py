"""What Cycle-GAN's recipe costs: its step and loop beside a bare one of the same nets.

    uv run --group bench benchmarks/cyclegan.py            # print the table
    uv run --group bench benchmarks/cyclegan.py --write    # and put it into benchmarks/README.md

The data are noise. The loops train the profile tiny's nets on its batches of 4 pictures of 32
pixels: a loop's own cost shows more, the smaller both are. The bare loop has the same losses,
pools, optimizers, schedules and data path, and computes no gradients of the discriminators in the
generators' phase either; a third one does, as many scripts have it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from operator import itemgetter
from pathlib import Path
from time import process_time
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim import Adam

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from _table import environment, interleaved, table, write

from cookfire import distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers import LRScheduler, ProgressBar, TableLogger, TerminateOnNan, recipe
from cookfire.metrics import Average
from recipes.cyclegan import losses
from recipes.cyclegan.config import Config
from recipes.cyclegan.data import UnpairedPictures, prepare_batch
from recipes.cyclegan.events import Phases
from recipes.cyclegan.model import Discriminators, Generators
from recipes.cyclegan.pool import PicturePool
from recipes.cyclegan.schedule import create_schedule

COUNT = 40  # pictures of each domain: ten steps
TARGET = 1.03


def measure(repeats: int) -> list[list[str]]:
    """Measure an epoch of training; return the table's rows."""
    config = replace(
        recipe.load(Path(__file__).parents[1] / "recipes/cyclegan/params.yaml", "tiny", Config),
        epochs=100_000,  # so that no case runs into the schedule's end
    )
    chance = torch.Generator().manual_seed(0)
    size = (COUNT, 3, config.load_size, config.load_size)
    a, b = (torch.randint(0, 256, size, dtype=torch.uint8, generator=chance) for _ in range(2))

    def parts() -> Any:
        torch.manual_seed(0)
        dataset = UnpairedPictures(a, b, image_size=config.image_size, seed=0)
        options = {"drop_last": True, "with_epoch": True, "collate_fn": lambda batch: batch}
        loader = idist.auto_dataloader(dataset, batch_size=config.batch_size, seed=0, **options)
        nets = Generators(config), Discriminators(config)
        adams = [Adam(net.parameters(), lr=config.lr, betas=config.betas) for net in nets]
        schedules = [create_schedule(config, adam, len(loader)) for adam in adams]
        pools = [PicturePool(config.pool, seed) for seed in range(2)]
        return loader, nets, adams, schedules, pools

    def bare(frozen: bool) -> Callable[[], None]:
        loader, (g, d), (adam_g, adam_d), schedules, (pool_a, pool_b) = parts()
        state = {"step": 0}

        def square(looks: Any, target: float) -> Any:
            return F.mse_loss(looks, torch.full_like(looks, target))

        def run() -> None:
            for batch in loader:
                state["step"] += 1
                real_a, real_b = prepare_batch(batch)
                if frozen:
                    d.requires_grad_(False)
                fake_b, same_b = g.a_to_b(torch.cat([real_a, real_b])).chunk(2)
                fake_a, same_a = g.b_to_a(torch.cat([real_b, real_a])).chunk(2)
                cycled_a, cycled_b = g.b_to_a(fake_b), g.a_to_b(fake_a)
                loss = square(d.of_a(fake_a), 1.0) + square(d.of_b(fake_b), 1.0)
                loss = loss + 10 * (F.l1_loss(cycled_a, real_a) + F.l1_loss(cycled_b, real_b))
                loss = loss + 5 * (F.l1_loss(same_a, real_a) + F.l1_loss(same_b, real_b))
                adam_g.zero_grad()
                loss.backward()
                adam_g.step()
                d.requires_grad_(True)
                adam_d.zero_grad()
                shown_a = pool_a.exchange(fake_a.detach(), state["step"])
                shown_b = pool_b.exchange(fake_b.detach(), state["step"])
                of_real_a, of_fake_a = d.of_a(torch.cat([real_a, shown_a])).chunk(2)
                of_real_b, of_fake_b = d.of_b(torch.cat([real_b, shown_b])).chunk(2)
                loss = square(of_real_a, 1.0) + square(of_fake_a, 0.0)
                loss = loss + square(of_real_b, 1.0) + square(of_fake_b, 0.0)
                (loss / 2).backward()
                adam_d.step()
                for schedule in schedules:
                    schedule.step()

        return run

    def recipes_own(folder: Path) -> Callable[[], None]:
        """As train.py has it, less its evaluations, pictures and trackers."""
        loader, (generators, discriminators), adams, schedules, (pool_a, pool_b) = parts()
        optimizer_g, optimizer_d = map(idist.auto_optim, adams)
        generators_model = idist.auto_model(generators)
        discriminators_model = idist.auto_model(discriminators)
        device = idist.device()
        autocast, scaler = recipe.mixed_precision(config.precision, device)

        def train_step(engine: Engine, batch: Any) -> Any:
            state: Any = engine.state
            real_a, real_b = prepare_batch(batch, device, non_blocking=True)
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
            state.pictures = None
            return parts

        trainer = Engine(train_step)
        trainer.register_events(*Phases)
        for schedule in schedules:
            LRScheduler(schedule).attach(trainer)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=50))
        for name in losses.names(config):
            Average(output_transform=itemgetter(name)).attach(trainer, name)
        ProgressBar(file=StringIO()).attach(trainer, output_transform=losses.summary)
        curves = TableLogger(folder / "curves.tsv")
        curves.attach_output_handler(
            trainer, Events.EPOCH_COMPLETED, tag="training", metric_names=losses.names(config)
        )
        return lambda: trainer.run(loader, max_epochs=trainer.state.epoch + 1)

    with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        cases = {
            "a bare loop of PyTorch": bare(frozen=True),
            "the recipe's": recipes_own(Path(folder)),
            "a bare loop with all gradients": bare(frozen=False),
        }
        seconds = interleaved(cases, repeats, process_time)
    limit, steps = seconds["a bare loop of PyTorch"], COUNT // config.batch_size
    rows = []
    for name, value in seconds.items():
        target = f" (at most {TARGET}x)" if name == "the recipe's" else ""
        rows.append([name, f"{value / steps * 1e3:.2f}", f"{value / limit:.3f}x{target}"])
    return rows


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="update benchmarks/README.md")
    parser.add_argument("--repeats", type=int, default=21, help="of each loop (21)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    head = ["a step of 4 + 4 pictures, the nets of the profile tiny", "CPU ms", "x bare"]
    text = "\n\n".join([table(head, measure(arguments.repeats)), environment("pillow")])
    print(text)
    if arguments.write:
        write("cyclegan", text)


if __name__ == "__main__":
    main()
