"""Pin every version of the environment in files that name no registry's address.

    uv run tools/pins.py            # check that pins, lock and environment agree (CI)
    uv run tools/pins.py --add      # pin what was added to the requirements, and drop what is gone
    uv run tools/pins.py --update   # take the newest versions that the requirements allow

``uv.lock`` names addresses, so it is not committed. What is committed in its place:

- ``[tool.uv] constraint-dependencies`` in ``pyproject.toml``: with it ``uv run`` resolves to the
  same versions everywhere. torch and what comes with it are pinned by their dependency group, since
  each environment has its own: ``recent``, the default, and ``xla``.
- ``requirements.lock`` and ``requirements-xla.lock``: the whole set of each environment, with
  hashes, for pip and for reading.

Both sets are checked against one resolution, in any environment; what is installed is compared with
the set of the environment that runs this.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
BEGIN, END = "# pins: kept by tools/pins.py\n", "# end of pins\n"
# These follow from the group's own pin, and differ between environments. What they bring with them
# has other names in each, and is pinned like all else: torch leaves some of CUDA's versions open.
BY_GROUP = re.compile(r"(torch|torchvision|torch-xla|triton)==")
LOCKS = {
    ROOT / "requirements.lock": ("dev", "examples", "recent", "trackers", "bench", "docs"),
    ROOT / "requirements-xla.lock": ("dev", "xla"),
}


def main() -> int:
    """Check or update the pins; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--update", action="store_true", help="take the newest allowed versions")
    what.add_argument(
        "--add", action="store_true", help="pin what was added; all else keeps its version"
    )
    arguments = parser.parse_args()
    text = PYPROJECT.read_text()
    if BEGIN not in text or END not in text:
        print(f"{PYPROJECT.name} lacks the marks of the pins: {BEGIN.strip()!r}, {END.strip()!r}")
        return 2
    if arguments.update or arguments.add:
        update(text, keep=pinned() if arguments.add else set())
    problems = check()
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(
            "run `uv run tools/pins.py --add` (or --update), and commit all three files",
            file=sys.stderr,
        )
        return 1
    names = " and ".join(lock.name for lock in LOCKS)
    print(f"{len(pinned())} pins agree with {names}, and {installed().name} with what is installed")
    return 0


def update(text: str, keep: set[str]) -> None:
    """Resolve with the pins to keep, then write the pins and the locks."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]

    def pin(pins: set[str]) -> None:
        listed = "".join(f'    "{pin}",\n' for pin in sorted(pins, key=name_first))
        PYPROJECT.write_text(f"{before}{BEGIN}constraint-dependencies = [\n{listed}]\n{END}{after}")

    try:
        pin(keep)
        uv("lock", "--upgrade")
        # The other environments take what the first one has, so that one set of pins serves all.
        pin(keep | without_groups(requirements(export(next(iter(LOCKS))))))
        uv("lock")
        for lock in LOCKS:
            lock.write_text(export(lock))
        pin(shared())
        uv("lock")
    except BaseException:  # to undo, and raise again
        PYPROJECT.write_text(text)
        raise


def check() -> list[str]:
    """Return what does not agree: pins, locks, what a fresh resolution gives, what is installed."""
    problems = [f"{PYPROJECT.name} lacks the pin {pin}" for pin in sorted(shared() - pinned())]
    problems += [f"no lock has the pin {pin}" for pin in sorted(pinned() - shared())]
    uv("lock")
    for lock in LOCKS:
        if changed := requirements(export(lock)) ^ requirements(lock.read_text()):
            problems.append(f"{lock.name} differs from what resolves: {', '.join(sorted(changed))}")
    return problems + check_installed(installed())


def check_installed(lock: Path) -> list[str]:
    """Return what is installed in another version than ``lock`` has."""
    versions: dict[str, list[str]] = {}
    for line in requirements(lock.read_text()):
        name, version = re.match(r"([\w.-]+)(?:\[.*\])?==([^ ;]+)", line).groups()  # type: ignore[union-attr]  # an export has no other lines
        versions.setdefault(name, []).append(version)
    problems = []
    for name, known in versions.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # another platform's, another Python's, or of a group that is not installed
        # Of a name with several versions, markers say which is for whom.
        if len(known) == 1 and found != known[0]:
            problems.append(f"{name} {found} is installed, {lock.name} has {known[0]}")
    return problems


def installed() -> Path:
    """Return the lock of the environment that runs this."""
    plain, xla = LOCKS
    return xla if find_spec("torch_xla") else plain


def pinned() -> set[str]:
    """Return the pins in the pyproject."""
    section = PYPROJECT.read_text().split(BEGIN)[1].split(END)[0]
    return set(re.findall(r'^    "(.+==.+)",$', section, re.MULTILINE))


def shared() -> set[str]:
    """Return what the locks have, but for what follows from the groups."""
    return without_groups(*(requirements(lock.read_text()) for lock in LOCKS))


def without_groups(*lines: set[str]) -> set[str]:
    """Return the lines that are pinned for all environments, as TOML can quote them."""
    return {line.replace('"', "'") for line in set().union(*lines) if not BY_GROUP.match(line)}


def name_first(pin: str) -> list[str]:
    """Return what to sort by: ``aiohttp`` before ``aiohttp-retry``, as uv does."""
    return pin.split("==", 1)


def requirements(text: str) -> set[str]:
    """Return lines without their hashes: ``numpy==2.4.6 ; python_full_version < '3.12'``."""
    lines = [line.rstrip(" \\\n") for line in text.splitlines()]
    return {line for line in lines if re.match(r"[\w.-]+(\[.*\])?==", line)}


def export(lock: Path) -> str:
    """Return uv's resolution of a lock's groups in pip's format, with hashes."""
    groups = [argument for group in LOCKS[lock] for argument in ("--group", group)]
    return uv(
        "export",
        "--no-emit-workspace",
        "--no-annotate",
        "--no-header",
        "--no-default-groups",
        *groups,
    )


def uv(*arguments: str) -> str:
    """Run uv quietly; return what it prints."""
    done = subprocess.run(
        ["uv", "--quiet", *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
