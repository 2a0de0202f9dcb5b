"""The worst mistakes of a net: the images whose label it gave the least probability."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib import style
from matplotlib.figure import Figure
from torch import Tensor

from cookfire import distributed as idist
from cookfire.engine import Engine, Events

from .data import CLASSES, SIZE

KEPT, COLUMNS = 40, 8  # images in the picture, and in a row of it


class Mistakes(NamedTuple):
    """Images with wrong answers, the worst first."""

    images: Tensor
    """(N, 3, 32, 32) of uint8."""

    labels: Tensor
    """(N,) of int64."""

    log_probabilities: Tensor
    """(N, classes) of float32."""


class WorstMistakes:
    """Keeps the worst mistakes that an evaluation comes across.

    Args:
        evaluator: its batches are (images, labels), its output is (logits, labels).
    """

    def __init__(self, evaluator: Engine) -> None:
        evaluator.add_event_handler(Events.STARTED, self._reset)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._look)
        self._reset()

    def compute(self) -> Mistakes:
        """Return the worst of all processes; all must call it."""
        everywhere = [idist.all_gather(tensor) for tensor in self._kept]
        return _worst(Mistakes(*everywhere))

    def _reset(self) -> None:
        self._kept = Mistakes(
            torch.zeros(0, 3, SIZE, SIZE, dtype=torch.uint8),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros(0, len(CLASSES)),
        )

    def _look(self, evaluator: Engine) -> None:
        images, labels = (tensor.cpu() for tensor in evaluator.state.batch)
        logits = evaluator.state.output[0].cpu().float()
        wrong = logits.argmax(dim=1) != labels
        new = (images[wrong], labels[wrong], F.log_softmax(logits[wrong], dim=1))
        both = (torch.cat(pair) for pair in zip(self._kept, new, strict=True))
        self._kept = _worst(Mistakes(*both))


def _worst(mistakes: Mistakes) -> Mistakes:
    of_label = mistakes.log_probabilities.gather(1, mistakes.labels.unsqueeze(1)).squeeze(1)
    worst = of_label.argsort(stable=True)[:KEPT]
    return Mistakes(*(tensor[worst] for tensor in mistakes))


def draw_mistakes(mistakes: Mistakes) -> Figure:
    """Draw images with what they were taken for, how surely, and what they are."""
    rows = max(1, -(-len(mistakes.labels) // COLUMNS))
    probabilities, predicted = mistakes.log_probabilities.exp().max(dim=1)
    height, width = SIZE + 14, SIZE + 8  # with room for two lines of text
    # One picture for all: an axes for each would take ten times as long.
    canvas = torch.full((rows * height, COLUMNS * width, 3), 255, dtype=torch.uint8)
    with style.context("default"):
        figure = Figure(figsize=(12, 1.7 * rows), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for place, image in enumerate(mistakes.images):
            top, left = place // COLUMNS * height + 12, place % COLUMNS * width + 4
            canvas[top : top + SIZE, left : left + SIZE] = image.permute(1, 2, 0)
            answer = f"{CLASSES[int(predicted[place])]} {probabilities[place]:.0%}"
            truth = f"label: {CLASSES[int(mistakes.labels[place])]}"
            axes.text(
                left + SIZE / 2, top - 1.5, f"{answer}\n{truth}",
                color="black", fontsize=8, ha="center", va="bottom",
            )  # fmt: skip
        axes.imshow(canvas.numpy(), aspect="auto")
    return figure
