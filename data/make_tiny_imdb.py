"""Write ``data/tiny_imdb``: ``python -m data.make_tiny_imdb``. No network.

Made-up opinions on films in the files and the layout of IMDB's reviews. Each has a few sentences,
of which some say nothing; the others say what the review is for or against, or the opposite of it
with a "not" before it: counting words gets only so far, pairs of words decide. There are 600
reviews to train on, and 200 to test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ._command import make
from ._folder import check, files_of, write_sums

COUNTS = {"train": 600, "test": 200}  # reviews, half of them positive
PRAISE = (
    "moving", "clever", "gripping", "charming", "brilliant",
    "touching", "superb", "fresh", "honest", "stunning",
)  # fmt: skip
BLAME = (
    "boring", "clumsy", "awful", "lifeless", "stale",
    "dreadful", "silly", "predictable", "noisy", "shallow",
)  # fmt: skip
THINGS = (
    "plot", "cast", "script", "score", "ending",
    "camera", "dialogue", "pace", "director", "hero",
)  # fmt: skip
NEUTRAL = (
    "We saw it on a Tuesday.",
    "It runs for two hours.",
    "The film was shot in Prague.<br /><br />",
    "My sister came along.",
    "It is based on a novel.",
    "There are three parts of it.",
)


def sentence(positive: bool, chance: np.random.RandomState) -> str:
    """Return an opinion, a third of them by denying the opposite one."""
    thing = THINGS[chance.randint(len(THINGS))]
    denied = chance.randint(3) == 0
    words = PRAISE if positive != denied else BLAME
    quality = words[chance.randint(len(words))]
    return f"The {thing} is {'not ' if denied else ''}{quality}."


def review(positive: bool, chance: np.random.RandomState) -> str:
    """Return a review of three to seven sentences."""
    opinions = [sentence(positive, chance) for _ in range(chance.randint(2, 5))]
    asides = [NEUTRAL[chance.randint(len(NEUTRAL))] for _ in range(chance.randint(1, 4))]
    sentences = opinions + asides
    return " ".join(sentences[index] for index in chance.permutation(len(sentences)))


def write(folder: Path) -> None:
    """Write the reviews to ``folder/aclImdb``, and SHA256SUMS of them."""
    chance = np.random.RandomState(0)  # numpy promises that its numbers never change
    for split, count in COUNTS.items():
        for kind in ("neg", "pos"):
            reviews = folder / "aclImdb" / split / kind
            reviews.mkdir(parents=True)
            for number in range(count // 2):
                stars = chance.randint(7, 11) if kind == "pos" else chance.randint(1, 5)
                path = reviews / f"{number}_{stars}.txt"
                path.write_text(review(kind == "pos", chance), encoding="utf-8", newline="")
    write_sums(folder)
    check(folder, files_of("tiny_imdb"), "make_tiny_imdb.py changed")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, and write the data set into this folder."""
    make("tiny_imdb", write, __doc__, argv)


if __name__ == "__main__":
    main()
