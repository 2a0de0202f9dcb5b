"""Measure a profile's trained weights on the test images.

    python -m recipes.cifar10.evaluate --profile tiny
    python -m recipes.cifar10.evaluate --profile full --data DIR --out DIR

The headline is that of ``model.pt``, the weights after the last step, in whose choice no test image
had a say, with the views of each image that the profile asks for; ``one_view_accuracy`` is without
any. ``calibration_error`` is the expected one over 15 bins of confidence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cookfire import distributed as idist
from cookfire.handlers import recipe
from cookfire.handlers.recipe.pictures import confusion_table, draw_confusion, write_png
from cookfire.metrics import CalibrationError, ConfusionMatrix

from .config import Config
from .data import CLASSES, load, prepare_batch
from .metrics import create_evaluator
from .mistakes import WorstMistakes, draw_mistakes
from .model import create_model


def evaluate(config: Config, run: recipe.Run) -> dict[str, float]:
    """Write ``metrics.json``, the confusion matrix and the pictures; return the headline."""
    data = load(config, run.data)
    images, _ = prepare_batch(data.images.first(1))
    net = create_model(config, images)
    net.load_state_dict(run.load("model.pt"))
    model = idist.auto_model(net)
    evaluator = create_evaluator(model, config.views)
    ConfusionMatrix(len(CLASSES)).attach(evaluator, "confusion")
    CalibrationError(output_transform=_probabilities).attach(evaluator, "calibration_error")
    mistakes = WorstMistakes(evaluator)

    metrics = dict(evaluator.run(data.test).metrics)
    confusion = metrics.pop("confusion")
    worst = mistakes.compute()
    one_view = metrics
    if config.views != "one":
        one_view = create_evaluator(model).run(data.test).metrics
    counts = confusion.double()
    shares = counts.diagonal() / counts.sum(dim=1).clamp(min=1)
    run.write_metrics(
        {
            **metrics,
            "one_view_accuracy": one_view["accuracy"],
            **{f"accuracy_{name}": float(of) for name, of in zip(CLASSES, shares, strict=True)},
        }
    )
    if idist.get_rank() == 0:
        table = confusion_table(confusion, CLASSES)
        run.write("confusion.tsv", lambda file: file.write(table.encode()))
        matrix = draw_confusion(confusion, CLASSES)
        run.write("confusion.png", lambda file: write_png(matrix, file))
        picture = draw_mistakes(worst)
        run.write("mistakes.png", lambda file: write_png(picture, file))
    return metrics


def _probabilities(output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    logits, labels = output
    return torch.softmax(logits, dim=1), labels


if __name__ == "__main__":
    recipe.main(evaluate, Config, __file__, resumable=False)
