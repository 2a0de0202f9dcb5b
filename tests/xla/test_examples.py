"""The example for a TPU, on XLA's CPU device."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from data import make_tiny_mnist

from .conftest import ROOT, SECONDS


def test_the_example_for_a_tpu_learns_on_one_device(tmp_path):
    make_tiny_mnist.write(tmp_path)
    script = str(ROOT / "examples" / "mnist_tpu.py")
    done = subprocess.run(
        [sys.executable, script, "--tiny", "--data", str(tmp_path), "--epochs", "4"],
        cwd=tmp_path,
        env={**os.environ, "PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": "1"},
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    found = re.findall(r"epoch \d on xla:0: test accuracy (\d\.\d+)", done.stdout)
    assert len(found) == 4
    assert float(found[-1]) > 0.9
