"""A small git and DVC project around a recipe whose entry points take a moment, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PIPELINE = """
stages:
  train:
    foreach: &profiles {tiny: {}}
    do:
      wdir: ..
      cmd: python toy/train.py
      deps: [data/numbers, toy/train.py]
      outs:
        - toy/runs/${key}/model.pt
        - toy/runs/${key}/curves.tsv: {cache: false}
  evaluate:
    foreach: *profiles
    do:
      wdir: ..
      cmd: python toy/evaluate.py
      deps: ["toy/runs/${key}/model.pt"]
      outs:
        - toy/runs/${key}/metrics.json: {cache: false}
"""
DATA = """
stages:
  numbers:
    cmd: echo 1 > numbers
    outs: [numbers]
"""
TRAIN = """
import os, pathlib, time
runs = pathlib.Path("toy/runs/tiny")
runs.mkdir(parents=True, exist_ok=True)
trouble = os.environ.get("TROUBLE", "")
(runs / "curves.tsv").write_text("epoch\\n")
if trouble == "wait":
    pathlib.Path("waiting").write_text(str(os.getpid()))
    for _ in range(600):
        time.sleep(0.1)
        os.kill(os.getsid(0), 0)  # an error, and the end, once who began it all is gone
(runs / "model.pt").write_text(pathlib.Path("data/numbers").read_text())
if trouble == "other curves":
    (runs / "curves.tsv").write_text("step\\n")
with open("ran", "a") as file: file.write("train ")
"""
EVALUATE = """
import os, pathlib
if os.environ.get("TROUBLE") == "no evaluation": raise SystemExit("no evaluation, as wished")
number = pathlib.Path("toy/runs/tiny/model.pt").read_text().strip()
pathlib.Path("toy/runs/tiny/metrics.json").write_text('{"accuracy": %s}' % number)
with open("ran", "a") as file: file.write("evaluate ")
"""


class DvcProject:
    """Holds one recipe, ``toy``, with one profile, ``tiny``, which has run once."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.outs = root, root / "toy", root / "toy" / "runs" / "tiny"
        for name, text in {
            "toy/dvc.yaml": PIPELINE,
            "data/dvc.yaml": DATA,
            "toy/train.py": TRAIN,
            "toy/evaluate.py": EVALUATE,
            "toy/params.yaml": "tiny: {data: ../data/numbers}\nother: {data: ../data/numbers}\n",
            ".gitignore": ".resume/\nlogs/\nran\nwaiting\n",
            ".dvcignore": ".resume/\nlogs/\n",
        }.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.outs).mkdir(parents=True)
        self.call("git", "init", "-q")
        self.dvc("init", "-q")
        self.dvc("config", "core.analytics", "false")
        self.dvc("config", "core.autostage", "true")
        self.call("git", "config", "user.email", "a@example.org")
        self.call("git", "config", "user.name", "A")
        self.dvc("repro", "toy/dvc.yaml")
        self.commit()

    @property
    def variables(self) -> dict[str, str]:
        """The environment of commands: this Python first, and no DVC around them."""
        found = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return {name: value for name, value in found.items() if name != "DVC_ROOT"}

    def call(self, *command: str, **variables: str) -> str:
        """Return what a command that succeeds says."""
        done = subprocess.run(
            command, cwd=self.root, env={**self.variables, **variables}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def dvc(self, *arguments: str) -> str:
        """Return what a command of DVC says."""
        return self.call(sys.executable, "-m", "dvc", *arguments)

    def commit(self) -> str:
        """Commit everything; return the commit."""
        self.call("git", "add", "-A")
        self.call("git", "commit", "-q", "-m", "x")
        return self.call("git", "rev-parse", "HEAD")

    def files(self) -> dict[str, bytes]:
        """Return the outs, the lock and the manifest, by name."""
        paths = [*self.outs.iterdir(), self.folder / "dvc.lock"]
        logs = self.folder / "logs" / "tiny"
        paths += logs.iterdir() if logs.exists() else []
        return {path.name: path.read_bytes() for path in paths}

    def ran(self) -> str:
        """Return which entry points have run since this was asked last."""
        path = self.root / "ran"
        said = path.read_text().strip() if path.exists() else ""
        path.unlink(missing_ok=True)
        return said
