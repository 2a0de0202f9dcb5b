"""What the pages show of a TPU, on XLA's CPU device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from data import make_tiny_mnist

from .conftest import ROOT, SECONDS


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": "1"},
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


def test_the_pages_code_trains_on_the_device(tmp_path):
    page = (ROOT / "docs" / "xla.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "example.py").write_text(code)
    assert run(tmp_path, "example.py").endswith("8 batches on xla:0\n")


def test_the_example_for_a_tpu_learns_on_one_device(tmp_path):
    make_tiny_mnist.write(tmp_path)
    script = str(ROOT / "examples" / "mnist_tpu.py")
    printed = run(tmp_path, script, "--tiny", "--data", str(tmp_path), "--epochs", "4")
    found = re.findall(r"epoch \d on xla:0: test accuracy (\d\.\d+)", printed)
    assert len(found) == 4
    assert float(found[-1]) > 0.9
