"""W&B itself, offline; what the adapter calls is in test_trackers.py."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wandb", reason="wandb is not installed")


def records(path):
    """Read W&B's file: a LevelDB log (blocks of 32 KiB, parts with crc, length, kind)."""
    from wandb.proto import wandb_internal_pb2

    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def rows(path):
    """Return the rows of a run's history, without what W&B adds."""
    found = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            found.append({k: v for k, v in items.items() if not k.startswith("_")})
    return found


def test_a_training_is_tracked_offline_continued_and_survives_wandb(tmp_path):
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "tests.handlers.live_wandb", str(tmp_path)],
        cwd=root,
        env=os.environ | {"WANDB_ERROR_REPORTING": "false"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    continued, killed, outage, lost = result.stdout.splitlines()[-4:]
    run_id = continued.split()[-1]
    assert continued == f"continued True {run_id}"
    assert killed == "after the kill 6 2"
    assert "WandBLogger could not write metrics: ConnectionResetError" in outage
    assert lost.endswith("records are lost")

    first, second = sorted(tmp_path.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))
    assert rows(second) == [{"val/acc": 0.75, "global_step": 3}]
    numbers, histogram, image = [], None, None
    for row in rows(first):
        if "grads/bias._type" in row:
            histogram = row
        elif "image._type" in row:
            image = row
        else:
            numbers.append(row)
    assert numbers == [
        {"lr/group_0": 0.5, "global_step": 2},
        {"val/acc": 0.25, "global_step": 1},
        {"lr/group_0": 0.5, "global_step": 4},
        {"val/acc": 0.5, "global_step": 2},
    ]
    assert sum(histogram["grads/bias.values"]) == 1
    assert (image["image.width"], image["global_step"]) == (2, 4)
    config, kinds, metrics = {}, set(), []
    for record in records(first):
        kind = record.WhichOneof("record_type")
        kinds.add(kind)
        if kind == "config":
            config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "metric":
            metrics.append((record.metric.glob_name, record.metric.step_metric))
    assert config == {"lr": 0.5, "model.name": "linear"}
    assert metrics == [("*", "global_step")]
    assert "artifact" in str(kinds)
