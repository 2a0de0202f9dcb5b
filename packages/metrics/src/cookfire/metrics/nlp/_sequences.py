"""Comparing sequences: n-grams in common, common subsequences, edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from torch import Tensor

from cookfire.metrics._values import need_pair

Tokens = Sequence[Hashable]


def count_ngrams(tokens: Tokens, n: int) -> Counter[tuple[Hashable, ...]]:
    """Return how often each run of ``n`` tokens occurs."""
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def longest_common_subsequence(left: Tokens, right: Tokens) -> int:
    """Return the length of the longest sequence that both contain, with gaps.

    A row of the usual table is the bits of one integer, which Python's additions carry along:
    Hyyrö (2004), "Bit-Parallel LCS-length Computation Revisited".
    """
    places = _places(left)
    every = (1 << len(left)) - 1
    row = every
    for token in right:
        found = row & places.get(token, 0)
        row = ((row + found) | (row - found)) & every
    return len(left) - row.bit_count()


def edit_distance(left: Tokens, right: Tokens) -> int:
    """Return the fewest insertions, deletions and substitutions that turn one into the other.

    A column of the usual table is the bits of two integers, where it rises and where it falls:
    Myers (1999), "A Fast Bit-Vector Algorithm for Approximate String Matching", as simplified by
    Hyyrö (2003).
    """
    if not left:
        return len(right)
    places = _places(left)
    every, last = (1 << len(left)) - 1, 1 << (len(left) - 1)
    rises, falls, distance = every, 0, len(left)
    for token in right:
        equal = places.get(token, 0)
        diagonal = (((equal & rises) + rises) ^ rises) | equal | falls
        right_rises = falls | (every & ~(diagonal | rises))
        right_falls = rises & diagonal
        distance += bool(right_rises & last) - bool(right_falls & last)
        right_rises = (right_rises << 1 | 1) & every
        right_falls = (right_falls << 1) & every
        rises = right_falls | (every & ~(diagonal | right_rises))
        falls = right_rises & diagonal
    return distance


def pair_up(owner: str, output: Sequence[Any]) -> list[tuple[Tokens, list[Tokens]]]:
    """Return each candidate of a batch with its references.

    Raises:
        ValueError: there are not as many lists of references as candidates, or one is empty.
        TypeError: a text is a string in place of tokens.
    """
    candidates, references = need_pair(owner, output, "candidates, references")
    if len(candidates) != len(references):
        raise ValueError(
            f"{owner}: got {len(candidates)} candidates and references for {len(references)}: "
            "each candidate needs a list of references, also if it has but one"
        )
    pairs = []
    for number, (candidate, several) in enumerate(zip(candidates, references, strict=True)):
        if not len(several):
            raise ValueError(f"{owner}: candidate {number} of the batch has no reference")
        pairs.append(
            (_tokens(owner, candidate), [_tokens(owner, reference) for reference in several])
        )
    return pairs


def _tokens(owner: str, text: Any) -> Tokens:
    if isinstance(text, str):
        raise TypeError(
            f"{owner} takes lists of tokens, got the string {text[:20]!r}: split it, as in "
            "output_transform=lambda output: ([text.split() for text in output[0]], ...); and "
            "each candidate has a list of references"
        )
    tokens: Tokens = text.tolist() if isinstance(text, Tensor) else text
    return tokens


def _places(tokens: Tokens) -> dict[Hashable, int]:
    """Return for each token a bit for each of its places."""
    places: dict[Hashable, int] = {}
    for place, token in enumerate(tokens):
        places[token] = places.get(token, 0) | 1 << place
    return places
