"""What the benchmarks share: interleaved timing, tables, and the page that holds them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from operator import truediv
from pathlib import Path
from time import perf_counter

import torch

PAGE_VARIABLE = "COOKFIRE_BENCHMARKS_PAGE"
PAGE = Path(os.environ.get(PAGE_VARIABLE) or Path(__file__).parent / "README.md")


def interleaved(
    cases: dict[str, Callable[[], None]],
    repeats: int,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, float]:
    """Return each case's :func:`typical` seconds; the cases take turns."""
    for case in cases.values():
        case()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            begin = clock()
            case()
            seconds[name].append(clock() - begin)
    return typical(seconds)


def typical(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of the first case; of the others, by the median of their ratios to it.

    The ratios are those within a turn: what slows the whole machine for a while, slows both.
    """
    first = next(iter(seconds.values()))
    limit = statistics.median(first)
    return {
        name: limit * statistics.median(map(truediv, values, first))
        for name, values in seconds.items()
    }


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def environment(*packages: str) -> str:
    """Return one line that says where figures come from."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, {versions}; "
        f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, one thread."
    )


def processor() -> str:
    """Return the processor's name."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor()])[0] or "unknown processor"


def write(section: str, text: str, page: Path = PAGE) -> None:
    """Put ``text`` into a page, between the marks of ``section``."""
    begin, end = f"<!-- {section} -->\n", f"<!-- end of {section} -->"
    whole = page.read_text()
    if begin not in whole or end not in whole:
        raise SystemExit(f"{page}: the marks of the section {section!r} are missing")
    before, rest = whole.split(begin)
    page.write_text(before + begin + text.rstrip() + "\n" + end + rest.split(end)[1])
