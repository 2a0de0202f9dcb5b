"""ROUGE: what a summary and its references have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from cookfire.metrics._state import MetricState
from cookfire.metrics._values import same
from cookfire.metrics.metric import Metric
from cookfire.metrics.nlp._sequences import (
    Tokens,
    count_ngrams,
    longest_common_subsequence,
    pair_up,
)

MultiRef = Literal["average", "best"]
_MULTIREFS = ("average", "best")


class _Match(NamedTuple):
    """What a candidate has in common with a reference, and of how much."""

    common: int
    of_candidate: int
    of_reference: int

    @property
    def precision(self) -> float:
        return self.common / self.of_candidate if self.of_candidate else 0.0

    @property
    def recall(self) -> float:
        return self.common / self.of_reference if self.of_reference else 0.0


class _Rouge(Metric):
    """Precision, recall and F-score, summed over candidates."""

    _settings: ClassVar[tuple[str, ...]] = ("multiref", "alpha")

    scores = MetricState(torch.float64, shape=(3,))
    count = MetricState(torch.int64)

    def __init__(
        self,
        multiref: MultiRef = "average",
        alpha: float = 0,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
    ) -> None:
        if multiref not in _MULTIREFS:
            raise ValueError(f"multiref must be one of {', '.join(_MULTIREFS)}, got {multiref!r}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
        self.multiref = multiref
        self.alpha = alpha
        super().__init__(output_transform, device)

    def update(self, output: Sequence[Any]) -> None:
        """Score a batch of candidates."""
        scores = [
            self._score([self._match(candidate, reference) for reference in references])
            for candidate, references in pair_up(type(self).__name__, output)
        ]
        total = torch.tensor(scores, dtype=torch.float64).reshape(-1, 3).sum(0)
        self.accumulate(scores=total, count=len(scores))

    def compute(self) -> dict[str, Tensor]:
        """Return precision (P), recall (R) and F-score (F) as floats by name, as ``Rouge-2-P``.

        Raises:
            NotComputableError: there was no candidate.
        """
        self._require("count")
        mean = self.scores / self.count
        return {f"Rouge-{self._variant}-{name}": mean[i] for i, name in enumerate("PRF")}

    @property
    @abstractmethod
    def _variant(self) -> int | str:
        """What the names of values say."""

    @abstractmethod
    def _match(self, candidate: Tokens, reference: Tokens) -> _Match:
        """Compare a candidate with one reference."""

    def _score(self, matches: Sequence[_Match]) -> tuple[float, float, float]:
        if self.multiref == "best":
            match = max(matches, key=lambda match: match.recall)
        else:
            match = _Match(*(sum(numbers) for numbers in zip(*matches, strict=True)))
        precision, recall = match.precision, match.recall
        weighted = self.alpha * recall + (1 - self.alpha) * precision
        return precision, recall, precision * recall / weighted if weighted else 0.0


class RougeN(_Rouge):
    r"""The ROUGE-N score: n-grams that a candidate and its references have in common.

    Lin (2004), https://aclanthology.org/W04-1013. Their number is divided by that of the
    candidate's n-grams (precision) and of the reference's (recall); the F-score is

    .. math:: F = \frac{P R}{\alpha R + (1 - \alpha) P}

    and each of the three is averaged over the candidates. What is kept are sums, whatever the
    length of the texts. The work is done on the CPU.

    Args:
        ngram: the ``n`` of n-grams.
        multiref: of several references, ``"average"``: counts are added up over all;
            ``"best"``: the one with the highest recall is taken.
        alpha: 0: F is the recall, 1: the precision, 0.5: their harmonic mean.
        output_transform: turns the engine's output into ``(candidates, references)``: a list of
            lists of tokens, and for each candidate a list of references, lists of tokens. A token
            is anything hashable; a text may also be a tensor of token numbers.
        device: where sums are kept; None: on the CPU.

    Raises:
        ValueError: ``ngram`` below 1, unknown ``multiref``, ``alpha`` out of range; by ``update``,
            candidates and references that do not pair up.
        TypeError: by ``update``, a string in place of a list of tokens.

    Example:
        >>> metric = RougeN(ngram=1, alpha=0.5)
        >>> metric.update((["a cat sat".split()], [["a cat sat on a mat".split()]]))
        >>> metric.compute()
        {'Rouge-1-P': 1.0, 'Rouge-1-R': 0.5, 'Rouge-1-F': 0.6666666666666666}
    """

    _settings = ("multiref", "alpha", "ngram")

    def __init__(
        self,
        ngram: int = 4,
        multiref: MultiRef = "average",
        alpha: float = 0,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
    ) -> None:
        if ngram < 1:
            raise ValueError(f"ngram must be at least 1, got {ngram}")
        self.ngram = ngram
        super().__init__(multiref, alpha, output_transform, device)

    @property
    def _variant(self) -> int:
        return self.ngram

    def _match(self, candidate: Tokens, reference: Tokens) -> _Match:
        left, right = count_ngrams(candidate, self.ngram), count_ngrams(reference, self.ngram)
        return _Match((left & right).total(), left.total(), right.total())


class RougeL(_Rouge):
    """The ROUGE-L score: the longest common subsequence of a candidate and its references.

    Its length takes the place of the number of common n-grams, the lengths of the texts that of
    the numbers of n-grams. Everything else, arguments and errors too, is as for
    :class:`~cookfire.metrics.nlp.RougeN`.

    Example:
        >>> metric = RougeL(alpha=0.5)
        >>> metric.update((["the cat sat".split()], [["the black cat".split()]]))
        >>> metric.compute()
        {'Rouge-L-P': 0.6666666666666666, 'Rouge-L-R': 0.6666666666666666, 'Rouge-L-F': 0.6666666666666666}
    """  # noqa: E501 - what is printed is a line

    @property
    def _variant(self) -> str:
        return "L"

    def _match(self, candidate: Tokens, reference: Tokens) -> _Match:
        common = longest_common_subsequence(candidate, reference)
        return _Match(common, len(candidate), len(reference))


class Rouge(Metric):
    """Several ROUGE scores of the same texts.

    Args:
        variants: numbers ``n`` for ROUGE-N, and ``"L"`` for ROUGE-L; None: 1, 2, 4 and ``"L"``.
        multiref: see :class:`~cookfire.metrics.nlp.RougeN`, as for the following.
        alpha: likewise.
        output_transform: likewise.
        device: likewise.

    Raises:
        ValueError: another variant; else as RougeN.
        TypeError: as RougeN.

    Example:
        >>> metric = Rouge(variants=[1, "L"], alpha=1)
        >>> metric.update((["the cat sat".split()], [["cat the sat".split()]]))
        >>> {name: round(value, 2) for name, value in metric.compute().items() if "F" in name}
        {'Rouge-1-F': 1.0, 'Rouge-L-F': 0.67}
    """

    def __init__(
        self,
        variants: Sequence[int | str] | None = None,
        multiref: MultiRef = "average",
        alpha: float = 0,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
    ) -> None:
        self.metrics: list[_Rouge] = []
        for variant in dict.fromkeys(variants or (1, 2, 4, "L")):
            if variant == "L":
                self.metrics.append(RougeL(multiref, alpha, device=device))
            elif isinstance(variant, int) and variant > 0:
                self.metrics.append(RougeN(variant, multiref, alpha, device=device))
            else:
                raise ValueError(f"a variant is 'L' or an integer above 0, got {variant!r}")
        super().__init__(output_transform, device)

    def reset(self) -> None:
        """Forget everything."""
        for metric in self.metrics:
            metric.reset()

    def update(self, output: Sequence[Any]) -> None:
        """Score a batch of candidates."""
        for metric in self.metrics:
            metric.update(output)

    def compute(self) -> dict[str, float]:
        """Return floats: precision (P), recall (R), F-score (F) of each variant, as ``Rouge-2-P``.

        Raises:
            NotComputableError: there was no candidate.
        """
        return dict(self._values())

    def _values(self) -> Iterator[tuple[str, Any]]:
        for metric in self.metrics:
            yield from metric.compute().items()
