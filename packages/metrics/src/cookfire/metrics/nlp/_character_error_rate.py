"""The character error rate of recognised texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair, same
from cookfire.metrics.metric import Metric
from cookfire.metrics.nlp._sequences import edit_distance


class CharacterErrorRate(Metric):
    """Characters that have to be inserted, deleted or substituted, per character of the target.

    The sum of the texts' edit distances (Levenshtein, 1966) over the sum of the targets' lengths;
    it may exceed 1. A character is a code point: normalise texts in which one letter may be
    written as several. The work is done on the CPU.

    Args:
        output_transform: turns the engine's output into ``(y_pred, y)``, two lists of as many
            strings, or two strings.
        device: where counts are kept; None: on the CPU.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: by ``update``, lists of different lengths.
        TypeError: by ``update``, something else than strings.

    Example:
        >>> metric = CharacterErrorRate()
        >>> metric.update((["the cat", "a dog"], ["the hat", "a god"]))
        >>> metric.compute()
        0.25
    """

    errors = MetricState(torch.int64)
    characters = MetricState(torch.int64)

    def __init__(
        self,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Any]) -> None:
        """Count a batch's errors."""
        y_pred, y = need_pair(type(self).__name__, output)
        y_pred, y = _strings("y_pred", y_pred), _strings("y", y)
        if len(y_pred) != len(y):
            raise ValueError(
                f"CharacterErrorRate: got {len(y_pred)} texts in y_pred and {len(y)} in y; "
                "each needs its target"
            )
        errors = sum(map(edit_distance, y_pred, y))
        self.accumulate(errors=errors, characters=sum(map(len, y)))

    def compute(self) -> float | Tensor:
        """Return the rate, at least 0, as a float.

        Raises:
            NotComputableError: the targets had no character.
        """
        self._require("characters")
        return self.errors.double() / self.characters


def _strings(name: str, texts: Any) -> Sequence[str]:
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Sequence):
        raise TypeError(
            f"CharacterErrorRate: {name} must be a string or a list of strings, got "
            f"{type(texts).__name__}: decode it by output_transform"
        )
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(
                f"CharacterErrorRate: {name} must hold strings, got one {type(text).__name__}: "
                "decode it by output_transform"
            )
    return texts
