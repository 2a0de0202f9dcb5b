"""Items per second, and what the GPUs say of themselves."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import time
from types import SimpleNamespace

import pytest
import torch

from cookfire.engine import Engine, Events
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import Frequency, GpuInfo


@pytest.fixture
def clock(monkeypatch):
    """A clock that runs only when it is told to."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_frequency_is_items_by_seconds_since_the_epoch_started(clock):
    def step(engine, batch):
        clock[0] += 2
        return {"items": batch}

    seen = []
    engine = Engine(step)
    frequency = Frequency(output_transform=lambda output: output["items"])
    frequency.attach(engine, "items/s")
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.metrics["items/s"])
    )
    engine.run([10, torch.tensor(30), 2], max_epochs=2)
    assert seen == [5.0, 10.0, 7.0] * 2
    assert engine.state.metrics["items/s"] == 7.0


def test_frequency_is_shown_at_its_event_and_at_the_end_of_the_epoch(clock):
    def step(engine, batch):
        clock[0] += 1
        return batch

    seen = []
    engine = Engine(step)
    frequency = Frequency()
    frequency.attach(engine, "rate", event_name=Events.ITERATION_COMPLETED(every=2))
    assert frequency.is_attached(engine)
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.metrics.get("rate"))
    )
    engine.run([1, 3, 5])
    assert seen == [None, 2.0, 2.0]
    assert engine.state.metrics["rate"] == 3.0
    frequency.detach(engine)
    assert not frequency.is_attached(engine)
    engine.state.metrics.clear()
    engine.run([1, 3, 5], max_epochs=2)
    assert engine.state.metrics == {}


def test_frequency_by_hand_and_saved(clock):
    frequency = Frequency()
    with pytest.raises(NotComputableError):
        frequency.compute()
    clock[0] += 4
    frequency.update(2)
    assert frequency.compute() == 0.5  # not rounded to 0
    clock[0] += 6
    frequency.update(8)
    assert frequency.compute() == 1.0
    other = Frequency()
    other.load_state_dict(frequency.state_dict())
    clock[0] += 10
    other.update(10)
    assert other.compute() == 1.0
    assert pickle.loads(pickle.dumps(frequency)).compute() == 1.0


class NoUtilization(Exception):
    pass


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, the second of which does not tell its utilisation."""
    find, load = importlib.util.find_spec, importlib.import_module
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: "there" if name == "pynvml" else find(name)
    )
    pynvml = SimpleNamespace(NVMLError=NoUtilization)
    monkeypatch.setattr(
        importlib, "import_module", lambda name: pynvml if name == "pynvml" else load(name)
    )

    def utilization(index):
        if index == 1:
            raise NoUtilization
        return 60

    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "device_memory_used": lambda index: (index + 1) * 2**30,
        "get_device_properties": lambda index: SimpleNamespace(total_memory=2**32),
        "utilization": utilization,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def test_gpus_tell_memory_and_utilisation(gpus):
    engine = Engine(lambda engine, batch: batch)
    info = GpuInfo()
    info.attach(engine)
    engine.run([0])
    assert engine.state.metrics == {"gpu:0 mem(%)": 25, "gpu:0 util(%)": 60, "gpu:1 mem(%)": 50}
    assert info.compute() == [
        {"fb_memory_usage": {"used": 1024, "total": 4096}, "utilization": {"gpu_util": 60}},
        {"fb_memory_usage": {"used": 2048, "total": 4096}},
    ]
    info.detach(engine)
    engine.state.metrics.clear()
    info.attach(engine, name="device", event_name=Events.EPOCH_COMPLETED)
    engine.run([0], max_epochs=2)
    assert set(engine.state.metrics) == {"device:0 mem(%)", "device:0 util(%)", "device:1 mem(%)"}


def test_gpu_info_says_what_it_lacks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="GpuInfo needs a CUDA GPU, and there is none: leave it"):
        GpuInfo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="GpuInfo needs pynvml: pip install nvidia-ml-py"):
        GpuInfo()
