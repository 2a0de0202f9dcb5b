"""What loggers and progress bars show of an engine, and how it becomes numbers with names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from cookfire.engine import Engine

__all__ = ["EngineValues", "WarnOnce", "flat_params", "flatten"]


class WarnOnce:
    """Warns about each thing once, however often it happens."""

    def __init__(self) -> None:
        self._said: set[Hashable] = set()

    def __call__(self, about: Hashable, message: str) -> None:
        if about not in self._said:
            self._said.add(about)
            warnings.warn(message, UserWarning, stacklevel=3)


class EngineValues:
    """Reads the chosen values of an engine: its output, its metrics, attributes of its state.

    Nothing is converted here: tensors stay where they are until somebody shows them.
    """

    def __init__(
        self,
        metric_names: str | Sequence[str] | None,
        output_transform: Callable[[Any], Any] | None,
        state_attributes: Sequence[str] | None,
    ) -> None:
        if isinstance(metric_names, str) and metric_names != "all":
            raise TypeError(
                f"metric_names must be 'all' or a list of names, got {metric_names!r}; "
                f"for this metric alone write [{metric_names!r}]"
            )
        if not (metric_names is None or isinstance(metric_names, str | list | tuple)):
            raise TypeError(
                "metric_names must be 'all' or a list of names, "
                f"got {metric_names!r} ({type(metric_names).__name__})"
            )
        if not (output_transform is None or callable(output_transform)):
            raise TypeError(
                "output_transform must be a function of the engine's output, "
                f"got {output_transform!r} ({type(output_transform).__name__})"
            )
        if isinstance(state_attributes, str):
            raise TypeError(f"state_attributes must be a list, got {state_attributes!r}")
        self.metric_names = metric_names
        self.output_transform = output_transform
        self.state_attributes = tuple(state_attributes or ())

    def __bool__(self) -> bool:
        return any((self.metric_names is not None, self.output_transform, self.state_attributes))

    def read(self, engine: Engine) -> dict[str, object]:
        """Return the values by name; what is not there (yet) is left out."""
        values: dict[str, object] = {}
        if self.output_transform is not None:
            output = self.output_transform(engine.state.output)
            values.update(output if isinstance(output, Mapping) else {"output": output})
        metrics = engine.state.metrics
        if self.metric_names == "all":
            values.update(metrics)
        else:
            names = self.metric_names or ()
            values.update((name, metrics[name]) for name in names if name in metrics)
        state = engine.state
        values.update(
            (name, getattr(state, name)) for name in self.state_attributes if hasattr(state, name)
        )
        return values

    def missing(self, engine: Engine) -> dict[str, str]:
        """Return a sentence for each name that was asked for and is not there."""
        sentences = {}
        metrics, state = engine.state.metrics, engine.state
        if isinstance(self.metric_names, list | tuple):
            there = ", ".join(repr(name) for name in metrics) or "no metrics at all"
            for name in self.metric_names:
                if name not in metrics:
                    sentences[name] = (
                        f"there is no metric {name!r} at this event; engine.state.metrics has "
                        f"{there}. Is it attached to this engine, and computed before this event?"
                    )
        for name in self.state_attributes:
            if not hasattr(state, name):
                sentences[name] = f"engine.state has no attribute {name!r}"
        return sentences


def flatten(value: object, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the leaves of nested values with their path: numbers as Python's, strings as they are.

    Dictionaries, lists and tensors of at most one dimension are walked; anything else is a leaf
    that is yielded unchanged, for the caller to refuse.

    Example:
        >>> list(flatten({"loss": torch.tensor(0.5), "iou": torch.tensor([0.25, 1.0])}))
        [(('loss',), 0.5), (('iou', '0'), 0.25), (('iou', '1'), 1.0)]
    """
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim <= 1:
        value = value.tolist()
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, (*name, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from flatten(item, (*name, str(index)))
    elif isinstance(value, Integral):
        yield name, int(value)
    elif isinstance(value, Real):
        yield name, float(value)
    else:
        yield name, value


def flat_params(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield parameters by name, those of inner dictionaries with the names joined by ``.``."""
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from flat_params(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
