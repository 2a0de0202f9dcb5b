"""The page of precisions, with a CPU in the GPU's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cookfire.handlers import recipe

from . import amp
from .config import Config
from .conftest import CONFIG


def test_an_epoch_is_timed_without_its_evaluation(images: Path) -> None:
    config = replace(CONFIG, epochs=2.5)
    found = amp.measure(config, images)
    assert found.accuracy > 0.3
    assert found.memory == 0
    assert 0 < found.seconds < 60
    with pytest.raises(recipe.RecipeError, match="epochs: expected at least 2, got 1"):
        amp.measure(replace(CONFIG, epochs=1), images)


def test_the_page_compares_each_way_with_the_first(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def measure(config: Config, data: Path) -> amp.Measured:
        asked.append((config.precision, config.compile, config.epochs, data))
        return amp.Measured(seconds=2.0 / len(asked), memory=3 * 2**29, accuracy=0.94)

    monkeypatch.setattr(amp, "measure", measure)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    out = tmp_path / "amp.md"
    assert amp.main(["--data", str(images), "--out", str(out), "--epochs", "3"]) == 0
    assert asked[0] == ("float32", False, 3, images)
    assert asked[-1] == ("bfloat16", True, 3, images)
    lines = out.read_text().splitlines()
    assert lines[0].startswith("# full on Some GPU, torch ")
    assert lines[4] == "| float32 | 2.000 | 1.00x | 1.50 | 0.9400 |"
    assert lines[5] == "| float16 | 1.000 | 2.00x | 1.50 | 0.9400 |"
    assert len(lines) == 4 + len(amp.WAYS)


def test_without_a_gpu_it_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "amp.md"
    assert amp.main(["--data", "x", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("no GPU here: ")
    assert not out.exists()
