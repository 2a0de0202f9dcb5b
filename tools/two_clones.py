"""Run the smoke pipelines in two fresh clones that have nothing in common, and compare the locks.

    uv run tools/two_clones.py
    uv run tools/two_clones.py mnist

The clones of the last commit lie at different paths, and each has its own environment of packages,
home, user's name ($USER: both run as who calls this), time zone, language and hash seed. One
language is Turkish, with a decimal comma and letters of its own, where localedef can make it. Every
dvc.lock must have the same bytes in both. Exit code: 0, or 1 where that was not so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ("mnist", "cifar10", "cyclegan", "voc_segmentation", "imagenet")
PEOPLE: dict[str, dict[str, str]] = {
    "one": {
        "USER": "ada", "LOGNAME": "ada", "TZ": "Pacific/Kiritimati", "LANG": "C",
        "LC_ALL": "C", "PYTHONHASHSEED": "1",
    },
    "another place/with a much longer path": {
        "USER": "bob", "LOGNAME": "bob", "TZ": "America/St_Johns",
        "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "4294967295",
    },
}  # fmt: skip
INHERITED = ("VIRTUAL_ENV", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "DVC_ROOT")


def make_turkish(folder: Path) -> dict[str, str]:
    """Return variables that choose Turkish, made in the folder; C.UTF-8, and say so, else."""
    made = folder / "tr_TR.UTF-8"
    folder.mkdir()
    if shutil.which("localedef"):
        command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(made)]
        subprocess.run(command, capture_output=True, check=False)
    if made.is_dir():
        return {"LANG": made.name, "LC_ALL": made.name, "LOCPATH": str(folder)}
    print("no localedef here makes Turkish: C.UTF-8 in its place", flush=True)
    return {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def run(clone: Path, commit: str, person: dict[str, str], recipes: list[str]) -> dict[str, bytes]:
    """Run the pipelines in a new clone; return its locks."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    subprocess.run(["git", "checkout", "--quiet", "--detach", commit], cwd=clone, check=True)
    home = clone.parent / f"home of {person['USER']}"
    home.mkdir()
    cache = subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True)
    environment = {name: value for name, value in os.environ.items() if name not in INHERITED}
    environment |= person | {"HOME": str(home), "UV_CACHE_DIR": cache.stdout.strip(), "CI": "true"}
    if person["LANG"].startswith("tr"):
        environment |= make_turkish(home / "locale")
    for recipe in recipes:
        print(f"{person['USER']}: smoke/{recipe}", flush=True)
        command = ["uv", "run", "--quiet", "dvc", "repro", "--no-run-cache", f"smoke/{recipe}"]
        done = subprocess.run(
            command, cwd=clone, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            print(done.stdout[-2000:])
            raise SystemExit(1)
    tracked = subprocess.run(
        ["git", "ls-files", "*dvc.lock"], cwd=clone, check=True, capture_output=True, text=True
    )
    return {name: (clone / name).read_bytes() for name in tracked.stdout.split()}


def main() -> int:
    """Parse the command line; return 0 where all locks are the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="(all)")
    recipes = parser.parse_args().recipes or list(RECIPES)
    if odd := sorted(set(recipes) - set(RECIPES)):
        parser.error(f"{odd[0]}: no such recipe; there are {', '.join(RECIPES)}")
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(head, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory(prefix="two-clones-") as scratch:
        locks = [
            run(Path(scratch) / place, commit.strip(), PEOPLE[place], recipes) for place in PEOPLE
        ]
    different = [name for name in locks[0] if locks[0][name] != locks[1].get(name)]
    committed = [name for name in locks[0] if (ROOT / name).read_bytes() != locks[0][name]]
    for name in different:
        print(f"{name}: DIFFERS between the clones")
    for name in committed:
        print(f"{name}: not the committed one: stale, or another machine's bits")
    print(f"{len(locks[0])} locks of {', '.join(recipes)}: {len(different)} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
