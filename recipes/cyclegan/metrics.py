"""What is measured of the generators, while they train and at the end."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from cookfire import distributed as idist
from cookfire.engine import Engine
from cookfire.metrics import MeanAbsoluteError
from cookfire.metrics.gan import FID

from .config import Config
from .data import Batch, prepare_batch
from .features import create_extractor
from .model import Generator, Generators


def create_evaluator(config: Config, generators: Generators) -> Engine:
    """Return an engine that measures on batches of test pictures, in float32.

    Its metrics: ``fid_a_to_b``, the Frechet distance of A turned into B and real B, and
    ``fid_b_to_a``, by Inception, or ``colors_and_edges_*`` (``features.py``); ``cycle_a`` and
    ``cycle_b``, the mean absolute difference of a picture and itself turned forth and back. Where
    test pictures are pairs, ``distance_a_to_b`` and ``distance_b_to_a``, that of a translation and
    the known answer, and ``untranslated_distance``, that of the picture itself. Differences are of
    colours from 0 to 1.
    """
    device = idist.device()
    extractor = create_extractor(config.features, device)

    def measure(_: Engine, batch: Batch) -> dict[str, Any]:
        a, b = prepare_batch(batch, device, non_blocking=True)
        with torch.no_grad():
            fake_b, fake_a = _translated(generators.a_to_b, a), _translated(generators.b_to_a, b)
            cycled_a = _translated(generators.b_to_a, fake_b)
            cycled_b = _translated(generators.a_to_b, fake_a)
            output: dict[str, Any] = {
                "a_to_b": (features(b), features(fake_b)),
                "b_to_a": (features(a), features(fake_a)),
                "cycle_a": _colors(cycled_a, a),
                "cycle_b": _colors(cycled_b, b),
            }
            if config.paired:
                output["distance_a_to_b"] = _colors(fake_b, b)
                output["distance_b_to_a"] = _colors(fake_a, a)
                output["untranslated_distance"] = _colors(a, b)
        return output

    def features(pictures: Tensor) -> Tensor:
        if not len(pictures):
            return pictures.new_zeros(0, extractor.num_features)
        found: Tensor = extractor.net(pictures)
        return found

    evaluator = Engine(measure)
    for direction in ("a_to_b", "b_to_a"):
        metric = FID(extractor.num_features, output_transform=itemgetter(direction))
        metric.attach(evaluator, f"{extractor.name}_{direction}")
    names = ["cycle_a", "cycle_b"]
    if config.paired:
        names += ["distance_a_to_b", "distance_b_to_a", "untranslated_distance"]
    for name in names:
        MeanAbsoluteError(output_transform=itemgetter(name)).attach(evaluator, name)
    return evaluator


def results(evaluator: Engine) -> dict[str, float]:
    """Return what an evaluation found, as numbers."""
    return {name: float(value) for name, value in evaluator.state.metrics.items()}


def _translated(generator: Generator, pictures: Tensor) -> Tensor:
    """Translate a batch, of which nothing may be left: a share of the smaller domain's end."""
    return generator(pictures) if len(pictures) else pictures


def _colors(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return pictures as numbers from 0 to 1, (B * 3 * H * W,), as MeanAbsoluteError takes them."""
    return (one.flatten() + 1) / 2, (other.flatten() + 1) / 2
