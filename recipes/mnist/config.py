"""The parameters of this recipe; their values are in ``params.yaml``, one block a profile."""

from __future__ import annotations

from dataclasses import dataclass

from cookfire.handlers import recipe


@dataclass(frozen=True, kw_only=True)
class Config(recipe.Config):
    """What a profile sets, beside what every recipe has (``recipe.Config``)."""

    epochs: int
    """Passes over the training images."""

    batch_size: int
    """Images of a training step, over all processes."""

    validation_batch_size: int
    """Images of an evaluation's step, over all processes: no effect but on memory and speed."""

    lr: float
    """Step size of SGD."""

    momentum: float
    """Share of the last step that SGD adds to the next, from 0 to below 1."""

    dropout: float
    """Probability that training zeroes a channel (after conv2) or a unit (after fc1)."""

    mlflow: bool = True
    """Whether to log into MLflow too, which takes some seconds to import."""

    def __post_init__(self) -> None:
        """Refuse what would only fail, or train nothing, later."""
        super().__post_init__()
        for name in ("epochs", "batch_size", "validation_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr: expected more than 0, got {self.lr}")
        for name in ("momentum", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected from 0 to below 1, got {getattr(self, name)}")
