"""Evaluate the toy: `python -m toy.evaluate --profile tiny`."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from cookfire.handlers import recipe

from .config import Config, make_model


def evaluate(_: Config, run: recipe.Run) -> dict[str, float]:
    """Write accuracy and loss of the last weights."""
    model = make_model().eval()
    model.load_state_dict(run.load("model.pt"))
    inputs, labels = torch.load(run.data / "data.pt")
    with torch.no_grad():
        scores = model(inputs)
    metrics = {
        "accuracy": float((scores.argmax(1) == labels).double().mean()),
        "loss": float(cross_entropy(scores, labels)),
    }
    run.write_metrics(metrics)
    return metrics


if __name__ == "__main__":
    recipe.main(evaluate, Config, __file__, resumable=False)
