"""Seeded damage to files, the five recipes on a few images each, and what came of a run."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import io
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from unittest.mock import patch

import torch
import yaml

from cookfire.handlers import recipe
from data import (
    make_tiny_cifar10,
    make_tiny_horse2zebra,
    make_tiny_imagenet,
    make_tiny_mnist,
    make_tiny_voc,
)

ROOT = Path(__file__).resolve().parent.parent
MAKERS: dict[str, Callable[[Path], None]] = {
    "mnist": make_tiny_mnist.write,
    "cifar10": make_tiny_cifar10.write,
    "cyclegan": make_tiny_horse2zebra.write,
    "imagenet": make_tiny_imagenet.write,
    "voc_segmentation": make_tiny_voc.write,
}
SMALLER: dict[str, dict[str, object]] = {
    "mnist": {"epochs": 1, "batch_size": 256},
    "cifar10": {"epochs": 1.0, "batch_size": 200},
    "cyclegan": {"epochs": 1, "decay_epochs": 1, "batch_size": 2, "validate_every": 1},
    "imagenet": {"epochs": 1, "batch_size": 8, "warmup": 0},
    "voc_segmentation": {"epochs": 1, "batch_size": 2, "validate_every": 1},
}
MEMORY = 6 << 30  # bytes that a run may ask for, beyond what this process has
SECONDS = 60


class TakesForeverError(BaseException):
    """A run did not end; no `except Exception` keeps it from being seen."""


class RestartedError(BaseException):
    """A run started its command once more, with the environment that its profile asks for."""


def restart(_program: str, _arguments: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Stand for ``os.execve``: have the system judge the environment, and stay in this process."""
    os.waitpid(os.posix_spawn("/bin/true", ["true"], environment), 0)
    os.environ.clear()
    os.environ.update(environment)
    raise RestartedError


def use(config: Any, run: recipe.Run) -> None:
    """Read a recipe's data as a training would: all that is checked, a batch, and the seed."""
    torch.manual_seed(config.seed)
    recipe_s = importlib.import_module(type(config).__module__.replace(".config", ".data"))
    loaders = recipe_s.load(config, run.data)
    next(iter(loaders.training))
    for _ in loaders.validation if hasattr(loaders, "validation") else loaders.test:
        pass


@dataclass
class Subject:
    """A recipe with parameters, data, trained weights and an unfinished run, in a folder."""

    name: str
    folder: Path

    def set(self, block: Mapping[str, object]) -> None:
        """Write the parameters."""
        text = yaml.safe_dump({"tiny": dict(block)}, sort_keys=False)
        (self.folder / "params.yaml").write_text(text)

    def block(self) -> dict[str, Any]:
        """Return the parameters as they are written."""
        return dict(yaml.safe_load((self.folder / "params.yaml").read_text())["tiny"])

    def module(self, part: str) -> ModuleType:
        """Return ``data.py`` and so on."""
        return importlib.import_module(f"recipes.{self.name}.{part}")

    def config(self) -> Any:
        """Return the parameters."""
        return recipe.load(self.folder / "params.yaml", "tiny", self.module("config").Config)

    def fresh(self, folder: Path) -> Subject:
        """Return a copy in another folder."""
        shutil.copytree(self.folder, folder)
        return Subject(self.name, folder)

    def read_data(self) -> tuple[int, str]:
        """Read the data as a training would; return the exit code, and what was said."""
        return self._run(use)

    def evaluate(self) -> tuple[int, str]:
        """Evaluate the weights; likewise."""
        return self._run(self.module("evaluate").evaluate)

    def go_on(self) -> tuple[int, str]:
        """Go on with the run that was interrupted; it writes to ``again/``."""
        return self.train(self.folder / "again")

    def train(self, outputs: Path) -> tuple[int, str]:
        """Train, and keep what the run needs to go on."""

        def train(config: Any, run: recipe.Run) -> None:
            inner = replace(
                run, outputs=outputs, logs=self.folder / "events",
                states=self.folder / "states", save_every=1,
            )  # fmt: skip
            self.module("train").train(config, inner)

        train.__module__ = self.module("train").__name__
        return self._run(train, "train")

    def verify(self) -> tuple[int, str]:
        """Compare the outs with the baseline; return the exit code, and the verdict."""
        with limits():
            try:
                report = recipe.check(self.folder, "tiny")
            except recipe.RecipeError as error:
                return 2, str(error)
        return report.code, report.text

    def _run(self, function: Any, entry: str = "evaluate") -> tuple[int, str]:
        """Run as the command line does, with its restart in the profile's environment."""
        code, said = 0, io.StringIO()
        file = str(self.folder / f"{entry}.py")
        with (
            limits(), patch.dict(os.environ), patch.object(os, "execve", restart),
            patch.object(sys, "argv", [file, "--profile", "tiny"]),
            contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()),
        ):  # fmt: skip
            for _ in range(2):
                try:
                    config = self.module("config").Config
                    recipe.main(function, config, file, resumable=False)
                except RestartedError:
                    continue
                except SystemExit as error:
                    code = int(error.code or 0)
                break
        return code, said.getvalue()


def prepare(name: str, folder: Path, *, train: bool = True) -> Subject:
    """Write a recipe's parameters and a few images; train, evaluate and record the baseline."""
    folder.mkdir(parents=True)
    subject = Subject(name, folder)
    subject.set({**recipe_block(name), **SMALLER[name], "data": "data"})
    (folder / "data").mkdir()
    MAKERS[name](folder / "data")
    shrink(name, folder / "data")
    if not train:
        return subject
    # A baseline names a commit.
    (folder / ".gitignore").write_text("data\nlogs\nruns\nevents\nstates\n")
    user = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*user, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder / "states").mkdir()
    for code, said in (subject.train(folder / "runs/tiny"), subject.evaluate()):
        assert code == 0, said
    shutil.rmtree(folder / "events", ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()):
        assert recipe.verify(folder, ["tiny"], accept=True) == 0
    return subject


def recipe_block(name: str) -> dict[str, Any]:
    """Return the parameters of a recipe's profile ``tiny``."""
    blocks = yaml.safe_load((ROOT / "recipes" / name / "params.yaml").read_text())
    return dict(copy.deepcopy(blocks["tiny"])) | {"mlflow": False}


def shrink(name: str, data: Path) -> None:
    """Leave a few images of a tiny data set that has hundreds of files."""
    if name == "voc_segmentation":
        for listed in data.rglob("ImageSets/Segmentation/*.txt"):
            listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:5]))
    elif name in ("cyclegan", "imagenet"):
        for folder in [path for path in data.rglob("*") if path.is_dir()]:
            images = sorted(path for path in folder.iterdir() if path.is_file())
            for path in images[4 if name == "cyclegan" else 2 :]:
                path.unlink()


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Let nothing take this machine's memory or for ever, and leave no settings behind."""

    def stop(*_: object) -> None:
        raise TakesForeverError

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    logger = logging.getLogger("cookfire.handlers.recipe")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, before)
        torch.set_deterministic_debug_mode("default")
        torch.set_num_threads(1)
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def digest(folder: Path, *parts: str) -> dict[str, str]:
    """Return the hash of each file in the parts of a folder."""
    files = [path for part in parts for path in (folder / part, *(folder / part).rglob("*"))]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


def damaged_bytes(chance: random.Random, content: bytes) -> bytes:
    """Flip bits, cut, splice, overwrite, insert or empty."""
    data = bytearray(content)
    at = chance.randrange(len(data) or 1)
    # Half of the time near the beginning, where formats keep what they believe.
    at = min(at, chance.randrange(200)) if chance.random() < 0.5 else at
    end = at + chance.choice([1, 4, 64, 4096])
    match chance.choice(["flip", "flip", "cut", "splice", "zero", "noise", "insert", "empty"]):
        case "flip":
            for _ in range(chance.choice([1, 1, 8])):
                if data:
                    data[min(at + chance.randrange(8), len(data) - 1)] ^= 1 << chance.randrange(8)
        case "cut":
            del data[at:]
        case "splice":
            other = chance.randrange(len(data) or 1)
            data[at:end] = data[other : other + end - at]
        case "zero":
            data[at:end] = bytes(end - at)
        case "noise":
            data[at:end] = chance.randbytes(end - at)
        case "insert":
            data[at:at] = chance.randbytes(end - at)
        case "empty":
            data.clear()
    return bytes(data)


BOMB = "\n".join(
    [f"a0: &a0 [{', '.join(['1'] * 10)}]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
)
TEXTS = [
    "", "tiny", "[]", "tiny: [", "tiny:\n\t- 1", "tiny: &a [*a]", "tiny: *nothing", "\0", "tiny: {",
    "tiny: !!python/object/apply:os.mkdir [hacked]", "[" * 3000 + "]" * 3000, BOMB, "%YAML 9.9",
    "tiny: {a: 1, a: 2}", "? [a]\n: 1", "tiny: {<<: 1}", "a: 1\n---\na: 2", "tiny: 2000-01-01",
    "{" * 400, "- " * 3000, "tiny: {1: 2, null: 3, true: 4}",
]  # fmt: skip
VALUES: list[object] = [
    None, "", "text", "\0", "\ud800", "../../../etc", "a" * 10_000, "a" * 200_000, True, 0, -1, 1,
    3, 2**31, 2**63, 10**300, 10**5000, -(2**70), 0.5, -0.0, 1e308, float("nan"), float("inf"), [],
    [[]], {}, {"a": {}}, [1], [1, "a", None], {1: 2}, [[[[[[[[]]]]]]]],
]  # fmt: skip


def damaged_yaml(chance: random.Random, text: str) -> bytes:
    """Damage the bytes, exchange the text, or change values and keys within."""
    if chance.random() < 0.2:
        return damaged_bytes(chance, text.encode())
    if chance.random() < 0.2:
        return chance.choice(TEXTS).encode()
    tree = yaml.safe_load(text)
    for _ in range(chance.choice([1, 1, 2])):
        change(chance, tree)
    # As Python writes it, since yaml.safe_dump takes no number of thousands of digits.
    with contextlib.suppress(ValueError):
        return yaml.safe_dump(tree, sort_keys=False).encode()
    return f"tiny: {{seed: {'9' * 5000}}}".encode()


def change(chance: random.Random, tree: Any, depth: int = 50) -> None:
    """Exchange, remove or add a value somewhere in nested containers."""
    places = list(_places(tree, depth))
    if not places:
        return
    container, key = chance.choice(places)
    match chance.choice(["value", "value", "value", "remove", "add", "rename"]):
        case "remove":
            del container[key]
        case "add" if isinstance(container, dict):
            container[chance.choice(["unknown", "", 3, "lr"])] = chance.choice(VALUES)
        case "rename" if isinstance(container, dict):
            container[f"{key}_"] = container.pop(key)
        case _:
            container[key] = copy.deepcopy(chance.choice(VALUES))


def _places(tree: Any, depth: int = 50) -> Iterator[tuple[Any, Any]]:
    if not isinstance(tree, dict | list):
        return
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(pairs):
        yield tree, key
        if isinstance(value, dict | list) and depth > 1:
            yield from _places(value, depth - 1)


def damage_checkpoint(chance: random.Random, path: Path) -> bool:
    """Damage a file of ``torch.save``, or what is in it; the file with its sum goes, or not.

    Returns:
        Whether it is another file of ``torch.save`` now, which nobody can tell from a right one.
    """
    beside = path.with_name(f"{path.name}.sha256")
    forged = chance.random() < 0.5
    if not forged:
        path.write_bytes(damaged_bytes(chance, path.read_bytes()))
    else:
        tree = torch.load(path, weights_only=True)
        for _ in range(chance.choice([1, 1, 3])):
            if chance.random() < 0.3:
                _change_tensor(chance, tree)
            else:
                # What is deeper is the optimizer's and the handlers' own: a forged number there is
                # a state like any other.
                change(chance, tree, depth=3)
        torch.save(tree if chance.random() < 0.9 else chance.choice(VALUES), path)
        beside.unlink(missing_ok=True)
    if chance.random() < 0.5:
        beside.unlink(missing_ok=True)
    return forged


def _change_tensor(chance: random.Random, tree: Any) -> None:
    places = [(at, key) for at, key in _places(tree) if isinstance(at[key], torch.Tensor)]
    if places:
        container, key = chance.choice(places)
        tensor = container[key]
        container[key] = chance.choice(
            [
                tensor.double(), tensor[..., None], tensor.flatten()[:1], torch.zeros(0),
                tensor.float() * float("nan"), tensor.to(torch.complex64),
            ]
        )  # fmt: skip
