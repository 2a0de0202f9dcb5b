"""The search: resumed, honest about test images, and told what is wrong."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from . import tune
from .config import Config
from .conftest import CONFIG, HERE, in_processes
from .data import FILES, FOLDER, read

SHORT = replace(CONFIG, epochs=1, save_every=4)
RESULTS = ("trials.tsv", "tune.png", "best.yaml")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The training files alone: a search that asked for the test file would not find it."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(images / FOLDER, folder / FOLDER)
    (folder / FOLDER / "test_batch").unlink()
    return folder


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, training: Path) -> Path:
    out = tmp_path_factory.mktemp("searched")
    tune.search(SHORT, training, out, trials=3)
    return out


def test_the_first_trial_is_the_profile_and_the_best_one_is_named(searched: Path) -> None:
    lines = (searched / "trials.tsv").read_text().splitlines()
    (_, *names), *rows = (line.split("\t") for line in lines)
    assert names == list(tune.SPACE)
    assert [float(value) for value in rows[0][1:]] == [getattr(SHORT, name) for name in names]
    assert len({tuple(row[1:]) for row in rows}) == 3
    accuracy, *values = max(rows, key=lambda row: float(row[0]))
    best = yaml.safe_load((searched / "best.yaml").read_text())["tuned"]
    assert [best[name] for name in names] == [float(value) for value in values]
    assert f"{float(accuracy):.4f}" in (searched / "best.yaml").read_text()
    assert sorted(path.name for path in searched.iterdir()) == sorted(
        [*RESULTS, "lock", "study.db"]
    )


def test_the_last_tenth_of_the_training_images_is_held_out(tmp_path: Path, training: Path) -> None:
    images = read(training, "train")
    tune.hold_out(images, tmp_path)
    rest, held_out = read(tmp_path, "train"), read(tmp_path, "test")
    assert (len(rest), len(held_out)) == (288, 32)
    assert rest.images.equal(images.images[:288])
    assert held_out.images.equal(images.images[288:])
    assert held_out.labels.equal(images.labels[288:])
    assert sorted(FILES["train"]) == sorted(
        path.name for path in (tmp_path / FOLDER).iterdir() if path.name != "test_batch"
    )


def killed(_: int, folder: Path, training: Path) -> None:
    keep, trials = recipe.Run.keep, 0

    def kill(engine: Engine) -> None:
        if trials == 2 and engine.state.iteration == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(run: recipe.Run, trainer: Engine, **objects: object) -> bool:
        nonlocal trials
        trials += 1
        trainer.add_event_handler(Events.ITERATION_COMPLETED, kill)
        return keep(run, trainer, **objects)

    pytest.MonkeyPatch().setattr(recipe.Run, "keep", watched)
    tune.search(SHORT, training, folder, trials=3)


def test_a_killed_search_goes_on_within_its_trial_to_the_same_results(
    tmp_path: Path, training: Path, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_processes(1, killed, tmp_path, training) == [-signal.SIGKILL]
    assert len((tmp_path / "trials.tsv").read_text().splitlines()) == 2
    keep, begun_at = recipe.Run.keep, []

    def watched(run: recipe.Run, trainer: Engine, **objects: object) -> bool:
        resumed = keep(run, trainer, **objects)
        begun_at.append(trainer.state.iteration)
        return resumed

    monkeypatch.setattr(recipe.Run, "keep", watched)
    tune.search(SHORT, training, tmp_path, trials=3)
    assert begun_at == [4, 0]
    for name in RESULTS:
        assert (tmp_path / name).read_bytes() == (searched / name).read_bytes(), name


def test_a_finished_search_is_not_repeated_but_extended(
    tmp_path: Path, training: Path, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(searched, tmp_path / "out")
    assert len(tune.search(SHORT, training, out, trials=2)) == 3
    assert capsys.readouterr().out == ""
    assert len(tune.search(SHORT, training, out, trials=4)) == 4
    assert "trial 4 of 4: accuracy " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight_decay": 0.5}, "weight_decay: the profile's 0.5 is not within 0.0001 to 0.01"),
        ({"processes": 2}, "a search trains in one process"),
        ({"epochs": 2}, "holds a search with other epochs; choose another --out"),
    ],
)
def test_what_a_search_can_not_do_is_told(
    change: dict[str, Any], words: str, training: Path, searched: Path
) -> None:
    before = (searched / "study.db").read_bytes()
    with pytest.raises(recipe.RecipeError, match=words):
        tune.search(replace(SHORT, **change), training, searched, trials=4)
    assert (searched / "study.db").read_bytes() == before


def test_a_folder_is_searched_by_one_process_at_a_time(tmp_path: Path, training: Path) -> None:
    with (
        tune._locked(tmp_path),
        pytest.raises(recipe.RecipeError, match="another process is searching there"),
    ):
        tune.search(SHORT, training, tmp_path, trials=1)


def test_a_damaged_study_is_told_in_one_line(tmp_path: Path, training: Path) -> None:
    (tmp_path / "study.db").write_text("no database")
    with pytest.raises(recipe.RecipeError, match=r"study.db: file is not a database; choose"):
        tune.search(SHORT, training, tmp_path, trials=1)


def test_other_data_are_another_search(searched: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / FOLDER, tmp_path / FOLDER)
    shutil.copy(images / FOLDER / "data_batch_1", tmp_path / FOLDER / "data_batch_2")
    with pytest.raises(recipe.RecipeError, match="holds a search with other data"):
        tune.search(SHORT, tmp_path, searched, trials=4)


def test_the_command_line_searches_and_tells_mistakes_in_one_line(
    tmp_path: Path,
    training: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--profile", "tiny", "--data", str(training), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(recipe, "load", lambda path, profile, config: SHORT)
    assert tune.main([*asked, "--trials", "1"]) == 0
    assert capsys.readouterr().out.endswith((tmp_path / "out" / "best.yaml").read_text())
    assert tune.main([*asked, "--trials", "0"]) == 2
    assert capsys.readouterr().err == "--trials: expected at least 1, got 0\n"
    assert tune.main([*asked[:-1], str(training / FOLDER / "data_batch_1")]) == 2
    assert capsys.readouterr().err.endswith("data_batch_1: not a folder\n")
    assert tune.main([*asked[:3], str(tmp_path), *asked[4:]]) == 2
    assert "no such file; --data takes a folder with" in capsys.readouterr().err

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "train", interrupt)
    assert tune.main([*asked, "--trials", "2"]) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on\n"


def test_every_profile_can_be_searched_from() -> None:
    for profile in recipe.profiles(HERE / "params.yaml"):
        config = recipe.load(HERE / "params.yaml", profile, Config)
        tune._check(replace(config, processes=1, backend=None), trials=1)
