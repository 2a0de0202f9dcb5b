"""The pages' code runs as it stands, given a model, data and engines to speak of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
# What these show needs torch_xla, or is run by tests/distributed/test_backends.py.
ELSEWHERE = {ROOT / "docs" / "xla.md", ROOT / "docs" / "backends.md"}
PAGES = sorted({*ROOT.glob("packages/*/README.md"), *ROOT.glob("docs/*.md")} - ELSEWHERE)

GIVEN = """
from pathlib import Path

import torch
from torch import nn

from cookfire.engine import Events, create_supervised_evaluator, create_supervised_trainer
from cookfire.handlers import Checkpoint, RunState
from cookfire.metrics import Accuracy

config = {}
Block = nn.Linear
Net = lambda: nn.Sequential(Block(8, 3))
model = nn.Linear(8, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
dataset = [(torch.randn(8), index % 3) for index in range(256)]
loader = torch.utils.data.DataLoader(dataset, batch_size=64)
data = loader
y_pred, y = torch.randn(12, 3), torch.arange(12) % 3
trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
evaluator = create_supervised_evaluator(model, metrics={"accuracy": Accuracy()})
path = Path("run.pt")
"""


def code_of(page: Path) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_of(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_a_pages_code_runs(page: Path, tmp_path: Path) -> None:
    done = run_code(page, tmp_path)
    assert done.returncode == 0, done.stderr


def run_code(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "example.py").write_text(GIVEN + code_of(page))
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "example.py"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_excerpts_are_what_the_files_say() -> None:
    excerpts = [
        (ROOT / file, text)
        for page in PAGES
        for file, text in re.findall(
            r'^```py title="([^"]+)"\n(.*?)^```', page.read_text(), re.M | re.S
        )
    ]
    assert excerpts
    for file, text in excerpts:  # but for the indent, and where lines are broken
        assert "".join(text.split()) in "".join(file.read_text().split()), (file, text)


def test_the_readmes_example_keeps_one_best_model_however_often_it_is_run(tmp_path: Path) -> None:
    for _ in range(2):
        done = run_code(README, tmp_path)
        assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "models").glob("*.pt")] == ["best.pt"]
