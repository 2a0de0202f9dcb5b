"""Odd values in a profile, a manifest and metrics: one line from every command that reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cookfire.handlers.recipe.__main__ import main as command
from tests import fuzzing
from tests.fuzzing import Subject


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return fuzzing.prepare("mnist", tmp_path_factory.mktemp("mnist") / "recipe")


@pytest.fixture
def subject(made: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    fresh = made.fresh(tmp_path / "recipe")
    monkeypatch.chdir(fresh.folder)
    return fresh


def said_by(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = command([*arguments, "--profile", "tiny"])
    return code, capsys.readouterr().err


ODD: dict[str, tuple[dict[str, object], str]] = {
    "no mapping": ({"environment": 3}, "tiny.environment: expected a mapping, got 3"),
    "a list": ({"environment": ["A"]}, "tiny.environment: expected a mapping, got ['A']"),
    "a nested list": ({"environment": {"A": [1]}}, "tiny.environment.A: expected str or int"),
    "no number": ({"processes": "two"}, "tiny.processes: expected int, got 'two'"),
    "nobody": ({"processes": 0}, "tiny.processes: expected at least 1, got 0"),
    "half of a character": ({"data": "\ud800"}, r"'\ud800' holds half of a character"),
    "half of one below": ({"environment": {"A": "\ud800"}}, "holds half of a character"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_parameter_is_one_line_from_each_command(
    kind: str, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, expected = ODD[kind]
    subject.set({**subject.block(), **odd})
    # Without it verify asks the parameters for the environment.
    (subject.folder / "logs/tiny/manifest.json").unlink()
    verify, repeat = ["verify"], ["repeat", "--runs", "2"]
    for code, said in (subject.read_data(), said_by(verify, capsys), said_by(repeat, capsys)):
        line = said.strip()
        assert (code, line.startswith("params.yaml"), expected in line) == (2, True, True), said
        assert "\n" not in line


@pytest.mark.parametrize("value", ["a" * 200_000, 2**31, 10**300], ids=["long", "2**31", "huge"])
def test_what_the_system_or_torch_does_not_take_of_an_environment_is_one_line(
    value: str | int, subject: Subject
) -> None:
    block = subject.block()
    block["environment"]["OMP_NUM_THREADS"] = value
    subject.set(block)
    code, said = subject.read_data()
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("params.yaml: tiny.environment")


@pytest.mark.parametrize(
    "text", ['{"accuracy": 1%s}' % ("0" * 400), '{"accuracy": 1e999', "\ud800"]
)
def test_numbers_that_are_none_cannot_be_compared(text: str, subject: Subject) -> None:
    path = subject.folder / "runs/tiny/metrics.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    assert subject.verify() == (2, "can't say: runs/tiny/metrics.json holds no metrics")


def lacking(key: str) -> Callable[[dict[str, object]], object]:
    return lambda notes: {name: value for name, value in notes.items() if name != key}


@pytest.mark.parametrize(
    "change",
    [
        *map(lacking, ("outputs", "environment", "fingerprint", "parameters")),
        lambda notes: [*notes],
        lambda notes: notes | {"parameters": [3]},
        lambda notes: notes | {"outputs": 3},
        lambda notes: notes | {"environment": "odd"},
    ],
)
def test_a_manifest_that_tells_nothing_is_as_none(
    change: Callable[[dict[str, object]], object], subject: Subject
) -> None:
    path = subject.folder / "logs/tiny/manifest.json"
    notes = json.loads(path.read_text())
    path.write_text(json.dumps({entry: change(notes[entry]) for entry in notes}))
    assert subject.verify() == (0, "equal bits")
    # Where bits differ, the reason is looked for in it.
    blocks = (subject.folder / "baseline.yaml").read_text()
    (subject.folder / "baseline.yaml").write_text(blocks.replace('sha256: "', 'sha256: "0', 1))
    assert subject.verify()[0] in (0, 1)
