"""The recipe mnist runs on XLA by one line of its profile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from data import make_tiny_mnist

from .conftest import ROOT, SECONDS

RECIPE = ROOT / "recipes" / "mnist"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the recipe whose tiny profile has ``backend: xla``, and the digits."""
    copy = tmp_path / "my_project"
    copy.mkdir()
    for path in RECIPE.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    # Without MLflow, which takes as long as all the rest.
    on_xla = "tiny:\n  backend: xla\n  mlflow: false\n"
    text = (RECIPE / "params.yaml").read_text().replace("tiny:\n", on_xla)
    (copy / "params.yaml").write_text(text)
    make_tiny_mnist.write(tmp_path / "digits")
    return tmp_path


def test_tiny_mnist_trains_and_evaluates_on_two_devices(project):
    profile = yaml.safe_load((project / "my_project" / "params.yaml").read_text())["tiny"]
    assert profile["backend"] == "xla"
    # Set beforehand, so that no process has to be started anew with it.
    variables = {name: str(value) for name, value in profile["environment"].items()}
    variables |= {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": "2"}
    out = project / "out"
    for entry in ("train", "evaluate"):
        command = [sys.executable, "-m", f"my_project.{entry}", "--profile", "tiny"]
        done = subprocess.run(
            [*command, "--data", str(project / "digits"), "--out", str(out)],
            cwd=project,
            env={**os.environ, **variables},
            timeout=SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-6000:]
        assert "xla: CPU x2, torch_xla 2.9.0" in done.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9
    weights = torch.load(out / "model.pt", weights_only=True)
    assert {value.device.type for value in weights.values()} == {"cpu"}
