"""Verify: equal bits where they can be demanded, else tolerance; baselines with a commit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cookfire.handlers import recipe
from cookfire.handlers.recipe import _environment, _fingerprint, _inputs, _manifest
from cookfire.handlers.recipe.__main__ import main as command
from cookfire.handlers.recipe._fingerprint import fingerprint


class Toy:
    """A recipe in a git repository whose runs are written by hand."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "recipes" / "toy"
        self.outputs, self.logs = self.folder / "runs" / "tiny", self.folder / "logs" / "tiny"
        self.outputs.mkdir(parents=True)
        (self.folder / "train.py").write_text("LR = 1\n")
        (self.folder / "params.yaml").write_text("tiny: {data: data, lr: 1}\nfull: {data: data}\n")
        (root / ".gitignore").write_text("logs/\n*.pt\ndata\n")
        self.git("init", "-q")
        self.git("config", "user.email", "a@example.org")
        self.git("config", "user.name", "A")
        self.git("config", "commit.gpgsign", "false")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "x")
        return self.git("rev-parse", "HEAD")

    def run(
        self, weights: bytes = b"weights", data: str = "data", lr: float = 1, **changed: str | int
    ) -> None:
        """Do as training and evaluation do: write outs, and note how they came about."""
        (self.folder / "data").write_text(data)
        (self.outputs / "model.pt").write_bytes(weights)
        self.write_metrics(accuracy=0.98, loss=0.1)
        environment = {**_environment.describe(world_size=1), **changed}
        block = {"data": "data", "lr": lr}
        for entry in ("train", "evaluate"):
            _manifest.record(
                self.logs, entry, recipe=self.folder, data=self.root, outputs=self.outputs,
                environment=environment, parameters=block, result={},
                fingerprint=fingerprint(block, self.folder, self.folder / "data", 1),
            )  # fmt: skip

    def write_metrics(self, **metrics: float) -> None:
        (self.outputs / "metrics.json").write_text(json.dumps(metrics))

    def verify(self, *, accept: bool = False) -> int:
        return recipe.verify(self.folder, ["tiny"], accept=accept)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.chdir(tmp_path)
    return Toy(tmp_path)


@pytest.fixture
def accepted(toy: Toy, capsys: pytest.CaptureFixture[str]) -> Toy:
    toy.commit()
    toy.run()
    assert toy.verify(accept=True) == 0
    capsys.readouterr()
    return toy


def test_a_profile_without_a_baseline_is_said_to_have_none_and_is_no_error(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toy.verify() == 0
    assert "no baseline" in capsys.readouterr().out


def test_an_accepted_run_equals_its_baseline(
    accepted: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert accepted.verify() == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][:5] == [
        ["toy", "tiny"],
        ["baseline", "tolerance", "found"],
        ["accuracy", "0.98", "0.02", "0.98", "equal"],
        ["loss", "0.1", "0.01", "0.1", "equal"],
        ["model.pt", "9a129038d9a0", "9a129038d9a0", "equal"],
    ]


def test_the_baseline_names_commit_date_environment_and_survives_reading(accepted: Toy) -> None:
    report = recipe.check(accepted.folder, "tiny")
    assert report.baseline is not None
    assert report.baseline.commit == accepted.git("rev-parse", "HEAD")
    assert report.baseline.environment == _environment.describe(world_size=1)
    assert next(iter(report.baseline.environment)) == "torch"
    assert report.headline == "accuracy 0.98"


def test_other_bits_in_the_same_environment_differ_even_within_tolerance(
    accepted: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    accepted.run(weights=b"others")
    assert accepted.verify() == 1
    assert "differs: its environment is the baseline's" in capsys.readouterr().out


@pytest.fixture
def reason(accepted: Toy) -> Callable[[], str]:
    """What verify says, after the demand of equal bits, about the outs that are there."""

    def say() -> str:
        report = recipe.check(accepted.folder, "tiny")
        assert report.verdict == "differs"
        return report.text.partition("equal bits are demanded, ")[2]

    return say


def test_where_bits_differ_the_reason_is_named(accepted: Toy, reason: Callable[[], str]) -> None:
    accepted.run(weights=b"others")
    assert reason() == "and parameters, data and code are the baseline's too"
    accepted.run(weights=b"others", lr=0.05)
    assert reason() == "but parameters differ: lr 0.05, baseline 1"
    accepted.run(weights=b"others", data="others")
    assert reason().startswith("but data differ: sha256 ")
    (accepted.folder / "train.py").write_text("LR = 2\n")
    accepted.run(weights=b"others", lr=0.05)
    assert reason() == "but parameters differ: lr 0.05, baseline 1; code differs too"
    accepted.run(weights=b"others")
    assert reason() == "but code differs: recipes/toy/train.py"
    # As it ran it is not here any more, so that git could not name the files.
    (accepted.folder / "train.py").write_text("LR = 3\n")
    assert reason() == "but code differs: the recipe's own files"
    # All of it is beside the point where bits are equal.
    accepted.run(lr=0.05)
    assert recipe.check(accepted.folder, "tiny").text == "equal bits"


def test_changed_code_of_the_core_is_named_or_said_where_git_does_not_hold_it(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, installed = toy.root / "core", tmp_path.parent / f"{tmp_path.name}-installed"
    for folder in (core, installed):
        folder.mkdir()
        (folder / "loop.py").write_text("x = 1\n")
    for folder, named in ((core, "core/loop.py"), (installed, "the cookfire packages")):
        for module in (_fingerprint, _inputs):
            monkeypatch.setattr(module, "core_folders", lambda folder=folder: [folder])
        toy.commit()
        toy.run()
        assert toy.verify(accept=True) == 0
        (folder / "loop.py").write_text("x = 2\n")
        toy.run(weights=b"others")
        assert recipe.check(toy.folder, "tiny").text.endswith(f", but code differs: {named}")


def test_the_reason_is_named_beside_another_environment_and_without_a_record_of_the_run(
    accepted: Toy,
) -> None:
    accepted.run(weights=b"others", lr=0.05, threads=99)
    said = recipe.check(accepted.folder, "tiny").text
    assert said.endswith("in the baseline; parameters differ: lr 0.05, baseline 1")
    (accepted.logs / "manifest.json").unlink()
    params = accepted.folder / "params.yaml"
    params.write_text("tiny: {data: nowhere, seed: 2}\n")
    said = recipe.check(accepted.folder, "tiny").text
    assert "this machine has no record of this run" in said
    assert said.endswith(
        'but parameters differ: data "nowhere", baseline "data"; lr unset, baseline 1; '
        "seed 2, baseline unset"
    )


def test_in_another_environment_the_tolerance_decides_and_the_difference_is_said(
    accepted: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    accepted.run(weights=b"others", threads=99, processor="abacus")
    accepted.write_metrics(accuracy=0.97, loss=0.1)
    assert accepted.verify() == 0
    said = capsys.readouterr().out
    assert "within tolerance: equal bits are not demanded, since threads is 99 here and" in said
    accepted.write_metrics(accuracy=0.95, loss=0.1)
    assert accepted.verify() == 1
    accepted.write_metrics(accuracy=0.98)
    assert accepted.verify() == 1
    assert "missing" in capsys.readouterr().out


def test_outs_from_a_cache_are_compared_by_this_machines_environment(
    accepted: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (accepted.logs / "manifest.json").unlink()
    assert accepted.verify() == 0
    (accepted.outputs / "model.pt").write_bytes(b"others")
    assert accepted.verify() == 1
    assert "this machine has no record of this run" in capsys.readouterr().out
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert accepted.verify() == 0
    assert "since threads is 7 here" in capsys.readouterr().out


def test_the_profiles_own_environment_counts_where_no_manifest_speaks(accepted: Toy) -> None:
    (accepted.logs / "manifest.json").unlink()
    (accepted.outputs / "model.pt").write_bytes(b"others")
    params = accepted.folder / "params.yaml"
    params.write_text("tiny: {data: data, processes: 2}\n")
    assert "world_size is 2 here" in recipe.check(accepted.folder, "tiny").text
    params.write_text("tiny: {data: data, environment: {MKL_CBWR: COMPATIBLE}}\n")
    assert "mkl_cbwr is COMPATIBLE here" in recipe.check(accepted.folder, "tiny").text


def test_a_manifest_of_another_run_does_not_speak_for_these_outs(accepted: Toy) -> None:
    accepted.run(weights=b"others", torch="0.1")
    (accepted.outputs / "model.pt").write_bytes(b"a third")
    assert "is of other weights" in recipe.check(accepted.folder, "tiny").text
    (accepted.outputs / "metrics.json").write_text('{"loss": 0.1, "accuracy": 0.98}')
    assert recipe.check(accepted.folder, "tiny").verdict == "differs"


def test_what_has_not_run_or_holds_no_metrics_cannot_be_told(
    accepted: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = accepted.outputs / "metrics.json"
    for text in ("", "[]", "[" * 9999, '{"accuracy": "high"}', '{"accuracy": true}'):
        metrics.write_text(text)
        assert accepted.verify() == 2
    metrics.unlink()
    assert accepted.verify() == 2
    assert "can't say: recipes/toy/runs/tiny/metrics.json is not here" in capsys.readouterr().out


def test_a_difference_outweighs_what_cannot_be_told(accepted: Toy) -> None:
    baseline = (accepted.folder / "baseline.yaml").read_text()
    block = baseline[baseline.index("tiny:") :]
    (accepted.folder / "baseline.yaml").write_text(baseline + block.replace("tiny:", "full:"))
    assert recipe.verify(accepted.folder) == 2
    accepted.run(weights=b"others")
    assert recipe.verify(accepted.folder) == 1


def test_tolerances_and_order_of_the_metrics_survive_a_new_baseline(accepted: Toy) -> None:
    path = accepted.folder / "baseline.yaml"
    text = path.read_text().replace("tolerance: 0.02", "tolerance: 0.005")
    accuracy = text[text.index("    accuracy:") : text.index("    loss:")]
    path.write_text(text.replace(accuracy, "").replace("  sha256:", f"{accuracy}  sha256:"))
    accepted.run(weights=b"others")
    assert accepted.verify(accept=True) == 0
    assert recipe.check(accepted.folder, "tiny").headline == "loss 0.1"
    assert "tolerance: 0.005" in path.read_text()


def refusal(toy: Toy) -> str:
    with pytest.raises(recipe.RecipeError) as caught:
        toy.verify(accept=True)
    assert not (toy.folder / "baseline.yaml").exists()
    return str(caught.value)


def test_only_a_finished_run_of_this_machine_can_be_accepted(toy: Toy) -> None:
    toy.commit()
    assert "no finished run of this machine" in refusal(toy)
    toy.run()
    (toy.outputs / "model.pt").write_bytes(b"others")
    assert "no finished run of this machine" in refusal(toy)


def test_an_evaluation_on_other_data_is_not_accepted(toy: Toy) -> None:
    toy.commit()
    toy.run(data="others")
    trained = json.loads((toy.logs / "manifest.json").read_text())["train"]
    toy.run()
    notes = {**json.loads((toy.logs / "manifest.json").read_text()), "train": trained}
    (toy.logs / "manifest.json").write_text(json.dumps(notes))
    assert "metrics.json: of other data; evaluate again" in refusal(toy)


def test_accepting_needs_a_tree_that_is_clean_but_for_what_runs_write(toy: Toy) -> None:
    toy.run()
    assert "not in a git commit" in refusal(toy)
    toy.commit()
    toy.run()
    (toy.root / "note.txt").write_text("x")
    assert "not in a commit yet: note.txt" in refusal(toy)
    (toy.root / "note.txt").unlink()
    (toy.folder / "dvc.lock").write_text("x")
    (toy.outputs / "curves.tsv").write_text("x")
    toy.write_metrics(accuracy=0.5)
    toy.run()
    assert toy.verify(accept=True) == 0


def test_accepting_needs_a_commit_that_holds_what_ran(toy: Toy) -> None:
    first = toy.commit()
    toy.run()
    (toy.folder / "train.py").write_text("LR = 2\n")
    toy.commit()
    # The tree was clean when it ran, so that the commit of then holds it.
    assert toy.verify(accept=True) == 0
    baseline = recipe.check(toy.folder, "tiny").baseline
    assert baseline is not None
    assert baseline.commit == first


def test_a_run_of_uncommitted_code_is_accepted_only_if_that_code_was_committed(toy: Toy) -> None:
    toy.commit()
    (toy.folder / "train.py").write_text("LR = 3\n")
    toy.run()
    (toy.folder / "train.py").write_text("LR = 4\n")
    toy.commit()
    assert "since then: file toy/train.py changed" in refusal(toy)
    (toy.folder / "train.py").write_text("LR = 3\n")
    toy.commit()
    assert toy.verify(accept=True) == 0


def test_the_command_line_gives_the_exit_codes_and_one_line_for_a_mistake(
    accepted: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(accepted.folder)
    assert command(["verify"]) == 0
    assert command(["verify", ".", "--profile", "tiny"]) == 0
    capsys.readouterr()
    assert command(["verify", "--profile", "tinny"]) == 2
    said = capsys.readouterr()
    assert said.err == (
        "params.yaml: no profile 'tinny'; did you mean 'tiny'? (there are: tiny, full)\n"
    )
    accepted.run(weights=b"others")
    assert command(["verify"]) == 1
    (accepted.folder / "baseline.yaml").write_text("tiny: {metrics: 3}")
    assert command(["verify"]) == 2
    assert capsys.readouterr().err.startswith("baseline.yaml: tiny.")
