"""What a loop costs: Cookfire, its peers, and the limit, in one run.

    uv run --group bench benchmarks/engine.py            # print the tables
    uv run --group bench benchmarks/engine.py --write    # and put them into benchmarks/README.md

The limit is a bare ``for`` loop that calls the same step and the same handlers inline. Figures are
medians of interleaved repeats in one process; what counts is the ratio to the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import ignite.engine
import ignite.handlers
import ignite.handlers.tqdm_logger
import ignite.metrics
import torch
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
from _table import environment, interleaved, table, typical, write

import cookfire.engine
import cookfire.handlers
import cookfire.metrics

Run = Callable[[], None]

TARGETS = {
    "no handlers": 4.0,
    "ten handlers": 2.0,
    "ten handlers with every=100": 3.0,
    "running average and progress": 2.0,
}


def step(engine: Any, batch: Any) -> float:
    return 0.5


def heard(engine: Any) -> None:
    """A handler that does nothing."""


class RunningAverage:
    value = 0.0

    def __call__(self, engine: Any) -> None:
        self.value += 0.02 * (engine.state.output - self.value)


class Progress:
    count = 0
    text = ""

    def __call__(self, engine: Any) -> None:
        self.count += 1
        if self.count % 1000 == 0:
            self.text = f"{self.count} iterations"


# The bare loops: the limit of each case.


class Bare:
    """What the inline handlers look at, as an engine's state would hold it."""

    class state:  # noqa: N801 - the attribute's name
        output = 0.5


def bare_nothing(data: list[int]) -> None:
    for batch in data:
        step(None, batch)


def bare_ten(data: list[int]) -> None:
    h = heard
    for batch in data:
        step(None, batch)
        h(None), h(None), h(None), h(None), h(None)
        h(None), h(None), h(None), h(None), h(None)


def bare_every(data: list[int]) -> None:
    h = heard
    for iteration, batch in enumerate(data, start=1):
        step(None, batch)
        if iteration % 100 == 0:
            h(None), h(None), h(None), h(None), h(None)
            h(None), h(None), h(None), h(None), h(None)


def bare_average(data: list[int]) -> None:
    average, progress, bare = RunningAverage(), Progress(), Bare()
    for batch in data:
        bare.state.output = step(None, batch)
        average(bare)
        progress(bare)


def attached(module: Any, case: str) -> Any:
    """Return an engine of ``module`` (Cookfire's or ignite's) with the case's handlers."""
    engine = module.Engine(step)
    event = module.Events.ITERATION_COMPLETED
    if case == "ten handlers":
        for _ in range(10):
            engine.add_event_handler(event, heard)
    elif case == "ten handlers with every=100":
        for _ in range(10):
            engine.add_event_handler(event(every=100), heard)
    elif case == "running average and progress":
        engine.add_event_handler(event, RunningAverage())
        engine.add_event_handler(event, Progress())
    return engine


def lightning_loop(case: str, batches: int) -> Run:
    """Return a run of Lightning's trainer over ``batches`` with the case's callbacks."""
    import lightning

    class Module(lightning.LightningModule):
        automatic_optimization = False
        output = 0.5

        @property
        def state(self) -> Any:
            return self

        def training_step(self, batch: Any, index: int) -> None:
            self.output = step(self, batch)

        def configure_optimizers(self) -> list[Any]:
            return []

    class Callback(lightning.Callback):
        def __init__(self, function: Callable[[Any], None], every: int = 1) -> None:
            self.function, self.every = function, every

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
        ) -> None:
            if (index + 1) % self.every == 0:
                self.function(module)

    callbacks = {
        "no handlers": [],
        "ten handlers": [Callback(heard) for _ in range(10)],
        "ten handlers with every=100": [Callback(heard, 100) for _ in range(10)],
        "running average and progress": [Callback(RunningAverage()), Callback(Progress())],
    }[case]
    return lightning_fit(Module(), [0] * batches, callbacks, progress=False)


def lightning_fit(module: Any, data: Any, callbacks: list[Any], progress: bool) -> Run:
    import lightning

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            lightning.Trainer(
                max_epochs=1,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=progress,
                enable_model_summary=False,
                callbacks=callbacks,
            ).fit(module, data)

    return run


def loops(iterations: int, repeats: int) -> list[list[str]]:
    """Measure the loop's cases; return the table's rows."""
    data = [0] * iterations
    few = iterations // 20  # the slow peers need no more to be measured
    limits = dict(zip(TARGETS, (bare_nothing, bare_ten, bare_every, bare_average), strict=True))
    rows = []
    for case, bare in limits.items():
        ours, theirs = attached(cookfire.engine, case), attached(ignite.engine, case)
        seconds = interleaved(
            {
                "bare": lambda bare=bare: bare(data),
                "cookfire": lambda ours=ours: ours.run(data),
                "ignite": lambda theirs=theirs: theirs.run(data[:few]),
            },
            repeats,
        )
        slow = interleaved({"few": lightning_loop(case, 10), "many": lightning_loop(case, 2010)}, 3)
        microseconds = {
            "bare": seconds["bare"] / iterations * 1e6,
            "cookfire": seconds["cookfire"] / iterations * 1e6,
            "ignite": seconds["ignite"] / few * 1e6,
            "lightning": (slow["many"] - slow["few"]) / 2000 * 1e6,
        }
        limit = microseconds["bare"]
        rows.append(
            [
                case,
                f"{limit:.3f}",
                f"{microseconds['cookfire']:.3f}",
                f"**{microseconds['cookfire'] / limit:.1f}x** (at most {TARGETS[case]:.0f}x)",
                f"{microseconds['ignite'] / limit:.0f}x",
                f"{microseconds['lightning'] / limit:.0f}x",
            ]
        )
    return rows


# A train step


def mlp() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def train_step(iterations: int, repeats: int) -> list[list[str]]:
    """Measure a small training with the usual handlers; return the table's rows."""
    batch = (torch.randn(32, 64), torch.randint(10, (32,)))
    data = [batch] * iterations
    loss_fn = nn.CrossEntropyLoss()

    def bare() -> Run:
        model, optimizer = mlp()

        def run() -> None:
            for x, y in data:
                optimizer.zero_grad()
                loss = loss_fn(model(x), y)
                loss.backward()
                optimizer.step()

        return run

    def trained(engines: Any, handlers: Any = None, metrics: Any = None, bar: Any = None) -> Run:
        model, optimizer = mlp()
        trainer = engines.create_supervised_trainer(model, optimizer, loss_fn)
        if handlers is not None:
            metrics.RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
            completed = engines.Events.ITERATION_COMPLETED
            trainer.add_event_handler(completed, handlers.TerminateOnNan())
            bar(file=io.StringIO()).attach(trainer, metric_names=["loss"])
        return lambda: trainer.run(data, max_epochs=1)

    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.optimizer = mlp()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            x, y = batch
            loss = loss_fn(self.model(x), y)
            self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            return self.optimizer

    def fit(count: int) -> Run:
        return lightning_fit(
            Module(), DataLoader(Repeat(batch, count), batch_size=None), [], progress=True
        )

    ours, theirs = cookfire.engine, ignite.engine
    bars = cookfire.handlers.ProgressBar, ignite.handlers.tqdm_logger.ProgressBar
    seconds = interleaved(
        {
            "bare loop": bare(),
            "Cookfire": trained(ours),
            "Cookfire with handlers": trained(ours, cookfire.handlers, cookfire.metrics, bars[0]),
            "ignite": trained(theirs),
            "ignite with handlers": trained(theirs, ignite.handlers, ignite.metrics, bars[1]),
        },
        repeats,
    )
    slow = interleaved({"few": fit(10), "many": fit(10 + iterations)}, repeats=3)
    seconds["Lightning with progress bar"] = slow["many"] - slow["few"]
    limit = seconds["bare loop"]
    rows = []
    for name, value in seconds.items():
        ratio = f"{value / limit:.3f}x"
        target = " (at most 1.05x)" if name == "Cookfire with handlers" else ""
        rows.append([name, f"{value / iterations * 1e6:.0f}", f"{ratio}{target}"])
    return rows


class Repeat(torch.utils.data.Dataset[Any]):
    """The same batch, many times."""

    def __init__(self, batch: Any, count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.batch


def import_time(repeats: int) -> list[list[str]]:
    """Measure imports in processes of their own; return the table's rows."""
    seconds: dict[str, list[float]] = {"torch": [], "cookfire.engine": [], "ignite.engine": []}
    for _, name in itertools.product(range(repeats + 1), seconds):
        begin = perf_counter()
        subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
        seconds[name].append(perf_counter() - begin)
    found = typical({name: values[1:] for name, values in seconds.items()})
    return [
        [f"`import {name}`", f"{value:.2f}", f"{value / found['torch']:.3f}x"]
        for name, value in found.items()
    ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the peers log and warn about."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="update benchmarks/README.md")
    parser.add_argument("--iterations", type=int, default=200_000, help="of a loop (200,000)")
    parser.add_argument("--repeats", type=int, default=9, help="of each measurement (9)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with quiet():
        text = "\n\n".join(
            [
                table(
                    [
                        "a no-op step, µs an iteration",
                        "bare loop",
                        "Cookfire",
                        "x bare",
                        "ignite",
                        "Lightning",
                    ],
                    loops(arguments.iterations, arguments.repeats),
                ),
                table(
                    ["a train step (MLP, batch 32)", "µs", "x bare"],
                    train_step(500, 5 * arguments.repeats),
                ),
                table(["import", "s", "x torch"], import_time(arguments.repeats)),
                environment("pytorch-ignite", "lightning"),
            ]
        )
    print(text)
    if arguments.write:
        write("engine", text)


if __name__ == "__main__":
    main()
