"""A folder of pictures turned into the other domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from . import translate
from .conftest import CONFIG
from .data import to_bytes
from .model import Generators


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.manual_seed(0)
    torch.save({"generators": Generators(CONFIG).state_dict(), "discriminators": {}}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of two sizes, one of them no multiple of 4."""
    folder = tmp_path / "given"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number, (height, width) in enumerate([(16, 20)] * 3 + [(17, 30)] * 2):
        pixels = chance.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def run(model: Path, folder: Path, out: Path, *more: str) -> int:
    given = ["--model", str(model), "--data", str(folder), "--out", str(out)]
    return translate.main([*given, "--direction", "a_to_b", *more])


def test_each_picture_is_translated_in_its_own_size(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, folder, tmp_path / "out", "--batch-size", "2") == 0
    said = capsys.readouterr()
    assert said.out == f"5 pictures in {tmp_path / 'out'}\n"
    assert "5/5" in said.err
    torch.manual_seed(0)
    net = Generators(CONFIG).a_to_b
    for path in folder.iterdir():
        given = np.array(Image.open(path))
        made = np.array(Image.open(tmp_path / "out" / path.name))
        assert made.shape == given.shape
        if given.shape[0] == 16:
            scaled = torch.from_numpy(given).permute(2, 0, 1)[None] / 127.5 - 1
            with torch.no_grad():
                expected = to_bytes(net(scaled))[0].permute(1, 2, 0)
            assert np.abs(made.astype(int) - expected.numpy()).max() <= 1


def test_mistakes_are_one_line_and_nothing_is_written(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def refuses(*sentences: str) -> None:
        said = capsys.readouterr().err.rpartition("\r")[2].strip()
        assert all(sentence in said for sentence in sentences), said
        assert "\n" not in said
        assert not out.exists()

    assert run(tmp_path / "none.pt", folder, out) == 2
    refuses("none.pt: no such file")
    assert run(folder / "0.png", folder, out) == 2
    refuses("0.png: expected a model.pt of this recipe")
    assert run(model, tmp_path / "nowhere", out) == 2
    refuses("nowhere: no such folder")
    assert run(model, folder, out, "--batch-size", "0") == 2
    refuses("--batch-size: expected at least 1, got 0")
    assert run(model, folder, folder) == 2
    refuses("expected a folder, and another than")
    (folder / "9.png").write_bytes((folder / "0.png").read_bytes()[:300])
    assert run(model, folder, out) == 2
    refuses("9.png: damaged, cut short or no picture")
    Image.new("RGB", (12, 40)).save(folder / "9.png")
    assert run(model, folder, out) == 2
    refuses("9.png: 12x40 pixels, expected at least 16")
    (folder / "9.png").unlink()
    Image.new("RGB", (16, 16)).save(folder / "0.jpg")
    assert run(model, folder, out) == 2
    refuses("0.png", "would be 0.png too; rename")
    for path in folder.iterdir():
        path.unlink()
    assert run(model, folder, out) == 2
    refuses("given: no pictures in it")
