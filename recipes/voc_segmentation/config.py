"""The parameters of this recipe; their values are in ``params.yaml``, one block a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cookfire.handlers import recipe


@dataclass(frozen=True, kw_only=True)
class Config(recipe.Config):
    """What a profile sets, beside what every recipe has (``recipe.Config``)."""

    net: Literal[
        "light",
        "timm",
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3_resnet50",
        "deeplabv3_resnet101",
        "fcn_resnet50",
        "fcn_resnet101",
        "lraspp_mobilenet_v3_large",
    ]
    """A small net of our own, an encoder of timm with the same head, or torchvision's of a name."""

    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of the stages of the net ``light``, each half the size of the one before."""

    encoder: str = "resnet18"
    """Name of timm's encoder, for the net ``timm``; it must have ``features_only``."""

    head_width: int = 64
    """Channels of the head of the nets ``light`` and ``timm``."""

    weights_backbone: Literal["torchvision", "timm"] | None = None
    """Whose ImageNet weights the backbone begins with, which are downloaded; null: random ones."""

    training_split: str = "train"
    """List in ``ImageSets/Segmentation`` of the training images; ``trainaug``: also SBD's."""

    epochs: float
    """Passes over the training images; one cut short at the end has no row in curves.tsv."""

    batch_size: int
    """Images of a training step, over all processes."""

    accumulate: int = 1
    """Parts in which each process takes its share of a batch, one after the other: less memory for
    the same gradient, but that each part is normalised by its own statistics."""

    validation_batch_size: int = 1
    """Images of an evaluation's step in each process, padded with void to the largest of them; with
    more than 1 the padding has a little say in what is predicted near it."""

    workers: int = 0
    """Processes that read and transform images, for each process that trains; no effect on data."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW, which takes a net further that begins with random weights."""

    lr: float
    """Step size for the head at its highest, for the mean loss of a pixel."""

    backbone_lr: float = 1.0
    """Factor of ``lr`` for the backbone: less where it begins with learned weights."""

    power: float = 0.9
    """Of the poly schedule: the step size is ``lr * (1 - step / steps) ** power``."""

    warmup: float = 0.0
    """Share of the training in which the step size rises in a straight line, from nearly 0."""

    momentum: float = 0.9
    """Share of the last step that SGD adds to the next, from 0 to below 1; AdamW's first beta."""

    weight_decay: float
    """Factor of the weights that is added to their gradient, as torch's SGD has it; with AdamW, by
    which the weights shrink at each step, times ``lr``."""

    auxiliary: float = 0.0
    """Weight of the loss of torchvision's auxiliary head; 0: the net has none."""

    background_weight: float = 1.0
    """Weight of a background pixel in the loss, of other classes' pixels 1: most pixels are
    background."""

    sync_norm: bool = False
    """Whether the processes' batch normalisations share their statistics (GPUs only)."""

    size: int
    """Pixels, in height and width, of what is cut out of a training image; void fills it up."""

    scales: tuple[float, float] = (0.5, 2.0)
    """Least and largest factor by which a training image is resized, before it is cut."""

    jitter: float = 0.0
    """By how much brightness, contrast and saturation change at most, as a share."""

    views: tuple[float, ...] = (1.0,)
    """Factors of an image's size whose probabilities an evaluation averages, at native size."""

    flip: bool = False
    """Whether an evaluation averages over mirror images too."""

    validate_every: int = 1
    """Epochs between two evaluations while it trains, by one view of each image (the first)."""

    mlflow: bool = True
    """Whether to log into MLflow too, which takes some seconds to import."""

    def __post_init__(self) -> None:
        """Refuse what would only fail, or train nothing, later."""
        super().__post_init__()
        for name in ("batch_size", "accumulate", "validation_batch_size", "validate_every",
                     "head_width", "size"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("epochs", "lr", "backbone_lr", "power", "background_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        for name in ("momentum", "warmup", "jitter"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected from 0 to below 1, got {getattr(self, name)}")
        for name in ("weight_decay", "auxiliary", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(
                f"widths: expected two or more, of at least 1, got {list(self.widths)}"
            )
        low, high = self.scales
        if not 0 < low <= high:
            raise ValueError(f"scales: expected two above 0 in order, got {list(self.scales)}")
        if not self.views or min(self.views) <= 0:
            raise ValueError(f"views: expected one or more above 0, got {list(self.views)}")
        if self.batch_size % (self.accumulate * self.processes):
            raise ValueError(
                f"batch_size: expected a multiple of accumulate x processes, "
                f"{self.accumulate} x {self.processes}, got {self.batch_size}"
            )
        own = self.net in ("light", "timm")
        if own and self.auxiliary:
            raise ValueError(f"auxiliary: the net {self.net!r} has no auxiliary head; expected 0")
        if self.net.startswith("lraspp") and self.auxiliary:
            raise ValueError("auxiliary: LR-ASPP has no auxiliary head; expected 0")
        whose = {"light": None, "timm": "timm"}.get(self.net, "torchvision")
        if self.weights_backbone not in (None, whose):
            choices = "null" if whose is None else f"{whose} or null"
            raise ValueError(
                f"weights_backbone: expected {choices} for the net {self.net!r}, "
                f"got {self.weights_backbone!r}"
            )
