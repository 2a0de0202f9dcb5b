"""A picture of images with what a net takes them for; no result depends on it.

Drawn without pyplot, which keeps state, and in matplotlib's own style whatever the user's is: the
same picture everywhere, and the same bytes each time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib import style
from matplotlib.figure import Figure
from torch import Tensor

from .config import Config
from .sources import UNREADABLE, Source
from .transforms import middle_crop, resize

SHOWN, COLUMNS = 40, 8  # images in the picture, and in a row of it
PIXELS = 128  # height and width of each in it


def example_images(config: Config, source: Source) -> tuple[Tensor, Tensor]:
    """Return images from all over a data set, as an evaluation sees them, with their labels."""
    count = len(source.labels)
    chosen = [count * place // SHOWN for place in range(min(SHOWN, count))]
    images, labels = [], []
    for index in sorted(set(chosen)):
        try:
            with source.open(index) as image:
                images.append(middle_crop(image, config.validation_size, config.validation_crop))
        except UNREADABLE:
            continue
        labels.append(int(source.labels[index]))
    return torch.stack(images), torch.tensor(labels)


def draw_predictions(
    images: Tensor, labels: Tensor, logits: Tensor, classes: Sequence[str]
) -> Figure:
    """Draw images with what the net takes them for and how surely; its mistakes in red.

    Args:
        images: (B, 3, height, width) of uint8.
        labels: (B,).
        logits: (B, classes).
        classes: their names.
    """
    probabilities, predicted = torch.softmax(logits, dim=1).max(dim=1)
    height, width = PIXELS + 36, PIXELS + 12  # with room for two lines of text
    rows = -(-len(images) // COLUMNS)
    # One picture for all: an axes for each would take ten times as long.
    canvas = torch.full((rows * height, COLUMNS * width, 3), 255, dtype=torch.uint8)
    with style.context("default"):
        figure = Figure(figsize=(12, 1.75 * rows), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for place, image in enumerate(images):
            top, left = place // COLUMNS * height + 32, place % COLUMNS * width + 6
            shown = resize(image, PIXELS, PIXELS).permute(1, 2, 0)
            canvas[top : top + PIXELS, left : left + PIXELS] = shown
            answer, truth = int(predicted[place]), int(labels[place])
            text = f"{classes[answer][:18]} {probabilities[place]:.0%}"
            if answer != truth:
                text += f"\nlabel: {classes[truth][:18]}"
            color = "green" if answer == truth else "red"
            center = left + PIXELS / 2
            axes.text(center, top - 3, text, color=color, fontsize=8, ha="center", va="bottom")
        axes.imshow(canvas.numpy(), aspect="auto")
    return figure
