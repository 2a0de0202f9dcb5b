"""Measure everything against its peers, and write the page: benchmarks/README.md.

    uv run --group bench benchmarks/all.py                  # all, ten minutes or so
    uv run --group bench benchmarks/all.py --only engine    # one section, or --only engine metrics
    uv run --group bench benchmarks/all.py --quick          # does all of it run? no figures kept

Each section is measured by its script, in a process of its own, and put between its marks; the text
around them stays. On top of the page go the machine, the versions, and when each section was
measured, of which commit and beside how much other work: figures are worth little where the load
was not far below the number of cores.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

sys.path.insert(0, str(Path(__file__).parent))
from _table import PAGE, PAGE_VARIABLE, processor, table, write

HERE = Path(__file__).resolve().parent
# Each section's script in the page's order, and what makes it quick.
SECTIONS = {
    "engine": ["--iterations", "300", "--repeats", "1"],
    "distributed": ["--repeats", "1"],
    "checkpoint": ["--repeats", "1"],
    "metrics": ["accuracy 128x10", "two processes", "--repeats", "1"],
    "cifar10": ["--repeats", "1"],
    "cyclegan": ["--repeats", "1"],
    "voc_segmentation": ["--repeats", "1"],
    "imagenet": ["--repeats", "1"],
}
VERSIONS = (
    "cookfire-engine", "pytorch-ignite", "lightning", "torchmetrics", "torcheval", "torchvision",
    "albumentations", "timm",
)  # fmt: skip
HEAD = ["section", "measured", "commit", "load before", "minutes"]


def main() -> int:
    """Run the scripts; return the exit code: 1 where one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        metavar="NAME",
        help="of the sections " + ", ".join(SECTIONS),
    )
    parser.add_argument("--quick", action="store_true", help="with hardly a repeat, into no page")
    arguments = parser.parse_args()
    names = [name for name in SECTIONS if name in (arguments.only or SECTIONS)]
    failed = []
    with TemporaryDirectory() as folder:
        page = PAGE
        if arguments.quick:
            page = Path(folder) / PAGE.name
            shutil.copy(PAGE, page)
        for number, name in enumerate(names, start=1):
            print(f"[{number}/{len(names)}] {name}", flush=True)
            load, begin = os.getloadavg()[0], monotonic()
            command = [sys.executable, str(HERE / f"{name}.py"), "--write"]
            done = subprocess.run(
                command + (SECTIONS[name] if arguments.quick else []),
                env={**os.environ, PAGE_VARIABLE: str(page), "OMP_NUM_THREADS": "1"},
                check=False,
            )
            if done.returncode:
                failed.append(name)
                continue
            minutes = (monotonic() - begin) / 60
            print(f"{minutes:.1f} minutes", flush=True)
            run = [today(), commit(), f"{load:.1f}", f"{minutes:.1f}"]
            write("machine", machine(page.read_text(), {name: run}), page)
        if arguments.quick:
            print(page.read_text())
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def machine(page: str, runs: dict[str, list[str]]) -> str:
    """Return the text on top of a page: where it was measured, and when each of its sections."""
    rows = []
    for name in SECTIONS:
        title = re.findall(r"^## (.*)$", page.split(f"<!-- {name} -->")[0], re.MULTILINE)[-1]
        anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        link = f"[{name}](#{anchor})"
        known = re.search(rf"^\| {re.escape(link)} \| (.*) \|$", page, re.MULTILINE)
        before = known[1].split(" | ") if known else ["—"] * (len(HEAD) - 1)
        rows.append([link, *runs.get(name, before)])
    return f"{table(HEAD, rows)}\n\n{described()}"


def described() -> str:
    """Return the machine and the versions in one paragraph; no name of a host."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = []
    for name in VERSIONS:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    return (
        f"The last of them on {processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.machine()}; Python {platform.python_version()}, torch "
        f"{metadata.version('torch')}, {', '.join(versions)}."
    )


def today() -> str:
    """Return the date, as of a calendar anywhere."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit() -> str:
    """Return the commit's short hash, with a plus if the packages have changed since."""
    git = ["git", "-C", str(HERE)]
    head = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", "../packages", "../recipes"], check=False
    )
    return (head.stdout.strip() or "unknown") + ("+" if changed.returncode == 1 else "")


if __name__ == "__main__":
    sys.exit(main())
