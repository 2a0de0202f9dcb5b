"""The parameters of this recipe; their values are in ``params.yaml``, one block a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cookfire.handlers import recipe


@dataclass(frozen=True, kw_only=True)
class Config(recipe.Config):
    """What a profile sets, beside what every recipe has (``recipe.Config``)."""

    load_size: int
    """Pixels, in height and width, to which pictures are resized when they are read."""

    image_size: int
    """Pixels of the window that training cuts out by chance; tests take the whole picture,
    resized to this."""

    sizes: Literal["equal", "any"] = "equal"
    """Whether all pictures must have one size, as those of the published sets do; of ``any`` size,
    a picture is cut to a square around its middle before it is resized."""

    paired: bool = False
    """Whether test pictures of the same name are translations of one another, so that the distance
    to the known answer is measured; so they are in tiny_horse2zebra, and in maps and facades."""

    width: int = 64
    """Channels of a generator's first layer; the residual blocks have four times as many."""

    residual_blocks: int = 9
    """Of a generator; the paper has 9 for pictures of 256 pixels, 6 for 128."""

    discriminator_width: int = 64
    """Channels of a discriminator's first layer."""

    discriminator_layers: int = 3
    """Layers of a discriminator that halve the size; 3 make the PatchGAN of 70x70 pixels."""

    pool: int = 50
    """Generated pictures of each domain that are kept to show the discriminators; 0: none."""

    lambda_cycle: float = 10.0
    """Weight of the cycle losses, beside the adversarial ones."""

    lambda_identity: float
    """Weight of the identity losses, as a share of ``lambda_cycle``; 0: they are not computed."""

    batch_size: int
    """Pictures of either domain in a training step, over all processes."""

    validation_batch_size: int = 4
    """Pictures of an evaluation's step, over all processes: no effect but on memory and speed."""

    lr: float = 2e-4
    """Step size of Adam, of the generators as of the discriminators."""

    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's decays of the mean of gradients and of their squares."""

    epochs: int
    """Passes over the larger domain's training pictures with the whole step size."""

    decay_epochs: int
    """Further ones, in which the step size goes down to 0 in a straight line."""

    features: Literal["auto", "inception_v3", "colors_and_edges"] = "auto"
    """What sets of pictures are compared by (``features.py``); ``auto``: by Inception where its
    weights are. The metrics' names say which it was."""

    validate_every: int = 1
    """Epochs between two evaluations while it trains."""

    mlflow: bool = True
    """Whether to log into MLflow too, which takes some seconds to import."""

    def __post_init__(self) -> None:
        """Refuse what would only fail, or train nothing, later."""
        super().__post_init__()
        at_least_1 = ("width", "discriminator_width", "discriminator_layers", "batch_size",
                      "validation_batch_size", "validate_every")  # fmt: skip
        for name in at_least_1:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("residual_blocks", "pool", "epochs", "decay_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        for name in ("lambda_cycle", "lambda_identity"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr: expected more than 0, got {self.lr}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected from 0 to below 1, got {list(self.betas)}")
        if self.epochs + self.decay_epochs < 1:
            raise ValueError("epochs: expected at least 1, together with decay_epochs; got 0")
        if self.image_size % 4 or self.image_size < 16:
            raise ValueError(
                f"image_size: expected a multiple of 4, at least 16, got {self.image_size}: a "
                "generator halves it twice"
            )
        smallest = 2**self.discriminator_layers * 3
        if self.image_size < smallest:
            raise ValueError(
                f"image_size: expected at least {smallest} for {self.discriminator_layers} "
                f"discriminator_layers, got {self.image_size}"
            )
        if self.load_size < self.image_size:
            raise ValueError(
                f"load_size: expected at least image_size, {self.image_size}, got {self.load_size}"
            )
