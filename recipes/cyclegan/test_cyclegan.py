"""A ladder: one step, an epoch, a killed run, two processes, precisions, the command line.

The data are made in ``conftest.py``: squares of two colours. A fork keeps these tests.
"""

from __future__ import annotations

import ast
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # has no types
    EventAccumulator,
)
from torch import nn
from torch.optim import Adam

from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from . import data, evaluate, losses, train
from .config import Config
from .conftest import CONFIG, COUNTS, HERE, STEPS, curves, in_processes, outs, run_in
from .events import Phases
from .model import Discriminators, Generators
from .pictures import GRIDS

ONE_EPOCH = replace(CONFIG, epochs=1, decay_epochs=0)


def hook(monkeypatch: pytest.MonkeyPatch, attach: Callable[..., None]) -> None:
    """Have ``attach(trainer, **objects)`` called right before a training begins."""
    keep = recipe.Run.keep

    def keep_and_attach(self: recipe.Run, trainer: Engine, **objects: object) -> bool:
        attach(trainer, **objects)
        return keep(self, trainer, **objects)

    monkeypatch.setattr(recipe.Run, "keep", keep_and_attach)


# The step


def test_one_step_moves_every_weight_of_all_four_nets(tmp_path: Path, pictures: Path) -> None:
    config = replace(ONE_EPOCH, batch_size=12)
    run = run_in(tmp_path, pictures)
    train.train(config, run)
    after = run.load("model.pt")
    torch.manual_seed(config.seed)
    for name, nets in (
        ("generators", Generators(config)),
        ("discriminators", Discriminators(config)),
    ):
        assert list(after[name]) == list(nets.state_dict())
        for key, before in nets.named_parameters():
            assert after[name][key].isfinite().all()
            assert not torch.equal(after[name][key], before), key


@pytest.mark.parametrize("identity", [0.0, 0.5])
def test_the_weights_are_those_of_a_loop_without_any_of_this(
    tmp_path: Path, pictures: Path, identity: float
) -> None:
    """The paper's step, written down once more: no pool, and each net is called for one thing."""
    # With a larger step, Adam would make much of round-off where gradients are next to nothing.
    config = replace(ONE_EPOCH, pool=0, lambda_identity=identity, lr=2e-4)
    run = run_in(tmp_path, pictures)
    train.train(config, run)
    torch.manual_seed(config.seed)
    g, d = Generators(config), Discriminators(config)
    adam_g, adam_d = (
        torch.optim.Adam(net.parameters(), lr=config.lr, betas=config.betas) for net in (g, d)
    )
    for batch in data.load(config, pictures).training:
        a, b = ((pixels.float() / 255 - 0.5) / 0.5 for pixels in batch)
        fake_a, fake_b = g.b_to_a(b), g.a_to_b(a)
        looks_a, looks_b = d.of_a(fake_a), d.of_b(fake_b)
        loss = F.mse_loss(looks_a, torch.ones_like(looks_a))
        loss = loss + F.mse_loss(looks_b, torch.ones_like(looks_b))
        loss = loss + 10 * (F.l1_loss(g.b_to_a(fake_b), a) + F.l1_loss(g.a_to_b(fake_a), b))
        if identity:
            loss = loss + 10 * identity * (F.l1_loss(g.b_to_a(a), a) + F.l1_loss(g.a_to_b(b), b))
        adam_g.zero_grad()
        torch.autograd.backward(loss)
        adam_g.step()
        adam_d.zero_grad()
        for net, real, fake in ((d.of_a, a, fake_a.detach()), (d.of_b, b, fake_b.detach())):
            of_real, of_fake = net(real), net(fake)
            loss = F.mse_loss(of_real, torch.ones_like(of_real))
            loss = loss + F.mse_loss(of_fake, torch.zeros_like(of_fake))
            torch.autograd.backward(loss / 2)
        adam_d.step()
    weights = run.load("model.pt")
    torch.testing.assert_close(weights["generators"], g.state_dict(), rtol=0, atol=1e-6)
    torch.testing.assert_close(weights["discriminators"], d.state_dict(), rtol=0, atol=1e-6)


def test_a_phase_s_event_comes_when_its_nets_are_updated_and_the_others_are_left_alone(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    gradients: dict[str, list[torch.Tensor]] = {}

    def attach(
        trainer: Engine, generators: Generators, discriminators: Discriminators, **_: object
    ) -> None:
        @trainer.on(Phases.GENERATORS_UPDATED)
        def look_at_generators(engine: Engine) -> None:
            seen.append("generators")
            assert "discriminator_a" not in engine.state.output
            state: Any = engine.state
            assert state.pictures.fake_b.shape == (2, 3, 16, 16)
            # No gradient of theirs was computed: there is none at all in the first step.
            assert not any(weight.requires_grad for weight in discriminators.parameters())
            if engine.state.iteration == 1:
                assert all(weight.grad is None for weight in discriminators.parameters())
            gradients["of generators"] = gradients_of(generators)

        @trainer.on(Phases.DISCRIMINATORS_UPDATED(every=2))
        def look_at_discriminators(engine: Engine) -> None:
            seen.append("discriminators")
            assert set(engine.state.output) == set(losses.names(CONFIG))
            assert len(gradients_of(discriminators)) == len(list(discriminators.parameters()))
            both = zip(gradients_of(generators), gradients["of generators"], strict=True)
            assert all(torch.equal(after, before) for after, before in both)

    hook(monkeypatch, attach)
    train.train(ONE_EPOCH, run_in(tmp_path, pictures))
    assert seen == ["generators", "generators", "discriminators"] * 3


def gradients_of(nets: nn.Module) -> list[torch.Tensor]:
    return [of.grad.clone() for of in nets.parameters() if of.grad is not None]


# Epochs


def test_each_epoch_is_measured_drawn_and_logged(trained: Path) -> None:
    rows = curves(trained)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    expected = [f"training_{name}" for name in losses.names(CONFIG)]
    expected += [f"test_colors_and_edges_{direction}" for direction in ("a_to_b", "b_to_a")]
    expected += ["test_cycle_a", "test_cycle_b"]
    assert sorted(rows[0]) == sorted(["epoch", *expected])
    assert rows[-1]["training_cycle_a"] < rows[0]["training_cycle_a"]
    assert rows[-1]["test_cycle_b"] < rows[0]["test_cycle_b"]

    events = EventAccumulator(str(trained / "logs"), {"images": 0, "scalars": 0}).Reload()
    assert {"step/cycle_a", "generators/lr/group_0", "discriminators/lr/group_0"} <= set(
        events.Tags()["scalars"]
    )
    assert set(events.Tags()["images"]) == set(GRIDS)
    assert [image.step for image in events.Images(GRIDS[0])] == [1, 2, 3]


def test_a_grid_shows_a_picture_its_translation_and_what_came_back(
    trained: Path, pictures: Path
) -> None:
    # 16 pixels each, in a frame of 2; the first column are the test pictures themselves.
    drawn = trained / "outs" / "pictures" / GRIDS[1] / "0003.png"
    grid = np.array(Image.open(drawn))
    assert grid.shape == (4 * 20, 3 * 20, 3)
    _, first = data.load_test(CONFIG, pictures).first()
    np.testing.assert_array_equal(grid[22:38, 2:18], first[1].permute(1, 2, 0))


def test_both_optimizers_go_down_to_nothing_in_a_straight_line(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []

    def attach(trainer: Engine, optimizer_g: Adam, optimizer_d: Adam, **_: object) -> None:
        both = (optimizer_g, optimizer_d)
        trainer.add_event_handler(
            Phases.DISCRIMINATORS_UPDATED,
            lambda: seen.append([one.param_groups[0]["lr"] for one in both]),
        )

    hook(monkeypatch, attach)
    train.train(CONFIG, run_in(tmp_path, pictures))
    expected = CONFIG.lr * np.interp(range(STEPS), [0, 12, 18], [1, 1, 0])
    np.testing.assert_allclose(seen, np.stack([expected, expected], axis=1))


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


# The epochs have 6 iterations, and the state is kept after 4, 6, 8, 12, ...; the pools are full
# after 2.
@pytest.mark.parametrize("iteration", [3, 11, 15])
def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, pictures: Path, trained: Path, iteration: int
) -> None:
    run = run_in(tmp_path, pictures, resumable=True)
    assert in_processes(1, train_until_killed, CONFIG, run, iteration) == [-signal.SIGKILL]
    assert not (tmp_path / "outs" / "model.pt").exists()
    train.train(CONFIG, run)
    assert outs(tmp_path) == outs(trained)


# Processes and precisions


def train_in_group(rank: int, config: Config, run: recipe.Run, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    metrics = train.train(config, run)
    assert evaluate.evaluate(config, run) == metrics
    with pytest.raises(ValueError, match=r"batch_size.* 3.*2"):
        data.load(replace(config, batch_size=3), run.data)
    dist.destroy_process_group()


def test_two_processes_learn_and_measure_what_one_does(tmp_path: Path, pictures: Path) -> None:
    # Every picture is normalised by itself and the pools are those of the whole batch, so that but
    # for round-off, of which Adam makes more the larger its step, nothing depends on their number.
    config = replace(CONFIG, lr=2e-5)
    runs = {number: run_in(tmp_path / number, pictures) for number in ("one", "two")}
    store = f"file://{tmp_path / 'store'}"
    assert in_processes(2, train_in_group, config, runs["two"], store) == [0, 0]
    train.train(config, runs["one"])
    one, two = (run.load("model.pt") for run in runs.values())
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=1e-6)
    for row, expected in zip(curves(tmp_path / "two"), curves(tmp_path / "one"), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    metrics = json.loads((runs["two"].outputs / "metrics.json").read_text())
    assert evaluate.evaluate(config, runs["two"]) == pytest.approx(metrics, rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_and_keeps_weights_in_float32(
    tmp_path: Path, pictures: Path, trained: Path, precision: Literal["bfloat16", "float16"]
) -> None:
    run = run_in(tmp_path, pictures)
    metrics = train.train(replace(CONFIG, precision=precision), run)
    assert all(math.isfinite(value) for value in metrics.values())
    weights = run.load("model.pt")
    assert {of.dtype for nets in weights.values() for of in nets.values()} == {torch.float32}
    assert curves(tmp_path)[-1]["test_cycle_a"] == pytest.approx(
        curves(trained)[-1]["test_cycle_a"], rel=0.2
    )
    assert outs(tmp_path)["model.pt"] != outs(trained)["model.pt"]


# Evaluation


def test_an_evaluation_writes_equal_bytes_each_time(pictures: Path, trained: Path) -> None:
    run = run_in(trained, pictures)
    names = ("metrics.json", *(f"{name}.png" for name in GRIDS))
    written = []
    for _ in range(2):
        headline = evaluate.evaluate(CONFIG, run)
        written.append({name: (run.outputs / name).read_bytes() for name in names})
    for name in names:
        (run.outputs / name).unlink()  # `trained` is that of a training alone
    assert written[0] == written[1]
    assert json.loads(written[0]["metrics.json"]) == headline
    row = curves(trained)[-1]
    assert headline == {name: row[f"test_{name}"] for name in headline}


def test_evaluating_what_was_not_trained_says_so(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"model\.pt: no such file; train 'tiny' first"):
        evaluate.evaluate(CONFIG, run_in(tmp_path, pictures))


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
    paths = [path for path in entry.get("do", entry)["deps"] if path.endswith(".py")]
    assert sorted(paths) == sorted(f"recipes/cyclegan/{name}.py" for name in found)


@pytest.mark.parametrize("profile", ["tiny", "tiny_ddp"])
def test_the_recorded_tiny_runs_came_far_nearer_to_the_known_answers_than_no_translation_at_all(
    profile: str,
) -> None:
    path = HERE / "runs" / profile / "metrics.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there: a fork has no recorded runs")
    metrics = json.loads(path.read_text())
    for direction in ("a_to_b", "b_to_a"):
        assert metrics[f"distance_{direction}"] < metrics["untranslated_distance"] / 4


def test_a_copy_of_the_recipe_trains_evaluates_and_translates_from_the_command_line(
    tmp_path: Path, pictures: Path
) -> None:
    copy = tmp_path / "my_project"
    copy.mkdir()
    for path in HERE.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    profiles = yaml.safe_load((HERE / "params.yaml").read_text())
    # Without MLflow, which takes longer than all the rest.
    small = {"load_size": 20, "image_size": 16, "width": 4, "paired": False, "mlflow": False}
    tiny = {**profiles["tiny"], **small, "epochs": 1, "decay_epochs": 0}
    (copy / "params.yaml").write_text(yaml.safe_dump({"tiny": tiny}))
    asked = {name: str(value) for name, value in CONFIG.environment.items()}
    out = tmp_path / "out"
    common = ["--profile", "tiny", "--data", str(pictures), "--out", str(out)]
    model = ["--model", str(out / "model.pt"), "--direction", "b_to_a"]
    folders = ["--data", str(pictures / "testB"), "--out", str(tmp_path / "translated")]
    for entry, arguments in (
        ("train", common),
        ("evaluate", common),
        ("translate", [*model, *folders, "--batch-size", "2"]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", f"my_project.{entry}", *arguments],
            cwd=tmp_path,
            env={**os.environ, **asked},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "cycle_a" in json.loads((out / "metrics.json").read_text())
    assert not (out / ".resume").exists()
    assert done.stdout == f"{COUNTS['testB']} pictures in {tmp_path / 'translated'}\n"
    assert "100%" in done.stderr
    assert len(list((tmp_path / "translated").glob("*.png"))) == COUNTS["testB"]
