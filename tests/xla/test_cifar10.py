"""The recipe cifar10 runs on XLA by one line of its profile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from data import make_tiny_cifar10

from .conftest import ROOT, SECONDS

RECIPE = ROOT / "recipes" / "cifar10"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the recipe with ``backend: xla``, without MLflow, of a small net; and images."""
    copy = tmp_path / "my_project"
    copy.mkdir()
    for path in RECIPE.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    tiny = yaml.safe_load((RECIPE / "params.yaml").read_text())["tiny"]
    tiny |= {
        "backend": "xla",
        "precision": "bfloat16",
        "mlflow": False,
        "widths": [8, 16, 16],
        "views": "flip",
    }
    (copy / "params.yaml").write_text(yaml.safe_dump({"tiny": tiny}))
    (tmp_path / "images").mkdir()
    make_tiny_cifar10.write(tmp_path / "images")
    return tmp_path


def test_tiny_cifar10_trains_in_bfloat16_and_evaluates_on_two_devices(project):
    profile = yaml.safe_load((project / "my_project" / "params.yaml").read_text())["tiny"]
    # Set beforehand, so that no process has to be started anew with it.
    variables = {name: str(value) for name, value in profile["environment"].items()}
    variables |= {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": "2"}
    out = project / "out"
    for entry in ("train", "evaluate"):
        command = [sys.executable, "-m", f"my_project.{entry}", "--profile", "tiny"]
        done = subprocess.run(
            [*command, "--data", str(project / "images"), "--out", str(out)],
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
    assert metrics["accuracy"] > 0.7
    weights = torch.load(out / "model.pt", weights_only=True)
    assert {value.device.type for value in weights.values()} == {"cpu"}
