"""The parameters of this recipe; their values are in ``params.yaml``, one block a profile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cookfire.handlers import recipe


@dataclass(frozen=True, kw_only=True)
class Config(recipe.Config):
    """What a profile sets, beside what every recipe has (``recipe.Config``)."""

    model: str
    """A name that timm has (``timm.list_models()``), or torchvision's, as torchvision.resnet50."""

    options: dict[str, object] = field(default_factory=dict)
    """Further arguments of the model's constructor, such as {drop_path_rate: 0.1}."""

    weights: str | None = None
    """What to begin with: null: random weights; pretrained: those that timm or torchvision download
    by the model's name; else a file (.safetensors, .pt), relative to the working folder."""

    backbone_lr: float = 1.0
    """Factor of ``lr`` for all but the classifier (the last layer); 0: it stays frozen."""

    epochs: int
    """Passes over the training images."""

    batch_size: int
    """Images of an iteration, over all processes."""

    accumulate: int = 1
    """Iterations whose gradients make one step of the optimizer."""

    validation_batch_size: int = 256
    """Images of an evaluation's step, over all processes: no effect but on memory and speed."""

    size: int
    """Height and width of the training images at the end, in pixels."""

    first_size: int | None = None
    """Their size in the first epochs; None: ``size`` in all. It grows on a straight line, in steps
    of 32 pixels (sizes too many would each be compiled)."""

    grown_at: float = 0.85
    """The share of the epochs after which images have their full ``size``."""

    validation_size: int
    """Height and width of the images that it is measured on; somewhat more than ``size`` is best,
    since random crops magnify (arXiv 1906.06423)."""

    validation_crop: float = 0.875
    """Share of the shorter side that an evaluation's square from the middle has: 224 of 256."""

    smallest_crop: float = 0.08
    """The least share of an image's area that a random crop has; the most is all of it."""

    flip: float = 0.5
    """How probable it is that a training image is mirrored."""

    mixup: float = 0.0
    """Alpha of mixup (arXiv 1710.09412), which mixes the images of a batch; 0: none."""

    cutmix: float = 0.0
    """Alpha of CutMix (arXiv 1905.04899), likewise; with both, chance takes one for each batch."""

    label_smoothing: float = 0.0
    """Share of a label's probability that is spread over all classes."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov's momentum, or AdamW."""

    lr: float
    """Step size at its highest, for the gradient of the mean loss."""

    warmup: float = 0.0
    """Epochs in which the step size rises from 0, on a straight line; then it falls (cosine)."""

    momentum: float = 0.9
    """Share of the last step that SGD adds to the next (AdamW: its first beta)."""

    weight_decay: float
    """Factor of the weights that is added to their gradient (SGD), or taken off them (AdamW);
    biases and normalisations, which have one dimension, do not decay."""

    ema: float = 0.0
    """Share of the weights that their moving average takes up at each iteration; 0: no average."""

    sync_bn: bool = False
    """Whether normalisations use the statistics of all processes (on GPUs only)."""

    workers: int = 0
    """Processes that read and decode, for each training process; 0: it does so itself."""

    prefetch: int = 4
    """Batches that each worker has ready."""

    corrupt: Literal["skip", "fatal"] = "skip"
    """An image that can't be decoded: skip puts another in its place while training, and leaves it
    out of evaluations, counted and named; fatal looks at all images before the training."""

    validate_every: int = 1
    """Epochs between two evaluations while it trains."""

    mlflow: bool = True
    """Whether to log into MLflow too, which takes some seconds to import."""

    def __post_init__(self) -> None:
        """Refuse what would only fail, or train nothing, later."""
        super().__post_init__()
        for name in (
            "epochs", "batch_size", "accumulate", "validation_batch_size", "size", "prefetch",
            "validation_size", "validate_every",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.first_size is not None and not 1 <= self.first_size <= self.size:
            raise ValueError(
                f"first_size: expected from 1 to size ({self.size}), got {self.first_size}"
            )
        for name in ("validation_crop", "smallest_crop"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected above 0, at most 1, got {getattr(self, name)}")
        for name in ("flip", "grown_at"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected from 0 to 1, got {getattr(self, name)}")
        for name in ("momentum", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected from 0 to below 1, got {getattr(self, name)}")
        for name in ("mixup", "cutmix", "weight_decay", "workers", "backbone_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr: expected more than 0, got {self.lr}")
        if not 0 <= self.warmup < self.epochs:
            raise ValueError(
                f"warmup: expected from 0 to below epochs ({self.epochs}), got {self.warmup}"
            )
        if self.backbone_lr == 0 and self.weights is None:
            raise ValueError("backbone_lr: 0 leaves random weights as they are; give weights too")
