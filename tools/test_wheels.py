"""Build the four wheels, and test them where there is no source tree.

    uv run tools/test_wheels.py

Each wheel must hold its package alone, typed and with the licence. They are then installed into a
new environment in a folder for temporary files, in the versions of requirements.lock and with
nothing else of this repository; what runs there are README.md's example, a training that uses all
four packages in two processes, and the engine's tests.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("distributed", "engine", "metrics", "handlers")
# The runner, and the oracles of the tests that are run.
TESTERS = ("pytest", "pytest-xdist", "hypothesis", "pytorch-ignite")
TESTS = "tests/engine"
NEEDED = ("tests/conftest.py", "tests/warm.py", TESTS)

TRAINING = """
import sys
from pathlib import Path

import torch
from torch import nn

from cookfire import distributed as idist
from cookfire.engine import Events, create_supervised_evaluator, create_supervised_trainer
from cookfire.handlers import Checkpoint, EarlyStopping
from cookfire.metrics import Accuracy, Loss

for name in ("distributed", "engine", "metrics", "handlers"):
    module = __import__(f"cookfire.{name}", fromlist=["__file__"])
    assert Path(module.__file__).is_relative_to(sys.prefix), module.__file__


def train(rank):
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    data = list(zip(x, (x.sum(1) > 0).long()))
    loader = idist.auto_dataloader(data, batch_size=20, shuffle=True)
    model = idist.auto_model(nn.Linear(4, 2))
    optimizer = idist.auto_optim(torch.optim.SGD(model.parameters(), lr=0.5))
    loss = nn.CrossEntropyLoss()
    trainer = create_supervised_trainer(model, optimizer, loss)
    evaluator = create_supervised_evaluator(model, {"accuracy": Accuracy(), "loss": Loss(loss)})
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(loader))
    best = Checkpoint({"model": model}, "saved", score_name="accuracy")
    stop = EarlyStopping(3, lambda engine: -engine.state.metrics["loss"], trainer)
    evaluator.add_event_handler(Events.COMPLETED, best)
    evaluator.add_event_handler(Events.COMPLETED, stop)
    trainer.run(loader, max_epochs=5)
    assert evaluator.state.metrics["accuracy"] > 0.9, evaluator.state.metrics
    assert Path(best.last_checkpoint).is_file()


if __name__ == "__main__":
    with idist.Parallel(backend="gloo", nproc_per_node=2) as parallel:
        parallel.run(train)
"""


def main() -> int:
    """Build, look into, install and test; return the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        wheels = [build(package, folder / "wheels") for package in PACKAGES]
        problems = [
            problem
            for package, wheel in zip(PACKAGES, wheels, strict=True)
            for problem in look_into(package, wheel)
        ]
        if problems:
            print(*problems, sep="\n", file=sys.stderr)
            return 1
        print(f"{len(wheels)} wheels, each its package alone, typed, with the licence", flush=True)
        python = install(wheels, folder / "environment")
        work = folder / "work"
        work.mkdir()
        (example,) = re.findall(
            r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S
        )
        for script, code in (("readme.py", example), ("training.py", TRAINING)):
            (work / script).write_text(code)
            run([str(python), script], work)
        for part in NEEDED:
            copy(ROOT / part, work / part)
        copy(ROOT / "pyproject.toml", work / "pyproject.toml")  # pytest's settings
        run([str(python), "-m", "pytest", "-q", TESTS], work)
    return 0


def build(package: str, folder: Path) -> Path:
    """Build a package's wheel into ``folder``; return its path."""
    command = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder)]
    run([*command, str(ROOT / "packages" / package)], ROOT)
    (wheel,) = folder.glob(f"cookfire_{package}-*.whl")
    return wheel


def look_into(package: str, wheel: Path) -> list[str]:
    """Return what a wheel lacks, and what it has that it should not."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        licences = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        texts = [archive.read(name) for name in licences]
    inside = f"cookfire/{package}/"
    problems = [
        f"{wheel.name}: holds {name}"
        for name in names
        if not (name.startswith(inside) or ".dist-info/" in name) or "test" in name.lower()
    ]
    if f"{inside}py.typed" not in names:
        problems.append(f"{wheel.name}: lacks py.typed, so type checkers would pass over it")
    if texts != [(ROOT / "LICENSE").read_bytes()]:
        problems.append(f"{wheel.name}: lacks the repository's LICENSE")
    source = ROOT / "packages" / package / "src"
    expected = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    problems += [f"{wheel.name}: lacks {name}" for name in sorted(expected - set(names))]
    return problems


def install(wheels: list[Path], folder: Path) -> Path:
    """Install the wheels and what tests them into a new environment; return its Python."""
    run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder)], ROOT)
    python = folder / "bin" / "python"
    command = ["uv", "pip", "install", "--quiet", "--python", str(python)]
    command += ["--constraint", str(ROOT / "requirements.lock")]
    command += [str(wheel) for wheel in wheels] + list(TESTERS)
    run(command, folder)  # outside of the tree, whose settings say where workspace members are
    return python


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder but for what Python has compiled."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def run(command: list[str], folder: Path) -> None:
    """Run a command where nothing leads to the source tree."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_PROJECT")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    subprocess.run(command, cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
