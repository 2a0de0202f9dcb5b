"""What is said by warnings, for tests of how often it is said."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def saying() -> Iterator[list[str]]:
    """Collect the texts of all warnings in a block; they are there when it is left."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield texts
        texts += [str(warning.message) for warning in caught]
