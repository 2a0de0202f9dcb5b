"""A table of numbers, one row a step, for ``dvc plots`` and for reading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cookfire.handlers._arrays import pixels
from cookfire.handlers._files import write_atomically
from cookfire.handlers.base_logger import BaseLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TableLogger"]


class TableLogger(BaseLogger):
    """Logs numbers into one file of tab-separated values, and images as PNG beside it.

    What is logged for the same step, by whichever engine, is one row: ``epoch``, ``train_loss``,
    ``val_accuracy``. The file is written as a whole each time, and is complete at any moment;
    meant for a row an epoch or every hundred iterations, not for a million rows. Its bytes depend
    on the numbers alone (floats as Python's ``repr``, which loses nothing), and as the rows are in
    its ``state_dict``, those of a continued run equal those of an uninterrupted one.

    Args:
        path: the file, usually ``something.tsv``; its folder is made.
        columns: columns after the first, in order; only these are kept. By default a column is
            added at the right for each new name. What was not logged is ``nan``, which plots
            leave out (they take an empty cell for 0). A ``/`` in a name becomes ``_``.
        step_name: name of the first column, which holds the step.

    Raises:
        ValueError: a column is declared twice.

    Example:
        >>> table = TableLogger(folder / "curves.tsv")
        >>> table.log_metrics({"train_loss": 0.5}, step=1)
        >>> table.log_metrics({"val": {"accuracy": 0.75}}, step=1)
        >>> print((folder / "curves.tsv").read_text().expandtabs(12), end="")
        epoch       train_loss  val_accuracy
        1           0.5         0.75
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str] | None = None,
        *,
        step_name: str = "epoch",
    ) -> None:
        self.path = Path(path).absolute()
        self.step_name = step_name
        self._declared = columns is not None
        self._columns = [_column(name) for name in columns or ()]
        names = [step_name, *self._columns]
        if len(set(names)) < len(names):
            raise ValueError(f"columns are declared twice: {', '.join(names)}")
        self._rows: dict[int, dict[str, float]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns so far, in order."""
        return (self.step_name, *self._columns)

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Put numbers into the row of ``step`` and write the file."""
        kept = {}
        for name, value in scalars.items():
            column = _column(name)
            if column not in self._columns:
                if self._declared or column == self.step_name:
                    self._warn_once(
                        ("column", column),
                        f"TableLogger: {column!r} is none of the columns of {self.path.name} "
                        f"({', '.join(self._columns)}); left out",
                    )
                    continue
                self._columns.append(column)
            kept[column] = value
        if kept:
            self._rows.setdefault(step, {}).update(kept)
            self._write()

    def write_image(self, image: Tensor, name: str, step: int) -> None:  # noqa: ARG002 - the newest stands
        """Write ``<name>.png`` beside the table; the next image of that name replaces it."""
        from PIL import Image

        picture = Image.fromarray(pixels(image))
        write_atomically(self._beside(name), lambda file: picture.save(file, "png"))

    def write_figure(self, figure: Figure, name: str, step: int) -> None:  # noqa: ARG002 - the newest stands
        """Write ``<name>.png`` beside the table; the next figure of that name replaces it."""
        # The name of the software would make the bytes depend on its version.
        metadata = {"Software": None}
        write_atomically(
            self._beside(name),
            lambda file: figure.savefig(file, format="png", metadata=metadata),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the columns and the rows."""
        rows = [[step, dict(row)] for step, row in sorted(self._rows.items())]
        return {"columns": list(self._columns), "rows": rows}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the rows, in place of those here, and write the file."""
        if not self._declared:
            self._columns = list(state_dict["columns"])
        self._rows = {step: dict(row) for step, row in state_dict["rows"]}
        if self._rows and self.writes:
            self._deliver("the table", self._write)

    def _write(self) -> None:
        lines = ["\t".join(self.columns)]
        for step, row in sorted(self._rows.items()):
            cells = [step, *(row.get(name, math.nan) for name in self._columns)]
            lines.append("\t".join(map(repr, cells)))
        text = "".join(f"{line}\n" for line in lines)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda file: file.write(text.encode()))

    def _beside(self, name: str) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.with_name(f"{_column(name).removesuffix('.png')}.png")


def _column(name: str) -> str:
    """Return a name without what separates folders and columns."""
    return " ".join(name.replace("/", "_").split())
