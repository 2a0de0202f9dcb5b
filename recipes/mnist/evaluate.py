"""Measure a profile's trained weights on the validation images.

    python -m recipes.mnist.evaluate --profile tiny
    python -m recipes.mnist.evaluate --profile full --data DIR --out DIR

The headline (``accuracy``, ``f1``, ``loss``) is that of ``model.pt``, the weights after the last
step, in whose choice no validation image had a say; the pictures are theirs too. ``best.pt`` was
chosen among the epochs by its validation F1, which flatters it: its numbers are ``best_accuracy``
and so on.
"""

from __future__ import annotations

import torch

from cookfire import distributed as idist
from cookfire.handlers import recipe
from cookfire.handlers.recipe.pictures import confusion_table, draw_confusion, write_png
from cookfire.metrics import ConfusionMatrix

from .config import Config
from .data import CLASSES, load, prepare_batch
from .metrics import create_evaluator
from .model import Net
from .pictures import draw_predictions


def evaluate(config: Config, run: recipe.Run) -> dict[str, float]:
    """Write ``metrics.json``, the confusion matrix and the pictures; return the headline."""
    device = idist.device()
    data = load(config, run.data)
    net = Net(config.dropout)
    model = idist.auto_model(net)
    evaluator = create_evaluator(model)
    ConfusionMatrix(CLASSES).attach(evaluator, "confusion")

    results = {}
    for name in ("best", "model"):
        net.load_state_dict(run.load(f"{name}.pt"))
        results[name] = dict(evaluator.run(data.validation).metrics)
        confusion = results[name].pop("confusion")
    headline = results["model"]
    best = {f"best_{name}": value for name, value in results["best"].items()}
    run.write_metrics({**headline, **best})

    if idist.get_rank() == 0:
        table = confusion_table(confusion)
        run.write("confusion.tsv", lambda file: file.write(table.encode()))
        matrix = draw_confusion(confusion)
        run.write("confusion.png", lambda file: write_png(matrix, file))
        images, labels = next(iter(data.validation))
        with torch.no_grad():
            log_probabilities = net(prepare_batch((images, labels), device)[0])
        answers = draw_predictions(images, labels, log_probabilities)
        run.write("predictions.png", lambda file: write_png(answers, file))
    return headline


if __name__ == "__main__":
    recipe.main(evaluate, Config, __file__, resumable=False)
