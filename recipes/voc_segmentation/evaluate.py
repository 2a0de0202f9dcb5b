"""Measure a profile's trained weights on the validation images, whole and at their own size.

    python -m recipes.voc_segmentation.evaluate --profile tiny
    python -m recipes.voc_segmentation.evaluate --profile small --data DIR --out DIR

The headline is that of ``model.pt``, the weights after the last step, in whose choice no validation
image had a say, with the views of each image that the profile asks for; ``one_view_miou`` is by the
first alone. Void is not counted. All but the loss is of one count of pixels, in ``confusion.tsv``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cookfire import distributed as idist
from cookfire.handlers import recipe
from cookfire.handlers.recipe.pictures import write_png

from .config import Config
from .data import WholePairs, load_validation, normalise
from .metrics import HEADLINE, average_views, create_evaluator
from .model import create_model
from .pairs import find
from .palette import CLASSES, Pixels
from .pictures import WorstImages, draw_iou, draw_shares, draw_worst


def evaluate(config: Config, run: recipe.Run) -> dict[str, float]:
    """Write ``metrics.json``, tables of the classes and the pictures; return the headline."""
    images = WholePairs(find(run.data, "val"))
    loader = load_validation(config, images)
    net = create_model(config, learned=False)
    net.load_state_dict(run.load("model.pt"))
    model = idist.auto_model(net)
    evaluator = create_evaluator(model, config.views, flip=config.flip)
    worst = WorstImages(evaluator)

    metrics = dict(evaluator.run(loader).metrics)
    lowest = worst.compute()
    headline = {name: float(metrics[name]) for name in HEADLINE}
    one_view = headline["miou"]
    if len(config.views) > 1 or config.flip:
        one_view = float(create_evaluator(model, config.views[:1]).run(loader).metrics["miou"])
    iou = metrics["iou"]
    run.write_metrics(
        {
            **headline,
            "one_view_miou": one_view,
            **{f"iou_{name}": float(of) for name, of in zip(CLASSES, iou, strict=True)},
        }
    )
    if idist.get_rank() == 0:
        write_tables(run, iou, metrics["confusion"])
        shares = draw_shares(metrics["confusion"])
        run.write("confusion.png", lambda file: write_png(shares, file))
        bars = draw_iou(iou)
        run.write("iou.png", lambda file: write_png(bars, file))
        net.eval()
        picture = draw_worst(lowest, images.pairs, lambda image: predict(net, config, image))
        run.write("worst.png", lambda file: write_png(picture, file))
    return headline


def write_tables(run: recipe.Run, iou: Tensor, confusion: Tensor) -> None:
    """Write each class's IoU, and the counts of pixels: a row a mask's class."""
    rows = ["class\tiou", *(f"{n}\t{float(of)!r}" for n, of in zip(CLASSES, iou, strict=True))]
    text = "".join(f"{row}\n" for row in rows)
    run.write("iou.tsv", lambda file: file.write(text.encode()))
    rows = ["\t".join(["mask", *CLASSES])]
    for name, counts in zip(CLASSES, confusion.tolist(), strict=True):
        rows.append("\t".join([name, *map(str, counts)]))
    counted = "".join(f"{row}\n" for row in rows)
    run.write("confusion.tsv", lambda file: file.write(counted.encode()))


@torch.no_grad()
def predict(net: nn.Module, config: Config, image: Pixels) -> Pixels:
    """Return the mask (H, W) of an image (H, W, 3), by the profile's views of it."""
    device = next(net.parameters()).device
    pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).to(device)
    scores = average_views(net, normalise(pixels), config.views, flip=config.flip)
    mask: Pixels = scores[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return mask


if __name__ == "__main__":
    recipe.main(evaluate, Config, __file__, resumable=False)
