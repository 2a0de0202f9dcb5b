"""ClearML itself, offline; what the adapter calls is in test_trackers.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("clearml", reason="clearml is not installed")


def test_a_training_is_tracked_offline(tmp_path):
    environment = {
        "CLEARML_CACHE_DIR": str(tmp_path / "cache"),
        "CLEARML__sdk__development__worker__report_period_sec": "1",  # a close waits for several
    }
    result = subprocess.run(
        [sys.executable, "-m", "tests.handlers.live_clearml", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    (folder,) = (Path(line) for line in result.stdout.splitlines() if line.startswith("/"))
    reports = [
        report
        for line in (folder / "metrics.jsonl").read_text().splitlines()
        for report in json.loads(line or "[]")
    ]
    numbers = [
        (report["metric"], report["variant"], report["value"], report["iter"])
        for report in reports
        if report["type"] == "training_stats_scalar"
    ]
    assert sorted(numbers) == [
        ("training", "loss", 1.0, 1),
        ("training", "loss", 2.0, 2),
        ("weights_norm", "weight", 2.0, 1),
    ]
    kinds = {report["metric"]: report["iter"] for report in reports if "value" not in report}
    assert kinds == {"weights": 4, "image": 4}
    task = json.loads((folder / "task.json").read_text())
    values = {name: one["value"] for name, one in task["hyperparams"]["General"].items()}
    assert values == {"lr": "0.5", "model.name": "linear"}
    assert [one["key"] for one in task["execution"]["artifacts"]] == ["model.pt"]
    assert (tmp_path / "checkpoints" / "model.pt").exists()
