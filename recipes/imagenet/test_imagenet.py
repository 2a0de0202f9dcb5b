"""A ladder: one step, an epoch, a killed run, two processes, precisions, the command line.

The data are made in ``conftest.py``: JPEGs of four coloured patterns. A fork keeps these tests.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from torch import nn
from torch.testing import assert_close

from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from . import data, evaluate, train
from .config import Config
from .conftest import (
    CLASSES,
    CONFIG,
    CORRUPT,
    HERE,
    STEPS,
    VALIDATION,
    curves,
    in_processes,
    outs,
    run_in,
)  # fmt: skip
from .model import create_model

# The net of the tests normalises each image by itself: it does not matter with which others it is.
ALONE: dict[str, Any] = {"optimizer": "sgd", "lr": 0.05}
MIXED = replace(
    CONFIG,
    options={"channels": [8, 8, 16, 16], "stem_width": 8},  # with batch normalisation
    mixup=0.2,
    cutmix=1.0,
    accumulate=3,
    label_smoothing=0.1,
)
OUTS = ("metrics.json", "classes.tsv", "predictions.png")


def test_one_step_moves_weights_and_their_average_follows(tmp_path: Path, images: Path) -> None:
    config = replace(CONFIG, epochs=1, warmup=0, batch_size=36)
    run = run_in(tmp_path, images)
    train.train(config, run)
    after, average = run.load("model.pt"), run.load("ema.pt")
    torch.manual_seed(config.seed)
    net = create_model(config, len(CLASSES))
    assert list(after) == list(net.state_dict())
    for name, before in net.named_parameters():
        assert not torch.equal(after[name], before) or "layer" in name, name
        assert_close(average[name], torch.lerp(before.detach(), after[name], config.ema))


def test_each_epoch_is_measured_and_it_learns(trained: Path) -> None:
    rows = curves(trained)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["validation_accuracy"] > 0.4  # a quarter is chance
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    assert {
        f"{tag}_{name}" for tag in ("validation", "ema") for name in ("accuracy", "top5", "loss")
    } < set(rows[-1])
    assert list((trained / "logs").glob("events.out.tfevents.*"))
    assert outs(trained)["corrupt.tsv"].decode() == f"corrupt\n{CORRUPT}\n"


def test_without_an_average_its_file_holds_the_weights(tmp_path: Path, images: Path) -> None:
    config = replace(CONFIG, ema=0.0, epochs=2, validate_every=5)
    assert set(train.train(config, run_in(tmp_path, images))) == {"accuracy", "top5", "loss"}
    files = outs(tmp_path)
    assert files["ema.pt"] == files["model.pt"]
    assert [row["epoch"] for row in curves(tmp_path)] == [2]


def test_workers_change_no_bit(tmp_path: Path, images: Path, trained: Path) -> None:
    train.train(replace(CONFIG, workers=2), run_in(tmp_path, images))
    assert outs(tmp_path) == outs(trained)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path, images: Path) -> None:
    weights = []
    changes: list[dict[str, Any]] = [{"batch_size": 16}, {"batch_size": 8, "accumulate": 2}]
    for change in changes:
        config = replace(CONFIG, **ALONE, epochs=2, **change)
        run = run_in(tmp_path / str(change), images)
        train.train(config, run)
        weights.append(run.load("model.pt"))
    assert_close(*weights, rtol=1e-4, atol=1e-5)


# Interruptions


def train_until_killed(_: int, config: Config, run: recipe.Run, iteration: int) -> None:
    torch.set_num_threads(1)
    keep = recipe.Run.keep

    def keep_and_die(self: recipe.Run, trainer: Engine, **objects: object) -> bool:
        resumed = keep(self, trainer, **objects)
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED(once=iteration),
            lambda: os.kill(os.getpid(), signal.SIGKILL),
        )
        return resumed

    patch = pytest.MonkeyPatch()
    patch.setattr(recipe.Run, "keep", keep_and_die)
    train.train(config, run)


def note(read: list[object], config: Config, epoch: int) -> int:
    read.append(epoch)
    return config.size


def test_a_killed_training_goes_on_in_the_middle_of_an_epoch_to_the_same_bytes(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Epochs have 4 iterations, of which 3 and 1 make a step; the state is kept after 3, 4, 6, ...
    train.train(MIXED, run_in(tmp_path / "whole", images))
    out = tmp_path / "killed"
    run = run_in(out, images, resumable=True)
    assert in_processes(1, train_until_killed, MIXED, run, 7) == [-signal.SIGKILL]
    assert not (out / "outs" / "model.pt").exists()
    read: list[object] = []
    monkeypatch.setattr(data, "size_at", functools.partial(note, read))
    train.train(MIXED, run)
    assert outs(out) == outs(tmp_path / "whole")
    # By position and not by replay: only what was left after the sixth step has been decoded.
    assert (STEPS - 6) * 8 <= len(read) < (STEPS - 5) * 8


# Processes and precisions


def train_in_group(rank: int, config: Config, run: recipe.Run, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    metrics = train.train(config, run)
    headline = evaluate.evaluate(config, run)
    assert {name: headline[name] for name in metrics} == metrics
    with pytest.raises(recipe.RecipeError, match="sync_bn: torch can do that on GPUs only"):
        train.train(replace(config, sync_bn=True), run)
    with pytest.raises(recipe.RecipeError, match=r"1 corrupt image: train/bee/bee_3.JPEG"):
        train.train(replace(config, corrupt="fatal"), run)
    # Normalised by statistics of each process's own images; the first one's are saved.
    out = run.outputs.parent.parent / "normalised"
    normalised = replace(MIXED, epochs=1, accumulate=1, batch_size=4, validation_batch_size=14)
    train.train(normalised, run_in(out, run.data))
    evaluate.evaluate(normalised, run_in(out, run.data))
    if rank == 0:  # which writes
        metrics = json.loads((out / "outs" / "metrics.json").read_text())
        assert curves(out)[-1]["ema_loss"] == metrics["ema_loss"]
    dist.destroy_process_group()


def test_two_processes_learn_and_measure_what_one_does(tmp_path: Path, images: Path) -> None:
    # The last batch of an evaluation has two images, and one of all could not be decoded.
    config = replace(CONFIG, **ALONE, validation_batch_size=14)
    two, one = run_in(tmp_path / "two", images), run_in(tmp_path / "one", images)
    store = f"file://{tmp_path / 'store'}"
    assert in_processes(2, train_in_group, config, two, store) == [0, 0]
    train.train(config, one)
    for name in ("model.pt", "ema.pt"):
        assert_close(two.load(name), one.load(name), rtol=1e-4, atol=1e-5)
    assert outs(tmp_path / "two")["corrupt.tsv"] == outs(tmp_path / "one")["corrupt.tsv"]
    written = {name: (two.outputs / name).read_bytes() for name in OUTS}
    evaluate.evaluate(config, two)
    metrics = json.loads((two.outputs / "metrics.json").read_text())
    assert json.loads(written["metrics.json"]) == pytest.approx(metrics, rel=1e-5, abs=1e-6)
    assert (two.outputs / "classes.tsv").read_bytes() == written["classes.tsv"]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_and_keeps_weights_in_float32(
    tmp_path: Path, images: Path, trained: Path, precision: Any
) -> None:
    run = run_in(tmp_path, images)
    assert train.train(replace(CONFIG, precision=precision), run)["accuracy"] > 0.4
    assert {value.dtype for value in run.load("model.pt").values()} == {torch.float32}
    assert outs(tmp_path)["model.pt"] != outs(trained)["model.pt"]


def test_a_compiled_net_learns_on_growing_images(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a compiler, one that hands back what it was given: the real one takes a minute.
    compile_ = torch.compile
    asked = []

    @functools.wraps(compile_)
    def compile_quickly(model: nn.Module) -> object:
        asked.append(model)
        return compile_(model, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_quickly)
    config = replace(CONFIG, compile=True, first_size=32, size=64, grown_at=0.5)
    assert train.train(config, run_in(tmp_path, images))["accuracy"] > 0.4
    assert asked


# Evaluation


def test_an_evaluation_writes_equal_bytes_each_time(images: Path, trained: Path) -> None:
    headline = evaluate.evaluate(CONFIG, run_in(trained, images))
    first = {name: (trained / "outs" / name).read_bytes() for name in OUTS}
    evaluate.evaluate(CONFIG, run_in(trained, images))
    assert {name: (trained / "outs" / name).read_bytes() for name in OUTS} == first
    metrics = json.loads(first["metrics.json"])
    assert {name: metrics[name] for name in headline} == headline
    last = curves(trained)[-1]
    assert metrics["accuracy"] == last["validation_accuracy"]
    assert metrics["ema_loss"] == pytest.approx(last["ema_loss"], rel=1e-6)
    rows = [line.split("\t") for line in first["classes.tsv"].decode().splitlines()[1:]]
    assert [row[:2] for row in rows] == [[name, str(VALIDATION)] for name in CLASSES]
    mean = sum(float(row[2]) for row in rows) / len(rows)
    assert mean == pytest.approx(metrics["accuracy"], abs=1e-3)


def test_evaluating_what_was_not_trained_says_so(tmp_path: Path, images: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"ema\.pt: no such file; train 'tiny' first"):
        evaluate.evaluate(CONFIG, run_in(tmp_path, images))


# The pipeline and the command line


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_stage_depends_on_every_module_that_it_imports(stage: str) -> None:
    found, queue = set(), [stage]
    while queue:
        found.add(name := queue.pop())
        for node in ast.walk(ast.parse((HERE / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                queue += [name for name in names if name not in found]
    entry = yaml.safe_load((HERE / "dvc.yaml").read_text())["stages"][stage]
    paths = [path for path in entry["do"]["deps"] if path.endswith(".py")]
    assert sorted(paths) == sorted(f"recipes/imagenet/{name}.py" for name in found)


def test_a_copy_of_the_recipe_trains_and_evaluates_from_the_command_line(
    tmp_path: Path, images: Path
) -> None:
    copy = tmp_path / "my_project"
    copy.mkdir()
    for path in HERE.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    tiny = yaml.safe_load((HERE / "params.yaml").read_text())["tiny"]
    small = {"options": CONFIG.options, "batch_size": 8, "epochs": 2, "mlflow": False}
    (copy / "params.yaml").write_text(yaml.safe_dump({"tiny": {**tiny, **small}}))
    asked = {name: str(value) for name, value in tiny["environment"].items()}
    for entry in ("train", "evaluate"):
        command = [sys.executable, "-m", f"my_project.{entry}", "--profile", "tiny"]
        done = subprocess.run(
            [*command, "--data", str(images), "--out", str(tmp_path / "out")],
            cwd=tmp_path,
            env={**os.environ, **asked},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if entry == "train":
            assert "images/s=" in done.stderr
            assert f"train: 1 corrupt image: {CORRUPT}" in done.stdout + done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["images"] == 16
