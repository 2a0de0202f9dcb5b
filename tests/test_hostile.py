"""Data and weights of a stranger: each recipe refuses what could do harm, in one line, by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cookfire.handlers import recipe
from tests import fuzzing
from tests.data.test_hostile import huge_jpeg, huge_png
from tests.fuzzing import Subject
from tests.handlers.hostile import write_hostile

PICTURES = {
    "data/testA": "cyclegan",
    "data/VOCdevkit/VOC2012/JPEGImages": "voc_segmentation",
    "data/VOCdevkit/VOC2012/SegmentationClass": "voc_segmentation",
}
"""Folders of pictures, and whose they are."""
HUGE = {"png": huge_png, "jpeg": huge_jpeg}


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    made: dict[str, Subject] = {}

    def get(name: str) -> Subject:
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "recipe"
            made[name] = fuzzing.prepare(name, folder, train=False)
        return made[name]

    return get


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The recipe with trained weights."""
    return fuzzing.prepare("imagenet", tmp_path_factory.mktemp("imagenet") / "recipe")


def refused(subject: Subject, run: Callable[[Subject], tuple[int, str]], *said: str) -> None:
    """Check that a run ends with code 2 and a line with these words, and writes nothing."""
    before = fuzzing.digest(subject.folder, "")
    code, text = run(subject)
    assert code == 2, text
    line = text.splitlines()[-1]
    assert all(word in line for word in said), line
    assert "Traceback" not in text
    assert fuzzing.digest(subject.folder, "") == before


@pytest.mark.parametrize("name", fuzzing.MAKERS)
@pytest.mark.parametrize("target", ["secret", "..", "loop", "pipe"])
def test_what_leads_out_of_a_data_set_is_refused(
    name: str, target: str, subjects: Callable[[str], Subject], tmp_path: Path
) -> None:
    subject = subjects(name).fresh(tmp_path / "recipe")
    (tmp_path / "secret").write_text("not the data set's")
    inside = next(path for path in (subject.folder / "data").rglob("*") if path.is_file())
    odd = inside.with_name("loop")
    if target == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(tmp_path / "secret" if target == "secret" else target)
    code, text = subject.read_data()
    assert code == 2
    line = text.splitlines()[-1]
    assert f"{odd}: " in line
    assert "neither a file nor" in line if target == "pipe" else "a link to" in line


@pytest.mark.parametrize("name", fuzzing.MAKERS)
@pytest.mark.parametrize("kind", ["zip", "old format", "2", "nested zip"])
def test_a_pickle_in_weights_is_refused_and_not_run(
    name: str, kind: str, subjects: Callable[[str], Subject], tmp_path: Path
) -> None:
    subject = subjects(name).fresh(tmp_path / "recipe")
    weights = subject.folder / "runs/tiny"
    weights.mkdir(parents=True, exist_ok=True)
    for file in ("model.pt", "best.pt", "ema.pt"):
        write_hostile(kind, weights / file, tmp_path / "hacked")
    refused(subject, Subject.evaluate, "/runs/tiny/", "refused, and nothing in it was run")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("place", PICTURES)
@pytest.mark.parametrize("kind", HUGE)
def test_a_picture_of_gigapixels_is_refused_by_its_name(
    place: str, kind: str, subjects: Callable[[str], Subject], tmp_path: Path
) -> None:
    subject = subjects(PICTURES[place]).fresh(tmp_path / "recipe")
    for picture in subject.folder.glob(f"{place}/*"):
        picture.write_bytes(HUGE[kind]())
    refused(subject, Subject.read_data, f"{subject.folder / place}/", "too large to be")


@pytest.mark.parametrize("kind", HUGE)
def test_in_imagenet_s_recipe_it_counts_as_corrupt_and_is_named(
    kind: str, imagenet: Subject, tmp_path: Path
) -> None:
    subject = imagenet.fresh(tmp_path / "recipe")
    huge = next((subject.folder / "data/val").glob("*/*"))
    huge.write_bytes(HUGE[kind]())
    code, text = subject.evaluate()
    name = huge.relative_to(subject.folder / "data").as_posix()
    assert (code, f"skipped {name}: Image size" in text) == (0, True), text
    assert json.loads((subject.folder / "runs/tiny/metrics.json").read_text())["corrupt"] == 1
    loaders = subject.module("data").load(subject.config(), subject.folder / "data")
    with pytest.raises(recipe.RecipeError, match=f"^1 corrupt image: {name}; replace them"):
        subject.module("corrupt").refuse_corrupt(loaders.sources)  # where it is to be fatal
