"""Measure two gloo processes: a training step, ragged gathers, the reduction of metrics.

    uv run benchmarks/distributed.py --write

Each case is timed beside the same work written by hand with torch.distributed, taking turns. What
counts is the processor time of a process, gloo's threads included: how long it waits for the other
one depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent))
from _table import environment, interleaved, table, write

import cookfire.distributed as idist
from cookfire.engine import create_supervised_trainer
from cookfire.metrics import Accuracy

Case = Callable[[], None]

STEPS, CALLS = 10, 20  # short turns: a busy machine hits all cases alike


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(32, 784), torch.randint(10, (32,))


def loop(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    for x, y in data:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


def steps() -> dict[str, Case]:
    """Return a training step, bare and ours."""
    data = [batch() for _ in range(STEPS)]
    bare, ours, trained = DistributedDataParallel(net()), idist.auto_model(net()), net()
    model = idist.auto_model(trained)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trainer = create_supervised_trainer(model, optimizer, cross_entropy)
    return {
        "a step of bare DDP": partial(loop, bare, data),
        "the same with `auto_model`": partial(loop, ours, data),
        "the same in an `Engine`": lambda: discard(trainer.run(data, max_epochs=1)),
    }


def discard(_: object) -> None:
    """Return nothing."""


def gathers() -> dict[str, Case]:
    """Return a gather of tensors with other lengths in other processes."""
    mine = torch.randn(1000 + 10 * dist.get_rank(), 16)

    def by_hand() -> None:
        world = dist.get_world_size()
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world)]
        dist.all_gather(sizes, torch.tensor([len(mine)]))
        lengths = [int(size) for size in sizes]
        padded = mine.new_zeros(max(lengths), 16)
        padded[: len(mine)] = mine
        everyone = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(everyone, padded)
        torch.cat([rows[:length] for rows, length in zip(everyone, lengths, strict=True)])

    return {
        "a ragged gather by hand": repeated(by_hand),
        "`all_gather`": repeated(lambda: discard(idist.all_gather(mine))),
    }


def reductions() -> dict[str, Case]:
    """Return the accuracy of a batch over all processes."""
    logits, labels = torch.randn(256, 10), torch.randint(10, (256,))

    def by_hand() -> None:
        right = (logits.argmax(1) == labels).sum()
        counts = torch.stack([right, torch.tensor(len(labels))])
        dist.all_reduce(counts)
        discard(float(counts[0] / counts[1]))

    accuracy = Accuracy()

    def ours() -> None:
        accuracy.reset()
        accuracy.update((logits, labels))
        accuracy.compute()

    return {"an accuracy by hand": repeated(by_hand), "`Accuracy`": repeated(ours)}


def repeated(function: Case) -> Case:
    def run() -> None:
        for _ in range(CALLS):
            function()

    return run


def measure(local_rank: int, repeats: int, write_page: bool) -> None:
    """Time all cases together with the other process; the first one says how it went."""
    torch.set_num_threads(1)
    rows: list[list[str]] = []
    for cases, count, target in (
        (steps(), STEPS, 1.02),
        (gathers(), CALLS, None),
        (reductions(), CALLS, None),
    ):
        seconds = interleaved(cases, repeats, process_time)
        limit = next(iter(seconds.values()))
        for name, value in seconds.items():
            ratio = f"{value / limit:.3f}x"
            if target is not None and "auto_model" in name:
                ratio += f" (at most {target}x)"
            rows.append([name, f"{1e6 * value / count:.0f}", ratio])
    if local_rank == 0:
        text = f"{table(['two gloo processes', 'CPU µs', 'x by hand'], rows)}\n\n{said()}"
        print(text)
        if write_page:
            write("distributed", text)


def said() -> str:
    return environment("cookfire-distributed").replace("one thread", "one thread a process")


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="update benchmarks/README.md")
    parser.add_argument("--repeats", type=int, default=101, help="of each measurement (101)")
    options = parser.parse_args()
    run: Any = partial(measure, repeats=options.repeats, write_page=options.write)
    with idist.Parallel(backend="gloo", nproc_per_node=2) as parallel:
        parallel.run(run)


if __name__ == "__main__":
    main()
