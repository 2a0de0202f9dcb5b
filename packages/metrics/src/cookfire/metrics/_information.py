"""Entropy, divergences and mutual information of predicted distributions."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._pairs import PairMetric, SumOverPairs, to_precise
from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair, need_tensors


class _Distributions(PairMetric):
    """A metric of logits ``(batch, classes, ...)``."""

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        """Return the logarithms of the probabilities, worked out once for an engine's iteration."""
        return self._once("log probabilities", logits, self._log_softmax)

    def _log_softmax(self, logits: Tensor) -> Tensor:
        owner = type(self).__name__
        need_tensors(owner, logits)
        if logits.ndim < 2:
            raise ValueError(
                f"{owner}: expected logits (batch, classes, ...), got {tuple(logits.shape)}: "
                "reshape them by output_transform"
            )
        return to_precise(owner, "y_pred", logits).log_softmax(1)


class Entropy(_Distributions):
    """The mean entropy of the predicted distributions, in nats.

    ``H(p) = -sum p log p``, with ``p = softmax(y_pred)``; ``y_pred`` are logits of the shape
    ``(batch, classes, ...)``, each position a distribution; ``y`` is not looked at. A logit of
    minus infinity is a probability of 0 and adds nothing. Half precision is calculated in float32.

    Arguments are those of :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: by ``update``, another shape.
        TypeError: by ``update``, booleans or complex numbers.

    Example:
        >>> metric = Entropy()
        >>> metric.update((torch.zeros(2, 4), None))
        >>> round(metric.compute(), 4)  # log 4
        1.3863
    """

    total = MetricState(torch.float64)
    count = MetricState(torch.int64)

    def update(self, output: Sequence[Any]) -> None:
        """Add a batch."""
        y_pred, _ = need_pair(type(self).__name__, output)
        logarithms = self._log_probabilities(y_pred)
        self.accumulate(
            total=_sum_entropies(logarithms.exp(), logarithms), count=_positions(logarithms)
        )

    def compute(self) -> float | Tensor:
        """Return the mean entropy as a float.

        Raises:
            NotComputableError: there was no example.
        """
        return self._mean("total", "count")


class MutualInformation(Entropy):
    """The mutual information of input and predicted class, in nats: ``H(mean p) - mean H(p)``.

    It is high if single predictions are sure, and all classes occur (Hu et al., "Learning discrete
    representations via information maximizing self-augmented training", 2017). Shapes, arguments
    and errors are those of :class:`~cookfire.metrics.Entropy`.

    Example:
        >>> metric = MutualInformation()
        >>> metric.update((torch.tensor([[30.0, 0.0], [0.0, 30.0]]), None))
        >>> round(metric.compute(), 4)  # log 2
        0.6931
    """

    probabilities = MetricState(torch.float64, shape=None)
    """Their sum, ``(classes,)``."""

    def update(self, output: Sequence[Any]) -> None:
        """Add a batch."""
        y_pred, _ = need_pair(type(self).__name__, output)
        logarithms = self._log_probabilities(y_pred)
        probabilities = logarithms.exp()
        self.accumulate(
            total=_sum_entropies(probabilities, logarithms),
            count=_positions(logarithms),
            probabilities=probabilities.sum([0, *range(2, probabilities.ndim)]),
        )

    def compute(self) -> float | Tensor:
        """Return the mutual information as a float, at least 0.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("count")
        marginal = torch.special.entr(self.probabilities / self.count).sum()
        information: Tensor = marginal - self.total / self.count
        return information.clamp(min=0)


class _Divergence(_Distributions, SumOverPairs):
    def update(self, output: Sequence[Tensor]) -> None:
        """Add a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        need_tensors(type(self).__name__, y_pred, y)
        if y_pred.shape != y.shape:
            raise ValueError(
                f"{type(self).__name__}: expected logits y_pred and y of one shape (batch, "
                f"classes, ...), got {tuple(y_pred.shape)} and {tuple(y.shape)}"
            )
        q, p = self._log_probabilities(y_pred), self._log_probabilities(y)
        self.accumulate(total=self._sum(q, p), count=_positions(p))

    @abstractmethod
    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        """Return the sum over the distributions of given logarithms."""


class KLDivergence(_Divergence):
    """The mean Kullback-Leibler divergence of the predicted distributions, in nats.

    ``KL(p || q) = sum p log(p / q)``, with ``p = softmax(y)`` and ``q = softmax(y_pred)``; both are
    logits of one shape ``(batch, classes, ...)``, each position a distribution. Where p is 0
    nothing is added; where only q is 0 the value is infinite. Half precision is calculated in
    float32.

    Arguments are those of :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: by ``update``, shapes that don't fit.
        TypeError: by ``update``, booleans or complex numbers.

    Example:
        >>> metric = KLDivergence()
        >>> metric.update((torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()))
        >>> round(metric.compute(), 4)
        0.1308
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return _sum_divergences(y.exp(), y, y_pred)


class JSDivergence(_Divergence):
    """The mean Jensen-Shannon divergence of the predicted distributions, in nats, to ``log 2``.

    ``(KL(p || m) + KL(q || m)) / 2`` with ``m = (p + q) / 2``. Shapes, arguments and errors are
    those of :class:`~cookfire.metrics.KLDivergence`.

    Example:
        >>> metric = JSDivergence()
        >>> metric.update((torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()))
        >>> round(metric.compute(), 4)
        0.0338
    """

    def _sum(self, y_pred: Tensor, y: Tensor) -> Tensor:
        q, p = y_pred.exp(), y.exp()
        middle = (p + q).log_().sub_(math.log(2))
        return (_sum_divergences(q, y_pred, middle) + _sum_divergences(p, y, middle)) / 2


def _sum_entropies(probabilities: Tensor, logarithms: Tensor) -> Tensor:
    # 0 log 0 is 0, not 0 times minus infinity.
    least = torch.finfo(logarithms.dtype).min
    return -logarithms.clamp(min=least).mul_(probabilities).sum()


def _sum_divergences(probabilities: Tensor, p: Tensor, q: Tensor) -> Tensor:
    terms = (p - q).mul_(probabilities)
    return terms.masked_fill_(probabilities == 0, 0).sum()


def _positions(logarithms: Tensor) -> int:
    """Return how many distributions there are."""
    return logarithms.shape[0] * torch.Size(logarithms.shape[2:]).numel()
