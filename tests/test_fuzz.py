"""Damaged files of every kind: a clear line and exit code 2, or a right result; nothing else."""

from __future__ import annotations

import random
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cookfire.handlers import recipe
from tests import fuzzing
from tests.fuzzing import Subject

CASES = {"params": 16, "baseline": 12, "data": 16, "weights": 8, "states": 8}
INPUTS = ("params.yaml", "baseline.yaml", "data", "runs/tiny/model.pt", "evaluate.py")


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    made: dict[str, Subject] = {}

    def get(name: str) -> Subject:
        if name not in made:
            made[name] = fuzzing.prepare(name, tmp_path_factory.mktemp(name) / "recipe")
        return made[name]

    return get


def damage_params(chance: random.Random, subject: Subject) -> None:
    path = subject.folder / "params.yaml"
    path.write_bytes(fuzzing.damaged_yaml(chance, path.read_text()))


def damage_baseline(chance: random.Random, subject: Subject) -> None:
    path = subject.folder / "baseline.yaml"
    path.write_bytes(fuzzing.damaged_yaml(chance, path.read_text()))


def damage_data(chance: random.Random, subject: Subject) -> None:
    files = sorted(path for path in (subject.folder / "data").rglob("*") if path.is_file())
    for path in chance.sample(files, min(len(files), chance.choice([1, 1, 3]))):
        path.write_bytes(fuzzing.damaged_bytes(chance, path.read_bytes()))


def damage_weights(chance: random.Random, subject: Subject) -> None:
    for path in sorted((subject.folder / "runs/tiny").glob("*.pt")):
        fuzzing.damage_checkpoint(chance, path)


def damage_states(chance: random.Random, subject: Subject) -> bool:
    paths = sorted((subject.folder / "states").glob("*.pt"))
    chosen = chance.sample(paths, chance.choice([1, len(paths)]))
    forged = [fuzzing.damage_checkpoint(chance, path) for path in chosen]
    return any(forged)


def read_baseline(subject: Subject) -> tuple[int, str]:
    with fuzzing.limits():
        try:
            return max(0, recipe.check(subject.folder, "tiny").code - 2), ""
        except recipe.RecipeError as error:
            return 2, str(error)


WAYS = {
    "params": (damage_params, Subject.read_data),
    "baseline": (damage_baseline, read_baseline),
    "data": (damage_data, Subject.read_data),
    "weights": (damage_weights, Subject.evaluate),
    "states": (damage_states, Subject.go_on),
}


@pytest.mark.filterwarnings("ignore")  # Pillow's and numpy's opinions of damaged files
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", fuzzing.MAKERS)
def test_a_damaged_file_ends_in_one_line_or_a_right_result(
    name: str, kind: str, subjects: Callable[[str], Subject], tmp_path: Path
) -> None:
    damage, run = WAYS[kind]
    wrong = []
    for number in range(CASES[kind]):
        seed = zlib.crc32(f"{name} {kind} {number}".encode())
        subject = subjects(name).fresh(tmp_path / str(number))
        forged = damage(random.Random(seed), subject)
        before = fuzzing.digest(subject.folder, *INPUTS)
        try:
            code, said = run(subject)
        except BaseException as error:  # a hang too
            last = traceback.extract_tb(error.__traceback__)[-1]
            wrong.append(f"{number}: {type(error).__name__}: {error!s:.150} ({last})")
            continue
        lines = [line for line in said.splitlines() if line.strip()]
        if code not in (0, 2) or (code == 2 and not lines) or "Traceback" in said:
            wrong.append(f"{number}: {code}, {said}")
        if fuzzing.digest(subject.folder, *INPUTS) != before:
            wrong.append(f"{number}: changed a file that it was given")
        if kind == "states" and code == 0 and not forged:
            ends = [
                (subject.folder / at / "model.pt").read_bytes() for at in ("again", "runs/tiny")
            ]
            if ends[0] != ends[1]:
                wrong.append(f"{number}: ended with other weights")
        assert not list(subject.folder.rglob("hacked"))
    assert not wrong, "\n".join(wrong)
