"""BLEU: how many n-grams of a translation are in its references."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cookfire.metrics._state import MetricState
from cookfire.metrics._values import same
from cookfire.metrics.metric import Metric
from cookfire.metrics.nlp._sequences import Tokens, count_ngrams, pair_up

Smoothing = Literal["no_smooth", "smooth1", "nltk_smooth2", "smooth2"]
Average = Literal["macro", "micro"]

_SMOOTHINGS = ("no_smooth", "smooth1", "nltk_smooth2", "smooth2")
_AVERAGES = ("macro", "micro")
_EPSILON = 0.1


class Bleu(Metric):
    r"""The BLEU score: the precision of n-grams, with a penalty for brevity.

    Papineni et al. (2002), https://aclanthology.org/P02-1040:

    .. math::
        \text{BLEU} = \min(1, e^{1 - r / c}) \cdot \left(\prod_{n=1}^{N} p_n\right)^{1 / N}

    where ``p_n`` is the share of the candidate's n-grams that a reference has (each as often as
    the reference that has it most often), ``c`` the length of the candidate and ``r`` that of the
    reference nearest to it, the shorter one of two. It is 0 if no token of the candidate is in a
    reference, or if some ``p_n`` is 0.

    What is kept are sums, whatever the length of the texts. The work is done on the CPU.

    Args:
        ngram: up to which ``n`` n-grams are looked at.
        smooth: what is done about n-grams of which none was found (Chen and Cherry (2014),
            https://aclanthology.org/W14-3346):

            - ``"no_smooth"``: nothing;
            - ``"smooth1"``: 0.1 is taken for a count of 0;
            - ``"smooth2"``: 1 is added to either side of ``p_n``, but for ``p_1``;
            - ``"nltk_smooth2"``: the same, where candidates too short to have n-grams count as if
              they had one.
        output_transform: turns the engine's output into ``(candidates, references)``: a list of
            lists of tokens, and for each candidate a list of references, lists of tokens. A token
            is anything hashable; a text may also be a tensor of token numbers.
        device: where sums are kept; None: on the CPU.
        average: ``"macro"``: the mean of the candidates' scores; ``"micro"``: one score, of the
            counts of all together, as BLEU is defined for a corpus.

    Raises:
        ValueError: ``ngram`` below 1, unknown ``smooth`` or ``average``; by ``update``, candidates
            and references that do not pair up.
        TypeError: by ``update``, a string in place of a list of tokens.

    Example:
        >>> metric = Bleu(ngram=2, smooth="smooth1")
        >>> candidate = "the cat is on a mat".split()
        >>> references = ["the cat is on the mat".split(), "a cat is on a mat".split()]
        >>> metric.update(([candidate], [references]))
        >>> metric.compute()
        1.0
    """

    _settings = ("ngram", "smooth", "average")

    score = MetricState(torch.float64)
    """The sum of the candidates' scores; for a macro average."""
    found = MetricState(torch.int64, shape=("ngram",))
    present = MetricState(torch.int64, shape=("ngram",))
    """Of the candidates' n-grams, those that a reference has, and all; for a micro average."""
    length = MetricState(torch.int64)
    reference_length = MetricState(torch.int64)
    count = MetricState(torch.int64)

    def __init__(
        self,
        ngram: int = 4,
        smooth: Smoothing = "no_smooth",
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        average: Average = "macro",
    ) -> None:
        if ngram < 1:
            raise ValueError(f"ngram must be at least 1, got {ngram}")
        if smooth not in _SMOOTHINGS:
            raise ValueError(f"smooth must be one of {', '.join(_SMOOTHINGS)}, got {smooth!r}")
        if average not in _AVERAGES:
            raise ValueError(f"average must be one of {', '.join(_AVERAGES)}, got {average!r}")
        self.ngram = ngram
        self.smooth = smooth
        self.average = average
        super().__init__(output_transform, device)

    def update(self, output: Sequence[Any]) -> None:
        """Score a batch of candidates, or count their n-grams."""
        pairs = pair_up(type(self).__name__, output)
        counted = [self._count(candidate, references) for candidate, references in pairs]
        if self.average == "macro":
            self.accumulate(score=sum(map(self._score, counted), 0.0), count=len(pairs))
            return
        total = torch.tensor(counted).sum(0) if counted else torch.zeros(2 * self.ngram + 2).long()
        self.accumulate(
            found=total[: self.ngram],
            present=total[self.ngram : -2],
            length=total[-2],
            reference_length=total[-1],
            count=len(pairs),
        )

    def compute(self) -> float | Tensor:
        """Return the score, from 0 to 1, as a float.

        Raises:
            NotComputableError: there was no candidate.
        """
        self._require("count")
        if self.average == "macro":
            return self.score / self.count
        return self._score(
            [*self.found.tolist(), *self.present.tolist(), self.length, self.reference_length]
        )

    def _count(self, candidate: Tokens, references: Sequence[Tokens]) -> list[int]:
        """Return n-grams found and present, for each n, and the two lengths."""
        found, present = [], []
        for n in range(1, self.ngram + 1):
            ngrams = count_ngrams(candidate, n)
            most: Counter[Any] = Counter()
            for reference in references:
                most |= count_ngrams(reference, n)
            found.append((ngrams & most).total())
            present.append(ngrams.total())
        nearest = min((abs(len(ref) - len(candidate)), len(ref)) for ref in references)[1]
        return [*found, *present, len(candidate), nearest]

    def _score(self, counts: Sequence[Any]) -> float:
        """Return the score of one candidate's counts, or of a whole corpus's."""
        found, present = counts[: self.ngram], counts[self.ngram : -2]
        length, reference_length = map(int, counts[-2:])
        if not found[0]:
            return 0.0
        logarithms = 0.0
        for n, (hits, number) in enumerate(zip(found, present, strict=True)):
            share = self._share(n, hits, number)
            if share == 0:
                return 0.0
            logarithms += math.log(share)
        penalty = min(0.0, 1 - reference_length / length)
        return math.exp(penalty + logarithms / self.ngram)

    def _share(self, n: int, hits: int, present: int) -> float:
        of = present if self.smooth == "smooth2" else max(present, 1)
        if self.smooth == "smooth1":
            return (hits or _EPSILON) / of
        if self.smooth == "no_smooth" or n == 0:
            return hits / of
        return (hits + 1) / (of + 1)
