"""Write masks and overlays of pictures of your own, by a profile's trained weights.

    python -m recipes.voc_segmentation.predict cat.jpg street.png --profile full
    python -m recipes.voc_segmentation.predict *.jpg --profile small --weights model.pt

Of ``cat.jpg`` come ``cat_mask.png``, classes in VOC's palette, and ``cat_overlay.png``, the picture
under their colours; and a line that names the classes with their shares of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .config import Config
from .evaluate import predict
from .model import create_model
from .pairs import read_image
from .palette import CLASSES, Pixels, overlay, to_picture

HERE = Path(__file__).resolve().parent


def load_net(config: Config, weights: Path, profile: str) -> nn.Module:
    """Return the profile's net with the weights of a file, ready to predict.

    Raises:
        RecipeError: there is no such file, or it holds another net's weights.
    """
    run = recipe.Run(profile, outputs=weights.parent, logs=weights.parent, data=weights.parent)
    net = create_model(config, learned=False)
    try:
        net.load_state_dict(run.load(weights.name))
    except RuntimeError as error:
        raise recipe.RecipeError(
            f"{weights}: not the weights of profile {profile!r}'s net ({config.net}); give the "
            "profile that trained them"
        ) from error
    return net.to(idist.device()).eval()


def describe(mask: Pixels) -> str:
    """Return the classes on a mask with their shares, the largest first."""
    shares = np.bincount(mask.ravel(), minlength=len(CLASSES)) / mask.size
    order = [number for number in np.argsort(-shares, kind="stable") if shares[number] > 0]
    return ", ".join(f"{CLASSES[number]} {shares[number]:.1%}" for number in order)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and write the pictures; 2 where that can't be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--profile", default="full", help="which trained the weights (full)")
    parser.add_argument(
        "--weights", type=Path, help="of that profile (runs/<profile>/model.pt beside params.yaml)"
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to (this one)")
    given = parser.parse_args(argv)
    weights = given.weights or HERE / "runs" / given.profile / "model.pt"
    try:
        config = recipe.load(HERE / "params.yaml", given.profile, Config)
        names = [image.stem for image in given.images]
        for name in names:
            if names.count(name) > 1:
                raise recipe.RecipeError(f"{name}: two images of that name; give them one by one")
        net = load_net(config, weights, given.profile)
        given.out.mkdir(parents=True, exist_ok=True)
        for path in given.images:
            image = read_image(path)
            mask = predict(net, config, image)
            to_picture(mask).save(given.out / f"{path.stem}_mask.png")
            Image.fromarray(overlay(image, mask)).save(given.out / f"{path.stem}_overlay.png")
            print(f"{path}: {describe(mask)}", flush=True)
    except (recipe.RecipeError, recipe.DamagedCheckpoint) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or given.out}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
