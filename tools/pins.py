"""Pin every version of the environment in files that name no registry's address.

    uv run tools/pins.py            # check that pins, lock and environment agree (CI)
    uv run tools/pins.py --update   # take the newest versions that the requirements allow

``uv.lock`` names addresses, so it is not committed. What is committed in its place:

- ``[tool.uv] constraint-dependencies`` in ``pyproject.toml``: with it ``uv run`` resolves to the
  same versions everywhere. torch and what comes with it are pinned by their dependency group, since
  each environment has its own.
- ``requirements.lock``: the same set with hashes, for pip and for reading.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
LOCK = ROOT / "requirements.lock"
BEGIN, END = "# pins: kept by tools/pins.py\n", "# end of pins\n"
# These follow from the group's own pin, and differ between environments.
BY_GROUP = re.compile(r"(torch|torchvision|torch-xla|triton|nvidia-.*|cuda-.*)==")
GROUPS = ("dev", "recent", "bench")


def main() -> int:
    """Check or update the pins; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--update", action="store_true", help="take the newest allowed versions")
    arguments = parser.parse_args()
    text = PYPROJECT.read_text()
    if BEGIN not in text or END not in text:
        print(f"{PYPROJECT.name} lacks the marks of the pins: {BEGIN.strip()!r}, {END.strip()!r}")
        return 2
    if arguments.update:
        update(text)
    problems = check()
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("run `uv run tools/pins.py --update`, and commit both files", file=sys.stderr)
        return 1
    print(f"{len(requirements())} pins agree with {LOCK.name} and the environment")
    return 0


def update(text: str) -> None:
    """Resolve without pins, then write the pins and the lock."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PYPROJECT.write_text(f"{before}{BEGIN}constraint-dependencies = []\n{END}{after}")
    try:
        uv("lock", "--upgrade")
        LOCK.write_text(export())
        pins = [line for line in requirements() if not BY_GROUP.match(line)]
    except BaseException:
        PYPROJECT.write_text(text)
        raise
    listed = "".join(f"    {quoted(pin)},\n" for pin in pins)
    PYPROJECT.write_text(f"{before}{BEGIN}constraint-dependencies = [\n{listed}]\n{END}{after}")
    uv("lock")


def check() -> list[str]:
    """Return what does not agree: pins, lock, what a fresh resolution gives, what is installed."""
    problems = []
    pinned = set(re.findall(r'^    ["\'](.+==.+)["\'],$', section(), re.MULTILINE))
    locked = {line.replace('"', "'") for line in requirements() if not BY_GROUP.match(line)}
    problems += [f"{LOCK.name} lacks the pin {pin}" for pin in sorted(pinned - locked)]
    problems += [f"{PYPROJECT.name} lacks the pin {pin}" for pin in sorted(locked - pinned)]
    uv("lock")
    resolved = requirements(export())
    if resolved != requirements():
        changed = set(resolved).symmetric_difference(requirements())
        problems.append(f"{LOCK.name} differs from what resolves: {', '.join(sorted(changed))}")
    for line in requirements():
        name, version = re.match(r"([\w.-]+)(?:\[.*\])?==([^ ;]+)", line).groups()  # type: ignore[union-attr]  # an export has no other lines
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # another platform's, another Python's, or of a group that is not installed
        markers = [other for other in requirements() if other.startswith(f"{name}==")]
        if installed != version and len(markers) == 1:
            problems.append(f"{name} {installed} is installed, {LOCK.name} has {version}")
    return problems


def section() -> str:
    """Return the pins' part of the pyproject."""
    return PYPROJECT.read_text().split(BEGIN)[1].split(END)[0]


def requirements(text: str | None = None) -> list[str]:
    """Return lines without their hashes: ``numpy==2.4.6 ; python_full_version < '3.12'``."""
    lines = [line.rstrip(" \\\n") for line in (text or LOCK.read_text()).splitlines()]
    return [line for line in lines if re.match(r"[\w.-]+(\[.*\])?==", line)]


def export() -> str:
    """Return uv's resolution in pip's format, with hashes."""
    groups = [argument for group in GROUPS for argument in ("--group", group)]
    return uv("export", "--no-emit-workspace", "--no-annotate", "--no-header", *groups)


def quoted(pin: str) -> str:
    """Return a TOML string; markers have quotes of their own."""
    return '"' + pin.replace('"', "'") + '"'


def uv(*arguments: str) -> str:
    """Run uv quietly; return what it prints."""
    done = subprocess.run(
        ["uv", "--quiet", *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
