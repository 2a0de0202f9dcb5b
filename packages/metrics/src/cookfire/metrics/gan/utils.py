"""The network whose features and predictions images are judged by."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["InceptionModel"]

FILE = "inception_v3_google-0cc3c7bd.pth"
"""The name that torchvision's weights have in torch's cache."""


class InceptionModel(nn.Module):
    """Torchvision's Inception v3, in evaluation mode and without gradients.

    Nothing is downloaded: the weights are those of a file. Images have the shape
    ``(batch, 3, height, width)``, with sides of at least 75 pixels (299 is what the network was
    trained with), normalised as torchvision's weights expect: from 0..1 by the means
    ``(0.485, 0.456, 0.406)`` and the deviations ``(0.229, 0.224, 0.225)``.

    Args:
        return_features: return the 2048 features of the last pooling layer; False: the
            probabilities of the 1000 classes.
        device: where the model is, and where images are brought.
        weights: a file with the model's state dict; None: where torch keeps its downloads,
            ``torch.hub.get_dir()/checkpoints/inception_v3_google-0cc3c7bd.pth``.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
        FileNotFoundError: there are no weights; it says how to get them.
        RuntimeError: the file holds another model's weights.
        ValueError: by ``forward``, images of another shape.
    """

    def __init__(
        self,
        return_features: bool,
        device: str | torch.device = "cpu",
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        state = torch.load(_find(weights), map_location="cpu", weights_only=True)
        from torchvision.models import inception_v3

        with torch.device("meta"):  # what is loaded need not be initialised
            self.model = inception_v3(weights=None, transform_input=True, init_weights=False)
        self.model.load_state_dict(state, assign=True)
        self.model.to(device)
        if return_features:
            self.model.fc = nn.Identity()
        self.return_features = return_features
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``(batch, 2048)`` or probabilities ``(batch, 1000)``, float32."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 75:
            raise ValueError(
                "InceptionModel: expected images (batch, 3, height, width) with sides of at least "
                f"75 pixels, got {tuple(images.shape)}: resize them, to 299 at best"
            )
        with torch.no_grad():
            first = next(self.model.parameters())
            output: Tensor = self.model(images.to(first.device, first.dtype))
            return output if self.return_features else output.softmax(1)

    def train(self, mode: bool = True) -> InceptionModel:  # noqa: ARG002 - a module's signature
        """Stay in evaluation mode."""
        return super().train(False)


def _find(weights: str | os.PathLike[str] | None) -> Path:
    if importlib.util.find_spec("torchvision") is None:
        raise ModuleNotFoundError(
            "InceptionModel needs torchvision: pip install torchvision, or give the metric a "
            "feature_extractor of your own"
        )
    if weights is not None:
        if not Path(weights).is_file():
            raise FileNotFoundError(f"InceptionModel: there is no file of weights {weights!s}")
        return Path(weights)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if not cached.is_file():
        raise FileNotFoundError(
            f"there are no weights of Inception v3 in {cached}. Where there is a network, python "
            '-c "from torchvision.models import Inception_V3_Weights as W; '
            'W.DEFAULT.get_state_dict()" puts them there; else copy them there, or give '
            "InceptionModel(weights=FILE), or a feature_extractor of your own, to the metric"
        )
    return cached
