"""A ladder: one step, one epoch, a killed run, two processes, plain PyTorch, the command line."""

from __future__ import annotations

import ast
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.distributed as dist
import yaml
from matplotlib import rc_context

from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from . import evaluate, train, train_plain
from .config import Config
from .conftest import (
    CONFIG,
    HERE,
    PROFILES,
    TRAINING,
    VALIDATION,
    curves,
    in_processes,
    outs,
    run_in,
)
from .model import Net


def test_one_step_moves_every_weight(tmp_path: Path, digits: Path) -> None:
    config = replace(CONFIG, epochs=1, batch_size=TRAINING, dropout=0.0)
    train.train(config, run_in(tmp_path, digits))
    after = torch.load(tmp_path / "outs" / "model.pt", weights_only=True)
    torch.manual_seed(config.seed)
    for name, before in Net(config.dropout).state_dict().items():
        assert after[name].isfinite().all()
        assert not torch.equal(after[name], before), name


def test_an_epoch_is_measured_on_both_splits_and_logged(trained: Path) -> None:
    rows = curves(trained)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["training_loss"] < math.log(10)
    assert rows[-1]["validation_accuracy"] > 0.9
    assert rows[-1]["validation_f1"] > 0.9
    assert list((trained / "logs").glob("events.out.tfevents.*"))


def test_the_best_weights_are_those_of_the_epoch_with_the_best_f1(
    tmp_path: Path, digits: Path, trained: Path
) -> None:
    best = max(curves(trained), key=lambda row: row["validation_f1"])
    train.train(replace(CONFIG, epochs=int(best["epoch"])), run_in(tmp_path, digits))
    assert outs(tmp_path)["model.pt"] == outs(trained)["best.pt"]


def test_plain_pytorch_gives_the_same_bits(tmp_path: Path, digits: Path, trained: Path) -> None:
    train_plain.train(CONFIG, run_in(tmp_path, digits))
    plain, ours = outs(tmp_path), outs(trained)
    assert plain["model.pt"] == ours["model.pt"]
    assert plain["best.pt"] == ours["best.pt"]
    for row, expected in zip(curves(tmp_path), curves(trained), strict=True):
        assert row == pytest.approx(expected, rel=1e-6)


# Processes


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


# The epochs have 10 iterations, and the state is kept after 4, 8, 10, 12, ...
@pytest.mark.parametrize("iteration", [3, 17, 20])
def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, digits: Path, trained: Path, iteration: int
) -> None:
    run = run_in(tmp_path, digits, resumable=True)
    assert in_processes(1, train_until_killed, CONFIG, run, iteration) == [-signal.SIGKILL]
    assert not (tmp_path / "outs" / "model.pt").exists()
    train.train(CONFIG, run)
    assert outs(tmp_path) == outs(trained)


def train_in_group(rank: int, config: Config, run: recipe.Run, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    train.train(config, run)
    evaluate.evaluate(config, run)
    dist.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path: Path, digits: Path) -> None:
    # Without dropout, whose masks are each process's own.
    config = replace(CONFIG, dropout=0.0, epochs=2)
    one, two = run_in(tmp_path / "one", digits), run_in(tmp_path / "two", digits)
    store = f"file://{tmp_path / 'store'}"
    assert in_processes(2, train_in_group, config, two, store) == [0, 0]
    train.train(config, one)
    evaluate.evaluate(config, one)
    for row, expected in zip(curves(tmp_path / "two"), curves(tmp_path / "one"), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    for name in ("model.pt", "best.pt"):
        weights, expected = (
            torch.load(run.outputs / name, weights_only=True) for run in (two, one)
        )
        torch.testing.assert_close(dict(weights), dict(expected), rtol=1e-3, atol=1e-5)
    metrics = [json.loads((run.outputs / "metrics.json").read_text()) for run in (two, one)]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-4)
    for name in ("confusion.tsv", "confusion.png"):
        assert (two.outputs / name).read_bytes() == (one.outputs / name).read_bytes()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_and_keeps_weights_in_float32(
    tmp_path: Path, digits: Path, precision: Literal["bfloat16", "float16"]
) -> None:
    config = replace(CONFIG, precision=precision)
    assert train.train(config, run_in(tmp_path, digits))["accuracy"] > 0.9
    weights = torch.load(tmp_path / "outs" / "model.pt", weights_only=True)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


# Evaluation


def test_an_evaluation_writes_equal_bytes_each_time_whatever_the_user_s_style(
    digits: Path, trained: Path
) -> None:
    names = ["metrics.json", "confusion.tsv", "confusion.png", "predictions.png"]
    headline = evaluate.evaluate(CONFIG, run_in(trained, digits))
    first = [(trained / "outs" / name).read_bytes() for name in names]
    with rc_context({"font.size": 20, "image.cmap": "jet", "savefig.bbox": "tight"}):
        evaluate.evaluate(CONFIG, run_in(trained, digits))
    assert [(trained / "outs" / name).read_bytes() for name in names] == first

    metrics = json.loads(first[0])
    assert list(metrics) == sorted(metrics)
    assert headline == {name: metrics[name] for name in ("accuracy", "loss", "f1")}
    last = curves(trained)[-1]
    assert headline == {name: last[f"validation_{name}"] for name in headline}
    _, *pairs = (line.split("\t") for line in first[1].decode().splitlines())
    assert len(pairs) == VALIDATION
    right = sum(actual == predicted for actual, predicted in pairs)
    assert right / VALIDATION == metrics["accuracy"]


def test_evaluating_what_was_not_trained_says_so(tmp_path: Path, digits: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"best\.pt: no such file; train 'tiny' first"):
        evaluate.evaluate(CONFIG, run_in(tmp_path, digits))


# The pipeline


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_stage_depends_on_every_module_that_it_imports(stage: str) -> None:
    found, queue = set(), [stage]
    while queue:
        found.add(name := queue.pop())
        for node in ast.walk(ast.parse((HERE / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                queue += [name for name in names if name not in found]
    stages = yaml.safe_load((HERE / "dvc.yaml").read_text())["stages"]
    paths = [path for path in stages[stage]["do"]["deps"] if path.endswith(".py")]
    assert sorted(paths) == sorted(f"recipes/mnist/{name}.py" for name in found)


# Parameters and the command line


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid(profile: str) -> None:
    recipe.load(HERE / "params.yaml", profile, Config)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lr: 0", "tiny.lr: expected more than 0, got 0.0"),
        ("momentum: 1", "tiny.momentum: expected from 0 to below 1, got 1.0"),
        ("epochs: 0", "tiny.epochs: expected at least 1, got 0"),
        ("epochs: 1.5", "tiny.epochs: expected int, got 1.5"),
    ],
)
def test_a_parameter_that_can_not_be_names_its_key(tmp_path: Path, line: str, message: str) -> None:
    values = {"data": "x", "epochs": "1", "batch_size": "1", "validation_batch_size": "1"}
    values |= {"lr": "1", "momentum": "0", "dropout": "0"}
    values |= {line.split(":")[0]: line.split(": ")[1]}
    text = "tiny:\n" + "".join(f"  {name}: {value}\n" for name, value in values.items())
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(recipe.RecipeError, match=message):
        recipe.load(tmp_path / "params.yaml", "tiny", Config)


def test_the_plain_training_must_be_told_where_to_write() -> None:
    done = subprocess.run(
        [sys.executable, "-m", train_plain.__name__, "--profile", "tiny"],
        cwd=HERE.parents[train_plain.__name__.count(".") - 1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "the following arguments are required: --out" in done.stderr


def test_a_copy_of_the_recipe_trains_and_evaluates_from_the_command_line(
    tmp_path: Path, digits: Path
) -> None:
    copy = tmp_path / "my_project"
    copy.mkdir()
    for path in HERE.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    text = (HERE / "params.yaml").read_text()
    # Without MLflow, which takes longer than all the rest.
    (copy / "params.yaml").write_text(text.replace("tiny:\n", "tiny:\n  mlflow: false\n"))
    asked = {name: str(value) for name, value in CONFIG.environment.items()}
    for entry in ("train", "evaluate"):
        command = [sys.executable, "-m", f"my_project.{entry}", "--profile", "tiny"]
        done = subprocess.run(
            [*command, "--data", str(digits), "--out", str(tmp_path / "out")],
            cwd=tmp_path,
            env={**os.environ, **asked},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9
    assert not (tmp_path / "out" / ".resume").exists()
