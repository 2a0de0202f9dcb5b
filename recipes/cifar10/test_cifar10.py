"""A ladder: one step, an epoch, a killed run, two processes, precisions, the command line.

The data are made in ``conftest.py``: ten patterns in CIFAR-10's files. A fork keeps these tests.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from matplotlib import rc_context
from torch import nn
from torch.optim import SGD

from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from . import data, evaluate, solver, train
from .config import Config
from .conftest import CONFIG, HERE, TEST, TRAINING, curves, in_processes, outs, run_in
from .model import create_model

ONE_STEP = replace(CONFIG, epochs=1, batch_size=TRAINING, lookahead=0, lr_start=0.5, lr_peak=0.5)
STEPS = 40  # ten an epoch
OUTS = ("metrics.json", "confusion.tsv", "confusion.png", "mistakes.png")


@pytest.mark.parametrize("name", ["fast", "resnet18"])
def test_one_step_moves_every_trainable_weight(
    tmp_path: Path, images: Path, name: Literal["fast", "resnet18"]
) -> None:
    config = replace(ONE_STEP, net=name)
    if name == "resnet18":
        config = replace(config, batch_size=16, epochs=1 / 20, validate_every=100)
    run = run_in(tmp_path, images)
    train.train(config, run)
    after = run.load("model.pt")
    torch.manual_seed(config.seed)
    pixels, _ = data.prepare_batch(data.load(config, images).images.first(train.WHITENING_IMAGES))
    net = create_model(config, pixels)
    assert list(after) == list(net.state_dict())
    for key, before in net.named_parameters():
        assert after[key].isfinite().all()
        assert torch.equal(after[key], before) != before.requires_grad, key


def test_each_epoch_is_measured_and_logged(trained: Path) -> None:
    rows = curves(trained)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["test_loss"] < rows[0]["test_loss"] < math.log(10) * 1.2
    assert rows[-1]["test_accuracy"] > 0.9
    assert rows[-1]["test_top5"] >= rows[-1]["test_accuracy"]
    assert list((trained / "logs").glob("events.out.tfevents.*"))


def test_it_is_measured_as_often_as_asked_and_a_last_epoch_that_is_cut_short_only_at_the_end(
    tmp_path: Path, images: Path
) -> None:
    config = replace(CONFIG, epochs=4.5, validate_every=2)
    assert train.train(config, run_in(tmp_path, images))["accuracy"] > 0.9
    assert [row["epoch"] for row in curves(tmp_path)] == [2, 4]


def test_each_step_has_the_schedule_s_size_from_the_first_on(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = sizes_of_steps(tmp_path, images, monkeypatch)
    assert len(seen) == round(CONFIG.epochs * (TRAINING // CONFIG.batch_size)) == STEPS
    knots = [0, CONFIG.lr_peak * STEPS, STEPS]
    values = [CONFIG.lr_start, 1, CONFIG.lr_end]
    np.testing.assert_allclose(seen, CONFIG.lr * np.interp(range(STEPS), knots, values))


def sizes_of_steps(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Train; return the step size with which SGD made each step."""
    seen, create = [], solver.create_optimizer

    def create_watched(config: Config, net: nn.Module) -> SGD:
        optimizer = create(config, net)
        optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(train, "create_optimizer", create_watched)
    train.train(replace(CONFIG, validate_every=100), run_in(tmp_path, images))
    return seen


def test_a_training_of_fewer_steps_than_lookahead_s_is_refused(
    tmp_path: Path, images: Path
) -> None:
    config = replace(CONFIG, lookahead=STEPS + 1)
    with pytest.raises(recipe.RecipeError, match=f"but there are {STEPS} steps"):
        train.train(config, run_in(tmp_path, images))


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


# The epochs have 10 iterations, and the state is kept after 4, 8, 10, 12, ...; weights and their
# running mean meet after 5, 10, 15, ...
@pytest.mark.parametrize("iteration", [3, 17, 30])
def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, images: Path, trained: Path, iteration: int
) -> None:
    run = run_in(tmp_path, images, resumable=True)
    assert in_processes(1, train_until_killed, CONFIG, run, iteration) == [-signal.SIGKILL]
    assert not (tmp_path / "outs" / "model.pt").exists()
    train.train(CONFIG, run)
    assert outs(tmp_path) == outs(trained)


# Processes and precisions


def train_in_group(rank: int, config: Config, run: recipe.Run, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    metrics = train.train(config, run)
    headline = evaluate.evaluate(config, run)
    assert {name: headline[name] for name in metrics} == metrics
    with pytest.raises(ValueError, match=r"batch_size.* 31.*2"):
        data.load(replace(config, batch_size=31), run.data)
    dist.destroy_process_group()


def test_two_processes_learn_and_measure_what_one_would_measure(
    tmp_path: Path, images: Path
) -> None:
    # Each normalises by its own half of a batch, so the weights are not those of one process; the
    # last batch of an evaluation is a single image, which only one of them has.
    run = run_in(tmp_path / "two", images)
    store = f"file://{tmp_path / 'store'}"
    assert in_processes(2, train_in_group, CONFIG, run, store) == [0, 0]
    assert curves(tmp_path / "two")[-1]["test_accuracy"] > 0.9
    two = {name: (run.outputs / name).read_bytes() for name in OUTS}
    evaluate.evaluate(CONFIG, run)
    metrics = json.loads((run.outputs / "metrics.json").read_text())
    assert json.loads(two["metrics.json"]) == pytest.approx(metrics, rel=1e-5, abs=1e-6)
    for name in OUTS[1:3]:
        assert (run.outputs / name).read_bytes() == two[name]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_and_keeps_weights_in_float32(
    tmp_path: Path, images: Path, trained: Path, precision: Literal["bfloat16", "float16"]
) -> None:
    run = run_in(tmp_path, images)
    metrics = train.train(replace(CONFIG, precision=precision), run)
    assert metrics["accuracy"] > 0.85
    weights = run.load("model.pt")
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}
    assert outs(tmp_path)["model.pt"] != outs(trained)["model.pt"]


@pytest.mark.parametrize("change", [{"compile": True}, {"augmentation": "albumentations"}])
def test_a_compiled_net_and_albumentations_learn_too(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    # As a compiler, one that hands back what it was given: the real one takes a minute.
    compile_ = torch.compile
    asked = []

    @functools.wraps(compile_)
    def compile_quickly(model: nn.Module) -> object:
        asked.append(model)
        return compile_(model, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_quickly)
    config = replace(CONFIG, alternate_flips=False, **change)
    assert train.train(config, run_in(tmp_path, images))["accuracy"] > 0.85
    assert bool(asked) == config.compile


# Evaluation


def test_an_evaluation_writes_equal_bytes_each_time_whatever_the_user_s_style(
    images: Path, trained: Path
) -> None:
    headline = evaluate.evaluate(CONFIG, run_in(trained, images))
    first = {name: (trained / "outs" / name).read_bytes() for name in OUTS}
    with rc_context({"font.size": 20, "image.cmap": "jet", "savefig.bbox": "tight"}):
        evaluate.evaluate(CONFIG, run_in(trained, images))
    assert {name: (trained / "outs" / name).read_bytes() for name in OUTS} == first

    metrics = json.loads(first["metrics.json"])
    assert list(metrics) == sorted(metrics)
    assert {name: metrics[name] for name in headline} == headline
    assert 0 <= metrics["calibration_error"] <= 1
    _, *pairs = (line.split("\t") for line in first["confusion.tsv"].decode().splitlines())
    assert len(pairs) == TEST
    assert sum(one == two for one, two in pairs) / TEST == metrics["accuracy"]
    for name in data.CLASSES:
        of = [predicted == actual for actual, predicted in pairs if actual == name]
        assert metrics[f"accuracy_{name}"] == pytest.approx(sum(of) / len(of))


def test_one_view_s_accuracy_is_that_of_the_last_epoch(images: Path, trained: Path) -> None:
    assert CONFIG.views == "flip and shift"
    evaluate.evaluate(CONFIG, run_in(trained, images))
    metrics = json.loads((trained / "outs" / "metrics.json").read_text())
    assert metrics["one_view_accuracy"] == curves(trained)[-1]["test_accuracy"]


def test_evaluating_what_was_not_trained_says_so(tmp_path: Path, images: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"model\.pt: no such file; train 'tiny' first"):
        evaluate.evaluate(CONFIG, run_in(tmp_path, images))


# The pipeline and the command line


@pytest.mark.parametrize("stage", ["train", "evaluate", "seeds"])
def test_a_stage_depends_on_every_module_that_it_imports(stage: str) -> None:
    found, queue = set(), [stage]
    while queue:
        found.add(name := queue.pop())
        for node in ast.walk(ast.parse((HERE / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                queue += [name for name in names if name not in found]
    entry = yaml.safe_load((HERE / "dvc.yaml").read_text())["stages"][stage]
    paths = [path for path in entry.get("do", entry)["deps"] if path.endswith(".py")]
    assert sorted(paths) == sorted(f"recipes/cifar10/{name}.py" for name in found)


def test_a_copy_of_the_recipe_trains_and_evaluates_from_the_command_line(
    tmp_path: Path, images: Path
) -> None:
    copy = tmp_path / "my_project"
    copy.mkdir()
    for path in HERE.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    profiles = yaml.safe_load((HERE / "params.yaml").read_text())
    # Without MLflow, which takes longer than all the rest.
    small = {"widths": [8, 16, 16], "batch_size": 40, "lookahead": 3, "mlflow": False}
    profiles = {"tiny": {**profiles["tiny"], **small, "epochs": 3}}
    (copy / "params.yaml").write_text(yaml.safe_dump(profiles))
    asked = {name: str(value) for name, value in CONFIG.environment.items()}
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
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.5
    assert not (tmp_path / "out" / ".resume").exists()
