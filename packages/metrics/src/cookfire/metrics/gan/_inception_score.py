"""The Inception score."""

from __future__ import annotations

import torch
from torch import Tensor

from cookfire.metrics._state import MetricState
from cookfire.metrics.gan._features import FeatureMetric

_ROUNDING = 0.01


class InceptionScore(FeatureMetric):
    """The Inception score of generated images, a float from 1 to the number of classes.

    ``exp(mean KL(p(y|x) || p(y)))``, of the probabilities p(y|x) of an image's classes and their
    mean p(y): high if images are clearly of one class, and of many (Salimans et al., "Improved
    techniques for training GANs", 2016), over all images at once, not the mean over ten parts of
    them.

    **It is the score of the literature only with the literature's network.** By default the
    probabilities are those of torchvision's Inception v3
    (:class:`~cookfire.metrics.gan.utils.InceptionModel`); say which it was.

    Args:
        num_features: the number of classes; None: Inception's 1000.
        feature_extractor: a module, ``images -> probabilities (batch, num_features)``; it is put
            into evaluation mode. None with ``num_features``: what comes are the probabilities.
        output_transform: turns the engine's output into images.
        device: where the extractor is brought and sums are kept; None: nothing is brought
            anywhere.

    Raises:
        TypeError: ``feature_extractor`` is no module.
        ValueError: it came without ``num_features``; by ``update``, features of another shape; by
            ``compute``, what are no probabilities.
        FileNotFoundError: there are no weights for the default extractor; it says what to do.

    Example:
        >>> metric = InceptionScore(num_features=4)
        >>> metric.update(torch.eye(4))
        >>> round(metric.compute(), 6)
        4.0
    """

    _inception_features = False
    required_output_keys = None

    probabilities = MetricState(torch.float64, shape=("_num_features",))
    entropies = MetricState(torch.float64)
    count = MetricState(torch.int64)

    def update(self, output: Tensor) -> None:
        """Add a batch."""
        probabilities = self._extract(output)
        self.accumulate(
            probabilities=probabilities.sum(0),
            entropies=torch.special.entr(probabilities).sum(),
            count=len(probabilities),
        )

    def compute(self) -> float | Tensor:
        """Return the score as a float.

        Raises:
            NotComputableError: there was no image.
        """
        self._require("count")
        total = self.probabilities.sum() / self.count
        # A negative one has the entropy -inf. Half precision does not sum to 1 exactly.
        if not self.entropies.isfinite() or not (total - 1).abs() < _ROUNDING:
            raise ValueError(
                f"InceptionScore: expected probabilities, from 0 to 1 and of the sum 1 for each "
                f"image, got a mean sum of {total.item():.4g}: make them by softmax in the "
                "feature_extractor or output_transform"
            )
        marginal = torch.special.entr(self.probabilities / self.count).sum()
        return torch.exp(marginal - self.entropies / self.count)
