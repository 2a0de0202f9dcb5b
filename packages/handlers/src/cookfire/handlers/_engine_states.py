"""What a run keeps of an engine: more than its position, since handlers look at the rest too."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from time import monotonic
from typing import Any

from torch import Tensor

from cookfire.engine import Engine
from cookfire.handlers.time_limit import TimeLimit

__all__ = ["load_engine", "load_values", "state_of_engine", "values_of_engine", "wants_to_end"]


def state_of_engine(engine: Engine) -> dict[str, Any]:
    """Return the position of an engine other than the trainer, and whether it matters."""
    return {"position": engine.state_dict(), "status": engine.status.value}


def load_engine(engine: Engine, state: Mapping[str, Any]) -> None:
    """Put the engine where it was: paused in a run, or at the end of one.

    One that was not used yet, or that was running when the trainer was saved, begins anew: the
    handler that runs it is not in progress any more.
    """
    if state["status"] in ("paused", "finished"):
        engine.load_state_dict(state["position"])
        engine.status = type(engine.status)(state["status"])


def values_of_engine(engine: Engine) -> dict[str, Any]:
    """Return the metrics in force, and an output as small as a loss: what is no plain value isn't.

    Handlers read them between two evaluations, or at the end of an epoch whose last iteration was
    done before the run was saved.
    """
    metrics, output = engine.state.metrics, engine.state.output
    plain = {name: value for name, value in metrics.items() if _is_plain(value)}
    values = {"metrics": _on_its_own(plain)}
    if _is_plain(output, largest=1):
        values["output"] = _on_its_own(output)
    return values


def load_values(engine: Engine, values: Mapping[str, Any]) -> None:
    """Take over what :func:`values_of_engine` returned."""
    engine.state.metrics.update(values["metrics"])
    if "output" in values:
        engine.state.output = values["output"]


def wants_to_end(engine: Engine) -> bool:
    """Tell whether the engine is about to end for good, which is no part of its position.

    To be out of time is not that: the next process has time again.
    """
    if engine.status.value != "running" or not engine.should_terminate:
        return False
    limits = [handler for handler in engine.handlers() if isinstance(handler, TimeLimit)]
    return not any(
        limit.limit_sec is not None and monotonic() - limit.start_time > limit.limit_sec
        for limit in limits
    )


def _is_plain(value: Any, largest: int | None = None) -> bool:
    """Tell whether a file takes it, and whether no tensor in it has more than so many numbers."""
    if isinstance(value, Tensor):
        return largest is None or value.numel() <= largest
    if isinstance(value, dict):
        return all(isinstance(key, str | int) for key in value) and all(
            _is_plain(item, largest) for item in value.values()
        )
    if type(value) in (list, tuple):
        return all(_is_plain(item, largest) for item in value)
    return value is None or isinstance(value, str | Number)


def _on_its_own(value: Any) -> Any:
    """Return a plain value that shares neither strings nor memory with anything else.

    A file holds all of the memory that a tensor is a part of, and notes where a string is the same
    object as one before; loaded, it is another one. Equal runs shall have equal files.
    """
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
    if isinstance(value, dict):
        return {_on_its_own(key): _on_its_own(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_on_its_own(item) for item in value)
    return value
