"""The parameters of this recipe; their values are in ``params.yaml``, one block a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cookfire.handlers import recipe


@dataclass(frozen=True, kw_only=True)
class Config(recipe.Config):
    """What a profile sets, beside what every recipe has (``recipe.Config``)."""

    net: Literal["fast", "resnet18"]
    """Which net of ``model.py``."""

    widths: tuple[int, int, int] = (64, 256, 256)
    """Channels of the three groups of the net ``fast``; those of airbench94."""

    epochs: float
    """Passes over the training images; one cut short at the end has no row in curves.tsv."""

    batch_size: int
    """Images of a training step, over all processes."""

    validation_batch_size: int = 1000
    """Images of an evaluation's step, over all processes: no effect but on memory and speed."""

    lr: float
    """Step size of SGD (Nesterov) at its highest, for the gradient of the mean loss."""

    lr_start: float
    """The step size at the first step, as a share of ``lr``."""

    lr_peak: float
    """Where the step size is highest, as a share of the training; before and after it is linear."""

    lr_end: float
    """The step size at the last step, as a share of ``lr``."""

    momentum: float
    """Share of the last step that SGD adds to the next, from 0 to below 1."""

    weight_decay: float
    """Factor of the weights that is added to their gradient, as torch's SGD has it."""

    shift_lr: float = 1.0
    """Factor of ``lr`` for the normalisations' shifts, whose decay is that much smaller."""

    label_smoothing: float = 0.0
    """Share of a label's probability that is spread over all classes."""

    whitening_epochs: float = 3
    """Epochs after which the bias of the net ``fast``'s first layer stays as it is."""

    lookahead: int = 0
    """Steps after which weights and their running mean meet (arXiv 1907.08610); 0: never."""

    augmentation: Literal["tensor", "albumentations"] = "tensor"
    """Whole batches as tensors, or image by image by albumentations, which takes far longer."""

    translate: int
    """Pixels by which training images are shifted at most, either way; borders are reflected."""

    alternate_flips: bool = False
    """Whether an image is mirrored every second epoch, rather than by chance in each."""

    views: Literal["one", "flip", "flip and shift"] = "one"
    """What an evaluation averages the logits of: the image; also its mirror image; also both
    shifted by a pixel, two ways. The record's figures are of the last."""

    validate_every: int = 1
    """Epochs between two evaluations while it trains."""

    mlflow: bool = True
    """Whether to log into MLflow too, which takes some seconds to import."""

    def __post_init__(self) -> None:
        """Refuse what would only fail, or train nothing, later."""
        super().__post_init__()
        for name in ("batch_size", "validation_batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("epochs", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected from 0 to below 1, got {getattr(self, name)}")
        for name in ("lr_start", "lr_peak", "lr_end"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected from 0 to below 1, got {getattr(self, name)}")
        if not 0 <= self.translate < 16:
            raise ValueError(f"translate: expected from 0 to below 16, got {self.translate}")
        for name in ("weight_decay", "whitening_epochs", "lookahead"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not self.shift_lr > 0:
            raise ValueError(f"shift_lr: expected more than 0, got {self.shift_lr}")
        if min(self.widths) < 1:
            raise ValueError(f"widths: expected three of at least 1, got {list(self.widths)}")
        if self.alternate_flips and self.augmentation != "tensor":
            raise ValueError("alternate_flips: expected false with augmentation: albumentations")
