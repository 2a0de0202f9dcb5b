"""Export a profile's trained weights for other programs, and check that what they get agrees.

    python -m recipes.imagenet.export --profile tiny --out DIR
    python -m recipes.imagenet.export --profile full --out DIR

It reads ``model.pt`` and ``ema.pt`` in DIR, and writes beside them ``model.safetensors``,
``ema.safetensors`` (weights alone, for a model of the same name), and ``model.onnx``, ``ema.onnx``
(the whole net, for any batch of images of the profile's ``validation_size``, normalised as in
``data.py``). Each is loaded again and must give the same: the former equal tensors, the latter, run
by ONNX Runtime, logits that differ by less than a thousandth of their spread, and the same classes.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from cookfire import distributed as idist
from cookfire.handlers import export_weights, load_weights, recipe

from .config import Config
from .data import Batch, load, prepare_batch
from .model import create_model
from .pictures import example_images

CLOSE = 1e-3  # of the logits' standard deviation


def export(config: Config, run: recipe.Run) -> dict[str, float]:
    """Write the files; return how far apart the logits are, as shares of their spread.

    Raises:
        RecipeError: what was written does not agree with the model.
    """
    if idist.get_world_size() > 1:
        raise recipe.RecipeError("export: one process does it; expected processes: 1")
    data = load(config, run.data)
    pixels, labels = example_images(config, data.sources["val"])
    images, _ = prepare_batch(Batch(pixels, labels, labels[:0]))
    differences = {}
    for name in ("model", "ema"):
        net = create_model(config, len(data.classes), trained=True)
        net.load_state_dict(run.load(f"{name}.pt"))
        net.eval()
        notes = {"model": config.model, "classes": ",".join(data.classes)}
        weights = run.outputs / f"{name}.safetensors"
        export_weights(net, weights, notes)
        _check_weights(config, net, weights, len(data.classes))
        differences[f"{name}_onnx"] = _export_onnx(net, images, run.outputs / f"{name}.onnx")
    return differences


def _check_weights(config: Config, net: nn.Module, path: Path, classes: int) -> None:
    other = create_model(config, classes, trained=True)
    load_weights(other, path)
    ours = net.state_dict()
    for name, value in other.state_dict().items():
        if not torch.equal(value, ours[name]):
            raise recipe.RecipeError(f"{path}: {name} differs from the model's")


def _export_onnx(net: nn.Module, images: Tensor, path: Path) -> float:
    """Write the net, run it by ONNX Runtime, and return how far it is from torch."""
    import onnxruntime

    images = images.contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts to each other
        torch.onnx.export(
            net, (images[:2],), path, dynamo=True, external_data=False, verbose=False,
            input_names=["images"], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.no_grad():
        ours: Tensor = net(images)
    difference = float((ours - theirs).abs().max() / ours.std())
    # A tie apart, which rounding may decide either way.
    lost = ours.max(dim=1).values - ours.gather(1, theirs.argmax(1, keepdim=True)).squeeze(1)
    if difference > CLOSE or float(lost.max() / ours.std()) > CLOSE:
        raise recipe.RecipeError(
            f"{path}: its logits are {difference:.2g} of their spread apart from the model's, "
            f"expected at most {CLOSE}"
        )
    return difference


if __name__ == "__main__":
    recipe.main(export, Config, __file__, resumable=False, owns_runs=False)
