"""The pages' shell commands speak of modules, files, stages and parameters that are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    {
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("recipes/*/README.md"),
        *ROOT.glob("examples/*.md"),
        ROOT / "benchmarks" / "README.md",
    }
    - {ROOT / "docs" / "forking.md"}  # its commands are run in a fork; tests/test_fork.py has them
)
OURS = ("recipes", "data", "cookfire", "benchmarks", "examples")


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each line of the page's shell blocks, and of code in its sentences."""
    text = page.read_text()
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += re.findall(r"`((?:uv run|dvc|python|torchrun) [^`]+)`", text)
    for line in lines:
        for command in re.split(r"&&|\|\||;", line):
            if words := shlex.split(command, comments=True):
                yield words


def module_is_there(name: str) -> bool:
    if not name.startswith(OURS):
        return True
    roots = [ROOT, *ROOT.glob("packages/*/src")]
    path = Path(*name.split("."))
    return any(
        (root / path).with_suffix(".py").exists() or (root / path / "__main__.py").exists()
        for root in roots
    )


def stages(path: Path) -> set[str]:
    found: set[str] = set()
    for name, stage in yaml.safe_load(path.read_text())["stages"].items():
        cells = stage.get("foreach") if isinstance(stage, dict) else None
        found |= {name, *(f"{name}@{cell}" for cell in cells or ())}
    return found


def target_is_there(target: str) -> bool:
    path, _, stage = target.partition(":")
    if path.endswith("dvc.yaml"):
        return (ROOT / path).exists() and (not stage or stage in stages(ROOT / path))
    return target in stages(ROOT / "dvc.yaml")


def problems(words: list[str]) -> Iterator[str]:
    for before, word in zip(["", *words], words, strict=False):
        if "NAME" in word or "RECIPE" in word or "..." in word:
            continue
        if before == "-m" and not module_is_there(word):
            yield f"no module {word}"
        script = re.fullmatch(r"(tools|benchmarks|examples)/\w+\.py", word)
        if script and not (ROOT / word).exists():
            yield f"no file {word}"
        target = re.fullmatch(r"((recipes|smoke)/\w+|[\w/]+dvc\.yaml(:[\w@]+)?)", word)
        if target and "dvc" in words and not target_is_there(word):
            yield f"no stage {word}"
        if found := re.fullmatch(r"(recipes/\w+/params\.yaml):(\+\+)?(\w+)\..*", word):
            path = ROOT / found[1]
            if not path.exists() or found[3] not in yaml.safe_load(path.read_text()):
                yield f"no profile {found[3]} in {found[1]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_commands_name_what_is_there(page: Path) -> None:
    wrong = [f"{' '.join(words)}: {what}" for words in commands(page) for what in problems(words)]
    assert wrong == []


def test_a_command_that_names_what_is_not_there_is_found() -> None:
    for line in (
        "python -m recipes.mnist.tarin --profile tiny",
        "uv run tools/nothing.py",
        "dvc repro smoke/mnits",
        "dvc repro recipes/mnist/dvc.yaml:train@tny",
        "dvc exp run -S recipes/mnist/params.yaml:tny.lr=0.1",
    ):
        assert list(problems(line.split())), line
