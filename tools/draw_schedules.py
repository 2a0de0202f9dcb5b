"""Draw the pictures of docs/schedules.md, each by the code that is printed beside it there.

python tools/draw_schedules.py
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "agg"

import matplotlib.pyplot as plt
import torch

import cookfire.handlers.param_scheduler
import cookfire.handlers.state_param_scheduler
from cookfire.handlers import schedules

DOCS = Path(__file__).resolve().parent.parent / "docs"
_BLOCK = re.compile(
    r"```python\n((?:(?!```).)*)```\n\n!\[[^]]*\]\((pictures/[\w-]+\.png)\)", re.DOTALL
)


def blocks(page: Path = DOCS / "schedules.md") -> list[tuple[str, str]]:
    """Return (code, picture) for each picture of the page."""
    return _BLOCK.findall(page.read_text())


def values_of(code: str) -> list[list[Any]]:
    """Run the code of a picture; return the rows that it leaves in ``values``."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    names: dict[str, Any] = {
        **vars(cookfire.handlers.param_scheduler),
        **vars(cookfire.handlers.state_param_scheduler),
        **{name: getattr(schedules, name) for name in schedules.__all__},
        "optimizer": optimizer,
        "torch": torch,
    }
    exec(code, names)
    values: list[list[Any]] = names["values"]
    return values


def digest(values: list[list[Any]]) -> str:
    """Return a number for the values, which a picture carries to tell what it shows."""
    text = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in values)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw(values: list[list[Any]], path: Path) -> None:
    """Draw each column over the first."""
    figure, axes = plt.subplots(figsize=(4.8, 1.8), dpi=80)
    index, *columns = zip(*values, strict=True)
    for column in columns:
        axes.plot(index, column, drawstyle="steps-post", linewidth=1.5)
    axes.set_xlim(0, len(index) - 1)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
    figure.tight_layout(pad=0.3)
    # Without the version of matplotlib in it, the bytes change with the picture alone.
    figure.savefig(path, metadata={"Software": None, "Description": digest(values)})
    plt.close(figure)


def main() -> None:
    """Draw all pictures."""
    (DOCS / "pictures").mkdir(exist_ok=True)
    for code, picture in blocks():
        draw(values_of(code), DOCS / picture)
        print(picture, (DOCS / picture).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
