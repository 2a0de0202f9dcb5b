"""Kill the commands of the recipes' tiny cells at random moments, and see that nothing is lost.

    uv run tools/kill_campaign.py --kills 3
    uv run tools/kill_campaign.py mnist cifar10 --kills 20 --seed 7

Works in a clone of the last commit with a cache of its own. The stage of the data, the training,
the evaluation, verify and `verify --rerun` are killed in turn with SIGKILL, each with all processes
that it has started, at a random moment of the time that it took undisturbed; every second training
only once it has kept something to go on with. Then the same command is given again, with DVC's run
cache off, which would restore an old result. It must end well, without any cleaning up in between,
with every out byte for byte as the committed dvc.lock says, and with nothing left in .resume/; a
training with a resume point must go on from it; and no process may be left. Exit code: 0, or 1
where that was not so.

One thing needs cleaning up, and is counted: DVC writes its locks in place, so that a kill within
that write leaves one cut short. git has dvc.lock as it was; .dvc/tmp/rwlock is to be removed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DATA = {
    "mnist": "tiny_mnist", "cifar10": "tiny_cifar10", "cyclegan": "tiny_horse2zebra",
    "voc_segmentation": "tiny_voc", "imagenet": "tiny_imagenet",
}  # fmt: skip
ORDER = ("train", "evaluate", "rerun", "data", "train", "verify")
TRIES = 5
SECONDS = 900  # that a command may take
GRACE = 5.0  # seconds that a killed process may take to be gone


@dataclass
class Count:
    """What became of the kills of one command."""

    kills: int = 0
    resumed: int = 0
    finished: int = 0
    """Commands that ended before they were to be killed; an earlier moment was tried then."""

    cut: int = 0
    """Kills within DVC's writing of a lock of its own."""

    wrong: list[str] = field(default_factory=list)


class Cell:
    """A recipe's profile ``tiny`` in a clone."""

    def __init__(self, clone: Path, name: str) -> None:
        self.clone, self.name = clone, name
        self.folder = clone / "recipes" / name
        self.resume = self.folder / ".resume" / "tiny"
        self.resumable = 0.0
        """Seconds of the last training during which there was a resume point."""
        self.locks = {"data": clone / "data/dvc.lock", "recipe": self.folder / "dvc.lock"}
        stages = {
            key: yaml.safe_load(path.read_text())["stages"] for key, path in self.locks.items()
        }
        self.outs = {
            "data": {out["path"]: out["md5"] for out in stages["data"][DATA[name]]["outs"]},
            **{
                stage: {
                    out["path"]: out["md5"] for out in stages["recipe"][f"{stage}@tiny"]["outs"]
                }
                for stage in ("train", "evaluate")
            },
            "verify": {},
        }
        self.outs["rerun"] = self.outs["train"] | self.outs["evaluate"]

    def command(self, stage: str) -> list[str]:
        """Return the command of ``data``, ``train``, ``evaluate``, ``verify`` or ``rerun``."""
        if stage in ("verify", "rerun"):
            verify = [sys.executable, "-m", "recipes", "verify", self.name, "--profile", "tiny"]
            return [*verify, "--rerun"] if stage == "rerun" else verify
        place = f"recipes/{self.name}/dvc.yaml:{stage}@tiny"
        target = f"data/dvc.yaml:{DATA[self.name]}" if stage == "data" else place
        return ["dvc", "repro", "--single-item", "--force", "--no-run-cache", target]

    def start(self, stage: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own."""
        with log.open("wb") as file:
            return subprocess.Popen(
                self.command(stage), cwd=self.clone, stdout=file, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
                # DVC's own: no daemon that asks for a newer version.
                env=os.environ | {"CI": "true"},
            )  # fmt: skip

    def run(self, stage: str, log: Path) -> tuple[float, str]:
        """Run a command to its end; return the seconds it took, and what went wrong."""
        began = time.monotonic()
        process = self.start(stage, log)
        kept: list[float] = []  # when there was a resume point
        while (code := process.poll()) is None:
            if time.monotonic() > began + SECONDS:
                kill(self.clone, process)
                return SECONDS, f"did not end in {SECONDS} s"
            if self.kept():
                kept.append(time.monotonic())
            time.sleep(0.02)
        if kept:
            self.resumable = kept[-1] - kept[0]
        said = log.read_text(errors="replace")
        if code:
            return 0.0, f"exit code {code}: {' '.join(said.split())[-400:]}"
        for path, expected in self.outs[stage].items():
            base = self.clone if stage == "data" else self.folder
            found = md5_of(find(self.clone, base, path))
            if found != expected:
                return 0.0, f"{path}: md5 {found}, dvc.lock has {expected}"
        return time.monotonic() - began, ""

    def kept(self) -> int:
        """Return the last step that an unfinished training could go on from, 0 if none."""
        names = [path.stem.partition("_")[2] for path in self.resume.glob("state_*.pt")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def mend(self) -> bool:
        """Do by git what a user has to, if a kill has cut a lock of DVC's; tell whether it had."""
        cut = [path for path in self.locks.values() if not is_whole(path)]
        for path in cut:
            subprocess.run(
                ["git", "checkout", "--quiet", "HEAD", "--", str(path)], cwd=self.clone, check=True
            )
        held = self.clone / ".dvc" / "tmp" / "rwlock"
        if held.exists() and not is_whole(held):
            cut.append(held)
            held.unlink()
        return bool(cut)


def is_whole(lock: Path) -> bool:
    """Tell whether a lock of DVC's is a mapping, as it must be (JSON is YAML)."""
    try:
        return isinstance(yaml.safe_load(lock.read_text()), dict)
    except (OSError, yaml.YAMLError):
        return False


def find(clone: Path, base: Path, path: str) -> Path:
    """Return where an out is: DVC writes its path from the stage's working folder, the clone's."""
    return next((at / path for at in (clone, base) if (at / path).exists()), clone / path)


def md5_of(path: Path) -> str:
    """Return what DVC writes into its lock: a file's md5, or that of a list of a folder's files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = sorted(at for at in path.rglob("*") if at.is_file())
    listed = [{"md5": md5_of(at), "relpath": at.relative_to(path).as_posix()} for at in files]
    listed.sort(key=lambda entry: tuple(entry["relpath"].split("/")))
    text = json.dumps(listed, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def processes_in(folder: Path, session: int) -> list[int]:
    """Return the processes of a session, and those that work in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            inside = (entry / "cwd").readlink().is_relative_to(folder)
        except OSError:  # it is gone
            continue
        if state != "Z" and (int(of) == session or inside):
            found.append(int(entry.name))
    return found


def kill(clone: Path, process: subprocess.Popen[bytes]) -> list[int]:
    """Kill a command and all that it has started; return what is left after some seconds."""
    deadline = time.monotonic() + GRACE
    while left := processes_in(clone, process.pid):
        if time.monotonic() > deadline:
            break
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.05)
    process.wait()
    return left


def attack(cell: Cell, stage: str, seconds: float, chance: random.Random, count: Count) -> None:
    """Kill a command once, give it again, and note what came of it."""
    log = cell.clone.parent / f"{cell.name}-{stage}.log"
    wants_state = stage == "train" and count.kills % 2 == 0
    share = chance.random()
    for _ in range(TRIES):
        process, began = cell.start(stage, log), time.monotonic()
        while wants_state and process.poll() is None and not cell.kept():
            time.sleep(0.02)
        try:
            process.wait(share * (cell.resumable if wants_state else seconds))
        except subprocess.TimeoutExpired:
            break
        count.finished += 1
        share /= 2
    else:
        kept = "; none kept a resume point" if wants_state else ""
        count.wrong.append(f"{cell.name} {stage}: ended {TRIES} times before it was killed{kept}")
        return
    at = time.monotonic() - began
    left = kill(cell.clone, process)
    count.kills += 1
    step = cell.kept()
    where = f"{cell.name} {stage}, killed after {at:.1f} of {seconds:.1f} s"
    if left:
        count.wrong.append(f"{where}: processes {left} are left")
    count.cut += cell.mend()
    _, wrong = cell.run(stage, log)
    if wrong:
        count.wrong.append(f"{where}: {wrong}")
    if stage in ("train", "rerun") and step and not wrong:
        said = re.search(r"resuming at iteration (\d+)|the training was complete", log.read_text())
        if said is None or (said[1] is not None and int(said[1]) < 1):
            count.wrong.append(f"{where}: step {step} was kept, but it began again")
        count.resumed += said is not None
    if cell.resume.parent.exists() and not wrong:
        names = sorted(path.name for path in cell.resume.parent.iterdir())
        count.wrong.append(f"{where}: .resume/ is left, with {names}")
    if left := processes_in(cell.clone, process.pid):
        count.wrong.append(f"{where}: after the second run, processes {left} are left")


def campaign(clone: Path, name: str, kills: int, chance: random.Random) -> dict[str, Count]:
    """Attack one recipe's commands in turn."""
    cell, seconds = Cell(clone, name), {}
    counts = {stage: Count() for stage in ("data", "train", "evaluate", "verify", "rerun")}
    for stage in counts:
        seconds[stage], wrong = cell.run(stage, clone.parent / f"{name}-{stage}.log")
        if wrong:
            counts[stage].wrong.append(f"{name} {stage}, undisturbed: {wrong}")
            return counts
    # Each recipe begins elsewhere: a few kills of each reach every command, and a training in each.
    begin = list(DATA).index(name)
    for stage in itertools.islice(itertools.cycle(ORDER), begin, begin + kills):
        attack(cell, stage, seconds[stage], chance, counts[stage])
    return counts


def main() -> int:
    """Parse the command line; return 0 where every killed command ended as if it had not been."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(DATA)} (all)")
    parser.add_argument("--kills", type=int, default=3, metavar="N", help="of each recipe (3)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the moments (0)")
    options = parser.parse_args()
    if odd := [name for name in options.recipes if name not in DATA]:
        parser.error(f"{odd[0]}: no such recipe; there are {', '.join(DATA)}")
    wrong: list[str] = []
    total = resumed = 0
    heads = f"{'kills':>6}{'resumed':>9}{'had ended':>11}{'lock cut':>10}{'wrong':>7}"
    print(f"{'recipe':<18}{'command':<10}{heads}")
    with tempfile.TemporaryDirectory(prefix="kill-campaign-") as scratch:
        clone = Path(scratch).resolve() / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for name in options.recipes or DATA:
            chance = random.Random(f"{options.seed} {name}")
            for stage, count in campaign(clone, name, options.kills, chance).items():
                numbers = (
                    count.kills, count.resumed, count.finished, count.cut, len(count.wrong),
                )  # fmt: skip
                shown = "".join(
                    f"{number:>{width}}"
                    for number, width in zip(numbers, (6, 9, 11, 10, 7), strict=True)
                )
                print(f"{name:<18}{stage:<10}{shown}", flush=True)
                wrong += count.wrong
                total, resumed = total + count.kills, resumed + count.resumed
    for line in wrong:
        print(line)
    verdict = f"{len(wrong)} of them WRONG" if wrong else "every out as in dvc.lock, nothing left"
    print(f"{total} kills with seed {options.seed}: {resumed} trainings resumed, {verdict}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
