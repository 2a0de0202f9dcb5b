"""Measure a profile's trained weights, and their moving average, on the validation images.

    python -m recipes.imagenet.evaluate --profile tiny
    python -m recipes.imagenet.evaluate --profile full --data DIR --out DIR

The headline is that of ``model.pt``, the weights after the last step; ``ema_*`` are of ``ema.pt``,
their moving average (the same weights, where the profile has none). Images that can't be decoded
are in neither; ``images`` and ``corrupt`` say how many there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cookfire import distributed as idist
from cookfire.engine import Engine
from cookfire.handlers import recipe
from cookfire.handlers.recipe.pictures import write_png
from cookfire.metrics import ConfusionMatrix

from .config import Config
from .corrupt import CorruptImages
from .data import Batch, Loaders, load, prepare_batch
from .metrics import create_evaluator
from .model import create_model
from .pictures import draw_predictions, example_images


def evaluate(config: Config, run: recipe.Run) -> dict[str, float]:
    """Write ``metrics.json``, each class's accuracy, and the picture; return the headline."""
    data = load(config, run.data)
    net = create_model(config, len(data.classes), trained=True)
    model = idist.auto_model(net)
    evaluator = create_evaluator(model, len(data.classes))
    ConfusionMatrix(len(data.classes)).attach(evaluator, "confusion")
    corrupt = CorruptImages(data.sources)
    corrupt.attach(evaluator, "val")

    measured, counts = {}, {}
    for name in ("ema", "model"):  # the latter's weights stay, for the picture
        net.load_state_dict(run.load(f"{name}.pt"))
        measured[name], counts[name] = _measure(evaluator, data)
    images = counts["model"].sum(dim=1)
    run.write_metrics(
        {
            **measured["model"],
            **{f"ema_{name}": value for name, value in measured["ema"].items()},
            "images": float(images.sum()),
            "corrupt": float(len(corrupt.names("val"))),
        }
    )
    if idist.get_rank() == 0:
        table = _classes_table(data.classes, counts)
        run.write("classes.tsv", lambda file: file.write(table.encode()))
        pixels, labels = example_images(config, data.sources["val"])
        with torch.no_grad():
            logits = net.eval()(_normalised(pixels)).float().cpu()
        picture = draw_predictions(pixels, labels, logits, data.classes)
        run.write("predictions.png", lambda file: write_png(picture, file))
    return measured["model"]


def _measure(evaluator: Engine, data: Loaders) -> tuple[dict[str, float], Tensor]:
    metrics = dict(evaluator.run(data.validation).metrics)
    return metrics, metrics.pop("confusion").cpu()


def _normalised(pixels: Tensor) -> Tensor:
    nothing = torch.zeros(len(pixels), dtype=torch.int64)
    return prepare_batch(Batch(pixels, nothing, nothing), idist.device())[0]


def _classes_table(classes: list[str], counts: dict[str, Tensor]) -> str:
    """Return a line a class: how many images, and which share of them was right."""
    lines = ["class\timages\taccuracy\tema_accuracy\n"]
    images = counts["model"].sum(dim=1)
    for label, name in enumerate(classes):
        total = int(images[label])
        right = (int(counts[which][label, label]) / max(1, total) for which in ("model", "ema"))
        lines.append("\t".join([name, str(total), *(f"{share:.4f}" for share in right)]) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    recipe.main(evaluate, Config, __file__, resumable=False)
