"""Pictures and tables of what a classifier takes things for; no result depends on them.

Drawn without pyplot, which keeps state, and in matplotlib's own style whatever the user's is: the
same picture everywhere, and the same bytes each time. matplotlib comes with the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from matplotlib import style
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["confusion_table", "draw_confusion", "write_png"]


def draw_confusion(counts: Tensor, names: Sequence[str] | None = None) -> Figure:
    """Draw how often each label (row) was taken for each class (column).

    Args:
        counts: (classes, classes), whole numbers.
        names: the classes'; None: their numbers.

    Example:
        >>> figure = draw_confusion(torch.tensor([[8, 2], [1, 9]]), ["cat", "dog"])
    """
    counts = counts.cpu()
    with style.context("default"):
        figure = Figure(figsize=(6, 6), dpi=100, layout="tight")
        axes = figure.add_subplot(xlabel="predicted", ylabel="label", title="Confusion matrix")
        # The colours are shares of a label: a rare label's mistakes are as visible as any.
        shares = counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
        axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(counts)), _names(counts, names), rotation=45 if names else 0)
        axes.set_yticks(range(len(counts)), _names(counts, names))
        for row, column in counts.nonzero().tolist():
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(int(counts[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    return figure


def confusion_table(counts: Tensor, names: Sequence[str] | None = None) -> str:
    """Return a line for each image, ``actual`` and ``predicted``, as DVC's template counts them.

    Args:
        counts: (classes, classes), whole numbers; rows are the labels, columns the predictions.
        names: the classes'; None: their numbers.

    Example:
        >>> print(confusion_table(torch.tensor([[1, 0], [1, 0]])), end="")
        actual	predicted
        0	0
        1	0
    """
    names = _names(counts, names)
    lines = ["actual\tpredicted"]
    for actual, row in zip(names, counts.tolist(), strict=True):
        for predicted, count in zip(names, row, strict=True):
            lines += [f"{actual}\t{predicted}"] * int(count)
    return "".join(f"{line}\n" for line in lines)


def _names(counts: Tensor, names: Sequence[str] | None) -> Sequence[str]:
    return [str(number) for number in range(len(counts))] if names is None else names


def write_png(figure: Figure, file: BinaryIO) -> None:
    """Write a figure, without the version of the software that drew it."""
    with style.context("default"):  # fonts and margins are looked up only now
        figure.savefig(file, format="png", metadata={"Software": None})
