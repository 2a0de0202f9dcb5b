"""What metrics cost: Cookfire, its peers, and the limit, in one run.

    uv run --group bench benchmarks/metrics.py            # print the tables
    uv run --group bench benchmarks/metrics.py --write    # and put them into benchmarks/README.md
    uv run --group bench benchmarks/metrics.py accuracy   # only cases whose name holds the word

The limit is the hand-written tensor expression beside each case. Figures are medians of
interleaved repeats in one process, one thread; what counts is the ratio to the limit. Every
contender's value is compared with the limit's before it is timed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _contenders import Contender, Contenders
from _evaluation import quiet, two_processes
from _metric_cases import CASES
from _table import environment, table, typical, write

PEERS = ("ignite", "torchmetrics", "torcheval")


def microseconds(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return medians; a turn is short, so that on a busy machine most are not interrupted."""
    loops = {}
    for name, call in calls.items():
        begin = perf_counter()
        for _ in range(3):
            call()
        loops[name] = max(1, math.ceil(1e-3 / ((perf_counter() - begin) / 3)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            rounds = range(loops[name])
            begin = perf_counter()
            for _ in rounds:
                call()
            seconds[name].append((perf_counter() - begin) / loops[name])
    return {name: value * 1e6 for name, value in typical(seconds).items()}


def check(case: str, contenders: Contenders) -> None:
    """Raise if a contender's value is not the limit's."""
    expected = None
    for name, contender in contenders.items():
        contender.reset()
        contender.update()
        contender.update()
        value = torch.as_tensor(contender.compute(), dtype=torch.float64).flatten()
        expected = value if expected is None else expected
        tolerance = 1e-2 if case.startswith("SSIM") else 1e-4  # windows, and borders, differ
        if not torch.allclose(value, expected, rtol=tolerance, atol=tolerance):
            raise SystemExit(f"{case}: {name} gives {value}, the limit {expected}")


def measure(case: str, make: Callable[[], Contenders], repeats: int) -> list[list[str]]:
    """Return two rows of the table: update and compute."""
    contenders = make()
    check(case, contenders)
    holds_all = case.startswith(("ROC", "average"))

    def updating(contender: Contender) -> Callable[[], Any]:
        if not holds_all:
            return contender.update
        return lambda: (contender.reset(), contender.update())

    rows = []
    updates = microseconds({name: updating(c) for name, c in contenders.items()}, repeats)
    computes = microseconds({name: c.compute for name, c in contenders.items()}, repeats)
    together = {name: updates[name] + computes[name] for name in contenders}
    for what, medians in (("update", updates), ("compute", computes), ("both", together)):
        bare = medians["limit"]
        ratios = [f"{medians[peer] / bare:.2f}x" if peer in medians else "" for peer in PEERS]
        ours = f"**{medians['Cookfire'] / bare:.2f}x**"
        rows.append([case, what, f"{bare:,.1f}", ours, *ratios])
    return rows


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("words", nargs="*", help="measure only cases whose name holds one of them")
    parser.add_argument("--write", action="store_true", help="update benchmarks/README.md")
    parser.add_argument("--repeats", type=int, default=31, help="of each measurement (31)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def asked(name: str) -> bool:
        return not arguments.words or any(word in name for word in arguments.words)

    with quiet(), torch.no_grad():
        rows = list(
            itertools.chain.from_iterable(
                measure(case, make, arguments.repeats)
                for case, make in CASES.items()
                if asked(case)
            )
        )
    parts = []
    if rows:
        parts.append(table(["metric", "", "limit, µs", "Cookfire", *PEERS], rows))
    if asked("two processes"):
        header = ["an evaluation on two processes (4 batches, 6 metrics)", "collectives", "ms"]
        parts.append(table([*header, "x limit"], two_processes(2 * arguments.repeats)))
    parts.append(environment("pytorch-ignite", "torchmetrics", "torcheval"))
    text = "\n\n".join(parts)
    print(text)
    if arguments.write:
        write("metrics", text)


if __name__ == "__main__":
    main()
