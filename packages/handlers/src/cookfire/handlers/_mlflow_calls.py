"""Calls of MLflow: telling that it is out of reach from what it was asked wrongly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["imported", "is_outage", "quick"]

# Codes by which MLflow says that it is out of reach.
OUTAGES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "ABORTED")


def imported() -> Any:
    """Return MLflow's module, importing it now: that takes seconds."""
    import mlflow

    return mlflow


def is_outage(error: Exception) -> bool:
    """Tell whether MLflow says by an error that it is out of reach."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, OSError) or (
        isinstance(error, MlflowException) and error.error_code in OUTAGES
    )


@contextmanager
def quick() -> Iterator[None]:
    """Let a server that can't be reached hold up the training for seconds, not for minutes."""
    mine = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    mine = {name: value for name, value in mine.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)
