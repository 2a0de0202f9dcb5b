"""The scripts of examples/ learn in their tiny form, and are what their page says."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data import make_tiny_fashion_mnist, make_tiny_imdb, make_tiny_mnist

FOLDER = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
LONGEST = 145  # lines: a page, with its docstring


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tiny data sets in one folder, each where torchvision would have it."""
    folder = tmp_path_factory.mktemp("data")
    make_tiny_imdb.write(folder)  # first, since its list has all files that are there
    for maker in (make_tiny_fashion_mnist, make_tiny_mnist):
        maker.write(folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def main_of(name: str) -> Callable[[list[str]], Any]:
    return importlib.import_module(f"examples.{name}").main


def test_reviews_are_told_apart_by_pairs_of_words(data, capsys):
    results = main_of("text_classification")(["--tiny", "--data", str(data)])
    assert results["accuracy"] > 0.93
    printed = capsys.readouterr()
    assert "epoch 1: accuracy" in printed.out
    assert f"test: accuracy {results['accuracy']:.4f}" in printed.out
    assert "Epoch [1/10]" in printed.err


def test_clothes_are_named(data, capsys):
    results = main_of("fashion_mnist")(["--tiny", "--data", str(data)])
    assert results.keys() == {"accuracy", "loss"}
    assert results["accuracy"] > 0.95
    assert "epoch 3: test accuracy" in capsys.readouterr().out


def test_clothes_are_drawn_better_than_by_the_mean_of_all(data, tmp_path):
    metrics = main_of("vae")(
        ["--tiny", "--data", str(data), "--epochs", "8", "--out", str(tmp_path / "vae")]
    )
    parts = metrics["rebuilding"] + metrics["divergence"]
    assert metrics["loss"] == pytest.approx(parts, rel=1e-5)
    images = importlib.import_module("torchvision.datasets").FashionMNIST(data).data / 255
    mean = images.mean(0).expand_as(images)
    of_the_mean = torch.nn.functional.binary_cross_entropy(mean, images, reduction="sum")
    assert metrics["loss"] < 0.75 * of_the_mean / len(images)
    files = {path.name for path in (tmp_path / "vae").iterdir()}
    assert files == {"rebuilt.png", "new.png", "curves.tsv"}
    assert len((tmp_path / "vae" / "curves.tsv").read_text().splitlines()) == 9


def test_the_learning_rate_that_was_found_is_better_than_the_guess(data, tmp_path):
    picture = tmp_path / "found.png"
    results = main_of("lr_finder")(["--tiny", "--data", str(data), "--out", str(picture)])
    assert 0.003 < results["lr"] < 1
    assert results["found"] > results["guessed"] + 0.3
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["reinforce", "actor_critic"])
def test_a_pole_is_balanced_longer_and_longer(name, capsys):
    balanced = main_of(name)(["--tiny"])
    assert len(balanced) == 120
    beginning, end = sum(balanced[:20]) / 20, sum(balanced[-30:]) / 30
    assert end > 2.5 * beginning
    printed = capsys.readouterr()
    assert "120 episodes" in printed.out
    assert "steps=" in printed.err
    if name == "actor_critic":  # which counts how episodes end by events of its own
        fallen = sum(steps < 200 for steps in balanced)
        assert f"fallen {fallen} times, balanced {120 - fallen} times" in printed.out


def test_precisions_are_compared_and_what_can_not_be_is_said(data, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    results = main_of("amp")(["--tiny", "--data", str(data)])
    assert list(results) == ["float32", "bfloat16"]
    for result in results.values():
        assert result.accuracy > 0.9
        assert result.images_per_second > 0
        assert result.peak_mb is None
    printed = capsys.readouterr().out
    assert "not compared: float16: there is no GPU" in printed
    assert len(printed.split("precision")[1].splitlines()) == 4


def test_the_script_for_a_tpu_learns_on_the_cpu_too(data):
    results = main_of("mnist_tpu")(["--tiny", "--data", str(data), "--backend", "gloo"])
    assert results["accuracy"] > 0.9


@pytest.mark.parametrize(
    "name", ["text_classification", "fashion_mnist", "vae", "lr_finder", "amp"]
)
def test_missing_data_are_answered_by_the_command_that_makes_them(name, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main_of(name)(["--tiny", "--data", str(tmp_path)])
    assert "dvc repro data/dvc.yaml:tiny_" in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_a_page_that_says_how_it_is_run(script):
    text = script.read_text()
    assert len(text.splitlines()) <= LONGEST
    assert f"python examples/{script.name}" in (ast.get_docstring(ast.parse(text)) or "")
    assert "--tiny" in text
    assert f"[{script.name}]({script.name})" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_takes_nothing_from_this_repository_but_the_packages_public_names(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            root, *rest = (node.module or "").split(".")
            assert root not in ("data", "recipes", "examples", "tests")
            assert not any(part.startswith("_") for part in rest)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_is_the_docstring(script, capsys):
    with pytest.raises(SystemExit, match="0"):
        main_of(script.stem)(["--help"])
    printed = capsys.readouterr().out
    assert (ast.get_docstring(ast.parse(script.read_text())) or "no docstring") in printed
    assert "  --tiny " in printed
