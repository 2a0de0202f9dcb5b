"""A ladder: one step, some epochs, a killed run, two processes, the evaluation, the command line.

The data are made in ``conftest.py``: squares in VOC's files. A fork keeps these tests.
"""

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

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from matplotlib import rc_context
from PIL import Image
from torch import nn

from cookfire import distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from . import evaluate, train
from . import predict as command
from .config import Config
from .conftest import CONFIG, HERE, TRAINING, VALIDATION, curves, in_processes, outs, run_in
from .model import create_model
from .pairs import FOLDER, IMAGES, find
from .palette import CLASSES, VOID

ONE_STEP = replace(CONFIG, epochs=1, batch_size=TRAINING, warmup=0.0)
OUTS = ("metrics.json", "iou.tsv", "confusion.tsv", "iou.png", "confusion.png", "worst.png")


def test_one_step_moves_every_weight(tmp_path: Path, pairs: Path) -> None:
    run = run_in(tmp_path, pairs)
    train.train(ONE_STEP, run)
    after = run.load("model.pt")
    torch.manual_seed(ONE_STEP.seed)
    net = create_model(ONE_STEP)
    assert list(after) == list(net.state_dict())
    for key, before in net.named_parameters():
        assert after[key].isfinite().all()
        assert not torch.equal(after[key], before), key


def test_training_learns_and_each_fourth_epoch_is_measured(trained: Path) -> None:
    rows = curves(trained)
    assert [row["epoch"] for row in rows] == [4, 8]
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"] < math.log(21)
    # 21 classes, of which 4 are there: all background would be 0.85 of pixels.
    assert rows[-1]["validation_pixel_accuracy"] > 0.9
    assert rows[-1]["validation_miou"] > 1.5 / 21
    assert list((trained / "logs").glob("events.out.tfevents.*"))


def without_norms(config: Config) -> nn.Module:
    """The light net, but that no part of a batch has statistics of its own."""
    net = create_model(config)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features))
    return net


def weights_of(out: Path, pairs: Path, config: Config) -> torch.Tensor:
    patch = pytest.MonkeyPatch()
    patch.setattr(train, "create_model", without_norms)
    run = run_in(out, pairs)
    train.train(config, run)
    patch.undo()
    return torch.cat([value.flatten() for value in run.load("model.pt").values()])


def test_accumulation_in_parts_gives_the_gradient_of_the_whole_batch(
    tmp_path: Path, pairs: Path
) -> None:
    # Parts have other numbers of void pixels each: a mean of means would differ.
    config = replace(CONFIG, epochs=0.5)
    whole = weights_of(tmp_path / "whole", pairs, config)
    parts = weights_of(tmp_path / "parts", pairs, replace(config, accumulate=2))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


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


# The epochs have 6 iterations, and the state is kept after 3, 6, 9, ...
@pytest.mark.parametrize("iteration", [2, 29])
def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, pairs: Path, trained: Path, iteration: int
) -> None:
    run = run_in(tmp_path, pairs, resumable=True)
    assert in_processes(1, train_until_killed, CONFIG, run, iteration) == [-signal.SIGKILL]
    assert not (tmp_path / "outs" / "model.pt").exists()
    train.train(CONFIG, run)
    assert outs(tmp_path) == outs(trained)


# Processes and precisions


def train_in_group(rank: int, out: Path, pairs: Path, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    config = replace(CONFIG, epochs=0.5, accumulate=2)
    found = weights_of(out / "exact", pairs, config)
    if rank == 0:
        torch.save(found, out / "exact.pt")
    run = run_in(out, pairs)
    metrics = train.train(CONFIG, run)
    headline = evaluate.evaluate(CONFIG, run)
    assert headline == metrics
    dist.destroy_process_group()


def test_two_processes_train_and_measure_what_one_would(tmp_path: Path, pairs: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    assert in_processes(2, train_in_group, tmp_path / "two", pairs, store) == [0, 0]
    # Without statistics of a process's own share, the weights are those of one process.
    config = replace(CONFIG, epochs=0.5)
    one = weights_of(tmp_path / "one", pairs, config)
    torch.testing.assert_close(torch.load(tmp_path / "two" / "exact.pt"), one, rtol=1e-4, atol=1e-5)
    # The last image of an evaluation is one that only the first of them has.
    run = run_in(tmp_path / "two", pairs)
    two = {name: (run.outputs / name).read_bytes() for name in OUTS}
    evaluate.evaluate(CONFIG, run)
    metrics = json.loads((run.outputs / "metrics.json").read_text())
    assert json.loads(two["metrics.json"]) == pytest.approx(metrics, rel=1e-6)
    for name in OUTS[1:]:
        assert (run.outputs / name).read_bytes() == two[name], name


def test_bfloat16_learns_and_keeps_weights_in_float32(
    tmp_path: Path, pairs: Path, trained: Path
) -> None:
    run = run_in(tmp_path, pairs)
    metrics = train.train(replace(CONFIG, precision="bfloat16"), run)
    assert metrics["pixel_accuracy"] > 0.85
    assert {value.dtype for value in run.load("model.pt").values()} == {torch.float32, torch.int64}
    assert outs(tmp_path)["model.pt"] != outs(trained)["model.pt"]


# Evaluation


def test_an_evaluation_writes_equal_bytes_each_time_whatever_the_user_s_style(
    pairs: Path, trained: Path
) -> None:
    headline = evaluate.evaluate(CONFIG, run_in(trained, pairs))
    first = {name: (trained / "outs" / name).read_bytes() for name in OUTS}
    with rc_context({"font.size": 20, "image.cmap": "jet", "savefig.bbox": "tight"}):
        evaluate.evaluate(CONFIG, run_in(trained, pairs))
    assert {name: (trained / "outs" / name).read_bytes() for name in OUTS} == first

    metrics = json.loads(first["metrics.json"])
    assert list(metrics) == sorted(metrics)
    assert {name: metrics[name] for name in headline} == headline
    rows = [line.split("\t") for line in first["confusion.tsv"].decode().splitlines()]
    counts = np.array([[int(value) for value in row[1:]] for row in rows[1:]])
    assert counts.sum() == sum((of.read()[1] != VOID).sum() for of in find(pairs, "val"))
    hits = counts.diagonal()
    iou = hits / np.maximum(counts.sum(0) + counts.sum(1) - hits, 1)
    assert metrics["miou"] == pytest.approx(iou.mean(), abs=1e-12)
    assert metrics["miou_objects"] == pytest.approx(iou[1:].mean(), abs=1e-12)
    assert metrics["pixel_accuracy"] == pytest.approx(hits.sum() / counts.sum(), abs=1e-12)
    for name, value in zip(CLASSES, iou, strict=True):
        assert metrics[f"iou_{name}"] == pytest.approx(value, abs=1e-12)


def test_views_are_averaged_and_one_view_is_reported_beside_them(
    pairs: Path, trained: Path
) -> None:
    one = evaluate.evaluate(CONFIG, run_in(trained, pairs))
    evaluate.evaluate(replace(CONFIG, views=(1.0, 1.5), flip=True), run_in(trained, pairs))
    metrics = json.loads((trained / "outs" / "metrics.json").read_text())
    assert metrics["one_view_miou"] == one["miou"]
    assert metrics["loss"] != one["loss"]
    evaluate.evaluate(CONFIG, run_in(trained, pairs))


def test_evaluating_what_was_not_trained_says_so(tmp_path: Path, pairs: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"model\.pt: no such file; train 'tiny' first"):
        evaluate.evaluate(CONFIG, run_in(tmp_path, pairs))


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
    assert sorted(paths) == sorted(f"recipes/voc_segmentation/{name}.py" for name in found)


def test_a_copy_of_the_recipe_trains_evaluates_and_predicts_from_the_command_line(
    tmp_path: Path, pairs: Path
) -> None:
    copy = tmp_path / "my_project"
    copy.mkdir()
    for path in HERE.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    profiles = yaml.safe_load((HERE / "params.yaml").read_text())
    # Without MLflow, which takes longer than all the rest.
    small = {"widths": [8, 8], "head_width": 8, "size": 32, "mlflow": False, "epochs": 4}
    profiles = {"tiny": {**profiles["tiny"], **small}}
    (copy / "params.yaml").write_text(yaml.safe_dump(profiles))
    asked = {name: str(value) for name, value in CONFIG.environment.items()}
    out = tmp_path / "out"

    def run(entry: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", f"my_project.{entry}", "--profile", "tiny", *arguments],
            cwd=tmp_path,
            env={**os.environ, **asked},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for entry in ("train", "evaluate"):
        run(entry, "--data", str(pairs), "--out", str(out))
    assert json.loads((out / "metrics.json").read_text())["pixel_accuracy"] > 0.8
    assert not (out / ".resume").exists()
    image = pairs / FOLDER / IMAGES / "val_0.jpg"
    said = run(
        "predict", "--weights", str(out / "model.pt"), "--out", str(out / "masks"), str(image)
    )
    assert said.startswith(f"{image}: background ")
    with Image.open(image) as picture, Image.open(out / "masks" / "val_0_mask.png") as mask:
        assert (mask.mode, mask.size) == ("P", picture.size)
        assert np.asarray(mask).max() < len(CLASSES)


def test_predict_says_in_one_line_what_it_can_not_use(
    tmp_path: Path, pairs: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, weights = pairs / FOLDER / IMAGES / "val_0.jpg", trained / "outs" / "model.pt"
    (tmp_path / "notes.jpg").write_text("no image")
    for arguments, line in (
        ([image, "--weights", tmp_path / "x.pt"], "x.pt: no such file"),
        ([image, "--weights", weights, "--profile", "small"], "not the weights of profile 'small'"),
        ([image, "--profile", "ful"], "no profile 'ful'; did you mean 'full'?"),
        ([image, image, "--profile", "tiny"], "val_0: two images of that name"),
    ):
        assert command.main([*map(str, arguments), "--out", str(tmp_path / "masks")]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
    assert idist.get_world_size() == 1
    assert len(find(pairs, "val")) == VALIDATION
