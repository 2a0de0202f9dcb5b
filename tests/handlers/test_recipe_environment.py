"""The environment is set before torch is imported, and a training does not outlive its parent."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cookfire.handlers.recipe import RecipeError, _environment

from .test_recipe_resume import make_toy

SECONDS = 240


def wait_for(path: Path) -> None:
    end = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_training_under_dvc_has_the_profiles_environment_and_ends_with_dvc(
    tmp_path: Path,
) -> None:
    folder = make_toy(tmp_path) / "toy"
    train = f"{sys.executable} -m toy.train --profile pinned"
    # As DVC does: the command in a shell, which here stays, since another command follows. Only
    # Linux tells of the parent's parent.
    command = f"{train}; true" if Path("/proc/self/stat").exists() else f"exec {train}"
    dvc = f"import subprocess; subprocess.run(['sh', '-c', '{command}'])"
    environment = {**os.environ, "TOY": "wait", "DVC_ROOT": str(tmp_path)}
    environment.pop("MKL_CBWR", None)
    resume = folder / ".resume" / "pinned"
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", dvc], cwd=tmp_path, env=environment, stderr=log
        ) as parent,
    ):
        try:
            wait_for(resume / "state_3.pt")
        finally:
            parent.kill()
    training = int((resume / "lock").read_text())
    end = time.monotonic() + SECONDS
    while is_running(training):
        assert time.monotonic() < end, "the training outlived its parent"
        time.sleep(0.05)
    started = json.loads((resume / "started.json").read_text())["environment"]
    assert (started["mkl_cbwr"], started["threads"]) == ("COMPATIBLE", 1)
    assert started["instruction_set"] != "AVX512"
    assert "is gone: ending; run again to resume" in (tmp_path / "log").read_text()


def test_what_cannot_be_set_any_more_is_refused_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_THING", "1")
    _environment.require({"A_THING": 1}, where="p.yaml: tiny.environment", restart=False)
    with pytest.raises(RecipeError, match="^p.yaml: tiny.environment: .* not: A_THING='x y'$"):
        _environment.require({"A_THING": "x y"}, where="p.yaml: tiny.environment", restart=False)
    # A process that was re-executed already does not try again.
    monkeypatch.setenv(_environment.REEXECUTED, str(os.getpid()))
    with pytest.raises(RecipeError, match="A_THING=2"):
        _environment.require({"A_THING": 2}, where="p.yaml: tiny.environment")


def test_an_instruction_set_that_this_machine_lacks_is_said_and_an_unknown_one_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with caplog.at_level(logging.INFO):
        _environment.check_instruction_set({}, where="x")
        _environment.check_instruction_set({"ATEN_CPU_CAPABILITY": "avx2"}, where="x")
        assert not caplog.text
        _environment.check_instruction_set({"ATEN_CPU_CAPABILITY": "avx512"}, where="x")
    assert "x.ATEN_CPU_CAPABILITY: this processor has no AVX512; it runs with AVX2" in caplog.text
    with pytest.raises(RecipeError, match="x.ATEN_CPU_CAPABILITY: expected one of default, avx2"):
        _environment.check_instruction_set({"ATEN_CPU_CAPABILITY": "avx3"}, where="x")


def test_the_description_tells_what_a_run_with_other_variables_would_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    found = _environment.describe(
        world_size=2,
        variables={"ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "3", "MKL_CBWR": "AVX2"},
    )
    assert (found["instruction_set"], found["threads"], found["world_size"]) == ("AVX2", 3, 2)
    assert (found["mkl_cbwr"], found["onednn_isa"]) == ("AVX2", "unset")
    assert found["torch"] == torch.__version__
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SVE256")
    found = _environment.describe(world_size=1, variables={"ATEN_CPU_CAPABILITY": "avx2"})
    assert found["instruction_set"] == "SVE256"


def test_a_hidden_accelerator_is_not_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _environment.describe_default_device({"CUDA_VISIBLE_DEVICES": ""}) == "cpu"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert _environment.describe_default_device({}) == "mps"
