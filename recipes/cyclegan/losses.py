"""The three losses of the generators, and that of the discriminators."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Config
from .model import Pictures


def of_generators(
    config: Config, pictures: Pictures, looks_a: Tensor, looks_b: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what the generators minimise, and its parts, unweighted and detached.

    Args:
        config: has the weights.
        pictures: what the generators made of a batch.
        looks_a: the discriminator's numbers of ``fake_a``.
        looks_b: those of ``fake_b``.

    Returns:
        The sum; and ``adversarial_*`` (mean square of what fakes lack to look real), ``cycle_*``
        and ``identity_*`` (mean absolute difference, of values from -1 to 1) of each domain.
    """
    parts = {
        "adversarial_a": _square(looks_a, 1.0),
        "adversarial_b": _square(looks_b, 1.0),
        "cycle_a": F.l1_loss(pictures.cycled_a.float(), pictures.real_a),
        "cycle_b": F.l1_loss(pictures.cycled_b.float(), pictures.real_b),
    }
    adversarial = parts["adversarial_a"] + parts["adversarial_b"]
    total = adversarial + config.lambda_cycle * (parts["cycle_a"] + parts["cycle_b"])
    if pictures.same_a is not None and pictures.same_b is not None:
        parts["identity_a"] = F.l1_loss(pictures.same_a.float(), pictures.real_a)
        parts["identity_b"] = F.l1_loss(pictures.same_b.float(), pictures.real_b)
        weight = config.lambda_cycle * config.lambda_identity
        total = total + weight * (parts["identity_a"] + parts["identity_b"])
    return total, {"generators": total.detach()} | {
        name: value.detach() for name, value in parts.items()
    }


def of_discriminators(looks_a: Tensor, looks_b: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what the discriminators minimise, and each one's part, detached.

    Args:
        looks_a: numbers of a batch of real pictures of A, followed by as many generated ones.
        looks_b: likewise of B.

    Returns:
        The sum, and ``discriminator_*``: half the mean squares of what is lacking to tell them
        apart, 0.25 where all look half real.
    """
    parts = {}
    for name, looks in (("discriminator_a", looks_a), ("discriminator_b", looks_b)):
        of_real, of_fake = looks.chunk(2)
        parts[name] = (_square(of_real, 1.0) + _square(of_fake, 0.0)) / 2
    total = parts["discriminator_a"] + parts["discriminator_b"]
    return total, {name: value.detach() for name, value in parts.items()}


def _square(looks: Tensor, target: float) -> Tensor:
    return torch.square(looks.float() - target).mean()


def names(config: Config) -> list[str]:
    """Return the names of all parts of a step, the sum of the generators' first."""
    kinds = ["adversarial", "cycle", *(["identity"] if config.lambda_identity else [])]
    kinds.append("discriminator")
    return ["generators", *(f"{kind}_{domain}" for kind in kinds for domain in "ab")]


def summary(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a progress bar has room for: the generators' loss and the discriminators'."""
    both = parts["discriminator_a"] + parts["discriminator_b"]
    return {"generators": parts["generators"], "discriminators": both}
