"""A picture of what the net takes the digits for; no result depends on it.

Drawn without pyplot, which keeps state, and in matplotlib's own style whatever the user's is: the
same picture everywhere, and the same bytes each time.
"""

from __future__ import annotations

import torch
from matplotlib import style
from matplotlib.figure import Figure
from torch import Tensor

SHOWN, COLUMNS = 64, 8  # images in the picture of predictions, and in a row of it


def draw_predictions(images: Tensor, labels: Tensor, log_probabilities: Tensor) -> Figure:
    """Draw up to 64 images with what the net takes them for; its mistakes in red.

    Args:
        images: (B, height, width), 0 is the background.
        labels: (B,).
        log_probabilities: (B, classes).
    """
    probabilities, predicted = log_probabilities[:SHOWN].detach().cpu().float().exp().max(dim=1)
    images = images[:SHOWN].cpu()
    height, width = images.shape[1] + 10, images.shape[2] + 10  # with room for a line of text
    rows = -(-len(images) // COLUMNS)
    # One picture for all: an axes for each would take ten times as long.
    canvas = torch.zeros(rows * height, COLUMNS * width)
    with style.context("default"):
        figure = Figure(figsize=(12, 1.5 * rows), dpi=80)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for place, image in enumerate(images):
            top, left = place // COLUMNS * height + 8, place % COLUMNS * width + 5
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
            prediction, label = int(predicted[place]), int(labels[place])
            text = f"{prediction} {probabilities[place]:.1%} (label: {label})"
            color = "green" if prediction == label else "red"
            center = left + image.shape[1] / 2
            axes.text(center, top - 2, text, color=color, fontsize=9, ha="center", va="baseline")
        axes.imshow(canvas.numpy(), cmap="Greys", aspect="auto")
    return figure
