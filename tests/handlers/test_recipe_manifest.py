"""The manifest of a run, and what verify says where versions differ from the baseline's."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import torch

from cookfire.handlers import recipe
from cookfire.handlers.recipe import _manifest
from cookfire.handlers.recipe._hardware import deciding, describe_hardware, versions_of
from tests.handlers.test_recipe_verify import Toy


def notes(toy: Toy) -> dict[str, dict[str, object]]:
    return json.loads((toy.logs / "manifest.json").read_text())["train"]


def test_the_manifest_tells_commit_changes_versions_hardware_and_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    toy = Toy(tmp_path)
    (toy.folder / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2", "gone"]\n')
    commit = toy.commit()
    toy.run()
    found = notes(toy)
    assert (found["commit"], found["changes"]) == (commit, [])
    assert set(found["versions"]) == {"python", "torch", "numpy"}
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"data", "world size", "torch", "file toy/train.py"} <= found["fingerprint"].keys()
    assert found["hardware"]["processor"] == found["environment"]["processor"]
    assert found["hardware"]["system"] == platform.platform()
    assert found["hardware"]["cpus"] >= 1
    assert found["hardware"]["memory"] > 2**28
    (toy.folder / "train.py").write_text("LR = 2\n")
    toy.run()
    assert notes(toy)["changes"] == ["recipes/toy/train.py"]


def test_the_hardware_names_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, total_memory = "Abacus 3000", 7

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    found = describe_hardware("a processor")["gpus"]
    assert found == [{"name": "Abacus 3000", "memory": 7}] * 2


def test_the_patch_level_of_python_and_our_own_versions_decide_nothing() -> None:
    found = {"torch": "2.9", "python": "3.11.7", "pillow": "12.0", "cookfire-engine": "0.1"}
    assert deciding(found) == {"python": "3.11", "pillow": "12.0"}
    assert deciding({}) == {}


@pytest.fixture
def accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.chdir(tmp_path)
    toy = Toy(tmp_path)
    toy.commit()
    run_with(toy, monkeypatch, pillow="11.0", timm="1.0")
    assert toy.verify(accept=True) == 0
    return toy


def run_with(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, weights: bytes = b"weights", **versions: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_manifest, "versions_of", lambda _: {**versions_of(toy.folder), **versions})
        toy.run(weights)


def test_the_first_version_that_differs_is_named_and_lets_the_tolerance_decide(
    accepted: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_with(accepted, monkeypatch, b"others", pillow="12.0", timm="2.0")
    report = recipe.check(accepted.folder, "tiny")
    assert report.verdict == "within tolerance"
    assert report.text.endswith("since pillow is 12.0 here and 11.0 in the baseline")
    run_with(accepted, monkeypatch, b"others", pillow="11.0")
    said = recipe.check(accepted.folder, "tiny").text
    assert said.endswith("since timm is unknown here and 1.0 in the baseline")
    # Beside the point where the bits are equal.
    run_with(accepted, monkeypatch, pillow="12.0", timm="1.0")
    assert recipe.check(accepted.folder, "tiny").text == "equal bits"


def test_a_baseline_from_before_versions_were_recorded_stays_valid(
    accepted: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = accepted.folder / "baseline.yaml"
    text = path.read_text()
    block = text[text.index("  versions:") : text.index("  commit:")]
    path.write_text(text.replace(block, ""))
    run_with(accepted, monkeypatch, b"others", pillow="12.0")
    assert recipe.check(accepted.folder, "tiny").verdict == "differs"
    # Another profile's new baseline does not give it any.
    full = accepted.folder / "params.yaml"
    full.write_text("tiny: {data: data, lr: 1}\n")
    accepted.commit()
    run_with(accepted, monkeypatch)
    assert accepted.verify(accept=True) == 0
    assert "  versions:" in path.read_text()


def test_without_a_record_of_the_run_the_versions_here_are_compared(accepted: Toy) -> None:
    (accepted.logs / "manifest.json").unlink()
    (accepted.outputs / "model.pt").write_bytes(b"others")
    assert "pillow is unknown here" in recipe.check(accepted.folder, "tiny").text
