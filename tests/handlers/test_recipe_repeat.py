"""`repeat`: several seeds of a profile, their spread, and the table in the card."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cookfire.handlers import recipe
from cookfire.handlers.recipe import _repeat
from cookfire.handlers.recipe.__main__ import main as command
from cookfire.handlers.recipe._spread import spread, student_t
from tests.handlers.test_recipe_resume import make_toy

SECONDS = 60


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40).filter(lambda v: max(v) - min(v) > 1e-3)
)
def test_the_spread_is_that_of_scipy(values: list[float]) -> None:
    found = spread(values)
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=stats.tmean(values), scale=stats.sem(values)
    )
    assert found.runs == len(values)
    assert found.mean == pytest.approx(stats.tmean(values), rel=1e-12, abs=1e-9)
    assert found.std == pytest.approx(stats.tstd(values), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-8, abs=1e-8)


def test_students_t_is_scipys_at_any_level_and_freedom() -> None:
    for freedom in (1, 2, 3, 4, 5, 8, 29, 30, 200):
        for level in (0.5, 0.9, 0.95, 0.999):
            expected = stats.t.ppf((1 + level) / 2, freedom)
            assert student_t(level, freedom) == pytest.approx(expected, rel=1e-10)


def test_equal_values_have_no_spread_and_a_metric_that_a_run_lacks_is_left_out() -> None:
    found = recipe.spreads([{"a": 2.0, "b": 1.0}, {"a": 2.0}])
    assert list(found) == ["a"]
    assert (found["a"].mean, found["a"].std, found["a"].low, found["a"].high) == (2, 0, 2, 2)


class Commands:
    """Stands for the processes: writes what training and evaluation would, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.fails = ""
        monkeypatch.setattr(_repeat, "run_python", self)

    def __call__(self, arguments: list[str], folder: Path) -> int:
        options = dict(zip(arguments[2::2], arguments[3::2], strict=True))
        entry, seed = arguments[1].rpartition(".")[2], int(options["--seed"])
        if f"{entry} {seed}" == self.fails:
            return 9
        self.ran.append(f"{entry} {seed}")
        recipe_folder, out = folder / "toy", Path(options["--out"])
        out.mkdir(parents=True, exist_ok=True)
        name = "model.pt" if entry == "train" else "metrics.json"
        text = "weights" if entry == "train" else json.dumps({"accuracy": 0.9 + seed / 100})
        (out / name).write_text(text)
        block = {"data": "../data", "seed": 3, "lr": 0.05, "epochs": 4, "save_every": 3}
        prints = _repeat.fingerprint({**block, "seed": seed}, recipe_folder, folder / "data", 1)
        _repeat._manifest.record(
            out / "logs", entry, recipe=recipe_folder, data=folder, outputs=out, environment={},
            fingerprint=prints, parameters={}, result={},
        )  # fmt: skip
        return 0

    def since(self) -> list[str]:
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_toy(tmp_path)
    (tmp_path / "toy" / "runs").mkdir()
    return tmp_path / "toy"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


def test_each_seed_runs_once_and_what_was_interrupted_goes_on(
    toy: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.fails = "evaluate 1"
    with pytest.raises(recipe.RecipeError, match="seed 1: .*toy.evaluate.* ended with exit code 9"):
        recipe.repeat(toy, "tiny", 3)
    assert commands.since() == ["train 0", "evaluate 0", "train 1"]
    commands.fails = ""
    found = recipe.repeat(toy, "tiny", 3)
    assert commands.since() == ["evaluate 1", "train 2", "evaluate 2"]
    assert found["accuracy"].mean == pytest.approx(0.91)
    assert [line.split() for line in capsys.readouterr().out.splitlines()][-3:] == [
        ["toy", "tiny,", "seeds", "0", "to", "2"],
        ["mean", "std", "95", "%", "interval", "of", "the", "mean"],
        ["accuracy", "0.91", "0.01", "0.885159", "to", "0.934841"],
    ]
    summary = json.loads((toy / "logs" / "tiny.repeat" / "summary.json").read_text())
    assert summary["accuracy"]["runs"] == 3
    # More seeds: only the new ones run.
    recipe.repeat(toy, "tiny", 4)
    assert commands.since() == ["train 3", "evaluate 3"]
    assert list((toy / "runs").iterdir()) == []


def test_a_seed_runs_again_where_code_or_outs_have_changed(toy: Path, commands: Commands) -> None:
    recipe.repeat(toy, "tiny", 2)
    commands.since()
    (toy / "logs" / "tiny.repeat" / "seed_1" / "model.pt").write_text("others")
    recipe.repeat(toy, "tiny", 2)
    assert commands.since() == ["train 1"]  # to the weights that were evaluated
    (toy / "config.py").write_text((toy / "config.py").read_text() + "\n")
    recipe.repeat(toy, "tiny", 2)
    assert commands.since() == ["train 0", "evaluate 0", "train 1", "evaluate 1"]


def test_the_card_gets_a_table_that_is_replaced_by_the_next(toy: Path, commands: Commands) -> None:
    card = toy / "README.md"
    card.write_text("# Toy\n\nWhat it is.\n")
    recipe.repeat(toy, "tiny", 2, card=True)
    text = card.read_text()
    assert text.startswith("# Toy\n\nWhat it is.\n\n<!-- repeat tiny -->\n`tiny`, mean over the ")
    assert (
        "| accuracy | 0.905 | 0.0071 | 0.841469 to 0.968531 |\n<!-- end of repeat tiny -->" in text
    )
    card.write_text(f"{text}\nThe end.\n")
    recipe.repeat(toy, "tiny", 3, card=True)
    text = card.read_text()
    assert text.count("<!-- repeat tiny -->") == text.count("| accuracy |") == 1
    assert "| accuracy | 0.91 | 0.01 |" in text
    assert text.endswith("-->\n\nThe end.\n")
    card.write_text("<!-- repeat tiny -->")
    with pytest.raises(recipe.RecipeError, match="is not closed by <!-- end of repeat tiny -->"):
        recipe.repeat(toy, "tiny", 3, card=True)


def test_what_cannot_be_repeated_is_one_line(
    toy: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, line in (
        (["--profile", "tiny", "--runs", "1"],
         "--runs: expected at least 2, which have a spread, got 1"),
        ([], "toy/params.yaml: no profile 'full' (there are: tiny, two, pinned)"),
        (["--profile", "odd"], "toy/params.yaml: odd.processes: expected int, got 'two' (str)"),
    ):  # fmt: skip
        if "odd" in arguments:
            with (toy / "params.yaml").open("a") as file:
                file.write("odd: {data: x, processes: two}\n")
        assert command(["repeat", "toy", *arguments]) == 2
        assert capsys.readouterr().err == f"{line}\n"


def test_real_runs_equal_a_direct_training_and_a_killed_repeat_goes_on(
    toy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repeat = [sys.executable, "-m", "cookfire.handlers.recipe", "repeat", "toy",
              "--profile", "tiny", "--runs", "2"]  # fmt: skip
    place = toy / "logs" / "tiny.repeat"
    process = subprocess.Popen(repeat, cwd=toy.parent)
    end = time.monotonic() + SECONDS
    while not (place / "seed_0" / "model.pt").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(repeat, cwd=toy.parent, check=True)
    assert capfd.readouterr().out.count("seed 0: train") == 1
    weights = [torch.load(place / f"seed_{seed}" / "model.pt") for seed in (0, 1)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    train = [sys.executable, "-m", "toy.train", "--profile", "tiny", "--out", "direct"]
    subprocess.run([*train, "--seed", "1"], cwd=toy.parent, check=True)
    direct, repeated = toy.parent / "direct" / "model.pt", place / "seed_1" / "model.pt"
    assert direct.read_bytes() == repeated.read_bytes()
    done = subprocess.run([*train[:-2], "--seed", "1"], cwd=toy.parent, capture_output=True)
    assert (done.returncode, done.stderr[:23]) == (2, b"--seed needs --out DIR ")
