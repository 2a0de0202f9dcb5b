"""Pictures of an evaluation: the worst images, each class's IoU, what was taken for what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib import style
from matplotlib.figure import Figure
from torch import Tensor

from cookfire import distributed as idist
from cookfire.engine import Engine, Events

from .pairs import Pair
from .palette import CLASSES, VOID, Pixels, to_picture

KEPT = 8  # images in the picture of the worst


class WorstImages:
    """Notes which images of an evaluation have the least mean IoU over the classes on them.

    Args:
        evaluator: its batches are (images, masks, places), its output is (logits, masks).
    """

    def __init__(self, evaluator: Engine) -> None:
        evaluator.add_event_handler(Events.STARTED, self._reset)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._look)
        self._reset()

    def compute(self) -> list[tuple[int, float]]:
        """Return place and mean IoU of the worst of all processes; all must call it."""
        places = idist.all_gather(torch.tensor(self._places, dtype=torch.int64))
        scores = idist.all_gather(torch.tensor(self._scores, dtype=torch.float64))
        pairs = zip(scores.tolist(), places.tolist(), strict=True)
        return [(place, score) for score, place in sorted(pairs)[:KEPT]]

    def _reset(self) -> None:
        self._places: list[int] = []
        self._scores: list[float] = []

    def _look(self, evaluator: Engine) -> None:
        logits, masks = evaluator.state.output
        for place, scores, mask in zip(evaluator.state.batch[2], logits, masks, strict=True):
            self._places.append(int(place))
            self._scores.append(mean_iou(scores.argmax(dim=0), mask))


def mean_iou(predicted: Tensor, mask: Tensor) -> float:
    """Return the mean IoU over the classes that an image's mask or its prediction has.

    Args:
        predicted: (H, W), classes.
        mask: (H, W) of int64, classes and void, which is left out; 1.0 where all is void.
    """
    known = mask != VOID
    pairs = mask[known] * len(CLASSES) + predicted[known]
    counts = torch.bincount(pairs, minlength=len(CLASSES) ** 2).view(len(CLASSES), -1).double()
    hits, union = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
    there = union > 0
    return float((hits[there] / union[there]).mean()) if there.any() else 1.0


def draw_worst(
    worst: Sequence[tuple[int, float]],
    pairs: Sequence[Pair],
    predict: Callable[[Pixels], Pixels],
) -> Figure:
    """Draw image, truth and prediction of each, the worst first, in VOC's colours.

    Args:
        worst: place among the pairs and mean IoU, of each.
        pairs: all that were measured.
        predict: an image (H, W, 3) to its mask (H, W).
    """
    with style.context("default"):
        figure = Figure(figsize=(9, 2.6 * max(1, len(worst))), dpi=80, layout="tight")
        for row, (place, score) in enumerate(worst):
            image, mask = pairs[place].read()
            predicted = predict(image)
            shown = [image, *(np.array(to_picture(of).convert("RGB")) for of in (mask, predicted))]
            titles = [f"{pairs[place].image.stem}, IoU {score:.2f}", _names(mask)]
            titles.append(_names(predicted))
            for column, (picture, title) in enumerate(zip(shown, titles, strict=True)):
                axes = figure.add_subplot(max(1, len(worst)), 3, 3 * row + column + 1)
                axes.set_axis_off()
                axes.set_title(title, fontsize=8)
                axes.imshow(picture)
    return figure


def _names(mask: Pixels) -> str:
    """The classes on a mask, those with most pixels first."""
    counts = np.bincount(mask.ravel(), minlength=VOID + 1)[: len(CLASSES)]
    order = [number for number in np.argsort(-counts, kind="stable") if counts[number]]
    names = [CLASSES[number] for number in order if number]
    return ", ".join([*names[:4], *(["..."] if names[4:] else [])]) or "background only"


def draw_iou(iou: Tensor) -> Figure:
    """Draw a bar for each class's IoU (classes,), and their mean as a line."""
    values = iou.cpu().numpy()
    with style.context("default"):
        figure = Figure(figsize=(6, 5), dpi=100, layout="tight")
        mean = f"IoU of each class, mean {values.mean():.3f}"
        axes = figure.add_subplot(xlabel="IoU", xlim=(0, 1), title=mean)
        axes.barh(range(len(values)), values, color="C0")
        axes.axvline(float(values.mean()), color="black", linewidth=1, linestyle="--")
        axes.set_yticks(range(len(values)), CLASSES, fontsize=8)
        axes.invert_yaxis()
    return figure


def draw_shares(counts: Tensor) -> Figure:
    """Draw which percentage of each class's pixels (row) was taken for each class (column).

    Args:
        counts: (classes, classes), whole numbers; there are too many pixels to write them.
    """
    shares = counts.cpu().double() / counts.cpu().sum(dim=1, keepdim=True).clamp(min=1)
    with style.context("default"):
        figure = Figure(figsize=(9, 9), dpi=80, layout="tight")
        title = "Confusion matrix, % of a class's pixels"
        axes = figure.add_subplot(xlabel="predicted", ylabel="mask", title=title)
        axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(shares)), CLASSES, rotation=90, fontsize=8)
        axes.set_yticks(range(len(shares)), CLASSES, fontsize=8)
        for row, column in (shares >= 0.005).nonzero().tolist():
            share = float(shares[row, column])
            color = "white" if share > 0.5 else "black"
            text = f"{share:.0%}".rstrip("%")
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    return figure
