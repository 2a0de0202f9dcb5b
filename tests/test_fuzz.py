"""Damaged files of every kind: a clear line and exit code 2, or a right result; nothing else."""

from __future__ import annotations

import contextlib
import json
import math
import random
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests import fuzzing
from tests.fuzzing import Subject

CASES = {"params": 12, "baseline": 12, "records": 8, "data": 12, "weights": 8, "states": 8}
INPUTS = ("params.yaml", "baseline.yaml", "data", "runs/tiny/model.pt")
READ = ("environment", "fingerprint", "outputs", "parameters", "versions")
FEWEST = {"baseline": 3, "records": 1}
MANIFEST = "logs/tiny/manifest.json"
METRICS, WEIGHTS = "runs/tiny/metrics.json", "runs/tiny/model.pt"


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
    if chance.random() < 0.5:
        path.write_bytes(fuzzing.damaged_yaml(chance, path.read_text()))
        return
    blocks = yaml.safe_load(path.read_text())
    metric = chance.choice(list(blocks["tiny"]["metrics"].values()))
    metric[chance.choice(["value", "tolerance"])] = chance.choice([0, 0.5, -1e308, 2**63, math.inf])
    path.write_text(yaml.safe_dump(blocks))


def damage_records(chance: random.Random, subject: Subject) -> None:
    path = subject.folder / chance.choice([MANIFEST, MANIFEST, METRICS])
    tree = json.loads(path.read_text())
    if path.name == "manifest.json":  # without what depends on the call of pytest
        tree = {entry: {key: notes[key] for key in READ} for entry, notes in tree.items()}
        for notes in tree.values():
            notes["fingerprint"] = {"data": notes["fingerprint"]["data"], "world size": "1"}
    for _ in range(chance.choice([1, 1, 3])):
        fuzzing.change(chance, tree)
    with contextlib.suppress(ValueError):  # a number of thousands of digits
        path.write_text(json.dumps(tree))


def damage_data(chance: random.Random, subject: Subject) -> None:
    files = sorted(path for path in (subject.folder / "data").rglob("*") if path.is_file())
    for path in chance.sample(files, min(len(files), chance.choice([1, 1, 3]))):
        path.write_bytes(fuzzing.damaged_bytes(chance, path.read_bytes()))


def damage_weights(chance: random.Random, subject: Subject) -> bool:
    forged = [
        fuzzing.damage_checkpoint(chance, path)
        for path in sorted((subject.folder / "runs/tiny").glob("*.pt"))
    ]
    return any(forged)


def damage_states(chance: random.Random, subject: Subject) -> bool:
    paths = sorted((subject.folder / "states").glob("*.pt"))
    chosen = chance.sample(paths, chance.choice([1, len(paths)]))
    forged = [fuzzing.damage_checkpoint(chance, path) for path in chosen]
    return any(forged)


WAYS = {
    "params": (damage_params, Subject.read_data),
    "baseline": (damage_baseline, Subject.verify),
    "records": (damage_records, Subject.verify),
    "data": (damage_data, Subject.read_data),
    "weights": (damage_weights, Subject.evaluate),
    "states": (damage_states, Subject.go_on),
}


def verdict_on(subject: Subject, whole: Subject) -> tuple[str, ...]:
    """Return how verify's verdict may begin where it took a damaged baseline for one."""
    old, new = (
        yaml.safe_load((each.folder / "baseline.yaml").read_text()) or {}
        for each in (whole, subject)
    )
    if "tiny" not in new:
        return ("no baseline",)
    claims, claimed = old["tiny"], new["tiny"]
    known = {name: metric["value"] for name, metric in claims["metrics"].items()}
    same = claimed["sha256"] == claims["sha256"] and all(
        metric["value"] == known.get(name) for name, metric in claimed["metrics"].items()
    )
    return ("equal bits",) if same else ("differs", "within tolerance")


def are_same_metrics(subject: Subject, whole: Subject) -> bool:
    old, new = (json.loads(content(each, METRICS)) for each in (whole, subject))
    return all(new.get(name) == value for name, value in old.items())


def mistake(kind: str, said: str, subject: Subject, whole: Subject) -> str | None:
    """Say what is wrong with the result of a run that was not refused, None if nothing is."""
    if kind == "baseline" and not said.startswith(expected := verdict_on(subject, whole)):
        return f"said {said!r}, not {expected}"
    if kind == "records" and said.startswith("equal") is not are_same_metrics(subject, whole):
        return f"said {said!r} of {content(subject, METRICS)!r}"
    if kind == "weights" and content(subject, METRICS) != content(whole, METRICS):
        return "measured other weights"
    if kind == "states" and content(subject, "again/model.pt") != content(whole, WEIGHTS):
        return "ended with other weights"
    return None


def content(subject: Subject, path: str) -> bytes:
    return (subject.folder / path).read_bytes()


@pytest.mark.filterwarnings("ignore")  # Pillow's and numpy's opinions of damaged files
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", fuzzing.MAKERS)
def test_a_damaged_file_ends_in_one_line_or_a_right_result(
    name: str, kind: str, subjects: Callable[[str], Subject], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    damage, run = WAYS[kind]
    whole = subjects(name)
    control = whole.fresh(tmp_path / "control")
    code, said = run(control)
    assert (code, mistake(kind, said, control, whole)) == (0, None), said
    wrong, taken = [], 0
    for number in range(CASES[kind]):
        seed = zlib.crc32(f"{name} {kind} {number}".encode())
        subject = whole.fresh(tmp_path / str(number))
        monkeypatch.chdir(subject.folder)
        forged = damage(random.Random(seed), subject)
        before = fuzzing.digest(subject.folder, *INPUTS)
        try:
            code, said = run(subject)
        except BaseException as error:  # a hang too
            last = traceback.extract_tb(error.__traceback__)[-1]
            wrong.append(f"{number}: {type(error).__name__}: {error!s:.150} ({last})")
            continue
        taken += code != 2
        lines = [line for line in said.splitlines() if line.strip()]
        known = (0, 1, 2) if run is Subject.verify else (0, 2)
        if code not in known or (code == 2 and not lines) or "Traceback" in said:
            wrong.append(f"{number}: {code}, {said}")
        if fuzzing.digest(subject.folder, *INPUTS) != before:
            wrong.append(f"{number}: changed a file that it was given")
        if code != 2 and not forged and (text := mistake(kind, said, subject, whole)):
            wrong.append(f"{number}: {text}")
        assert not list(subject.folder.rglob("hacked"))
    assert not wrong, "\n".join(wrong)
    # Else nothing is known of what comes of a file that can be read.
    assert taken >= FEWEST.get(kind, 0)


@pytest.mark.parametrize("name", fuzzing.MAKERS)
def test_what_is_not_damaged_is_equal_to_its_baseline_and_with_other_numbers_there_it_differs(
    name: str, subjects: Callable[[str], Subject], tmp_path: Path
) -> None:
    subject = subjects(name).fresh(tmp_path / "recipe")
    assert subject.verify() == (0, "equal bits")
    path = subject.folder / "baseline.yaml"
    blocks = yaml.safe_load(path.read_text())
    metrics = blocks["tiny"]["metrics"]
    for holder, key, other in [
        *((metric, "value", math.nextafter(metric["value"], 9e9)) for metric in metrics.values()),
        (blocks["tiny"], "sha256", "0" * 64),
    ]:
        before, holder[key] = holder[key], other
        path.write_text(yaml.safe_dump(blocks, sort_keys=False))
        code, said = subject.verify()
        assert (code, said.partition(":")[0]) == (1, "differs")
        holder[key] = before
