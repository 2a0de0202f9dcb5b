"""Looking at arguments before anything depends on them."""

from __future__ import annotations

from numbers import Integral

from cookfire.engine import State

__all__ = ["check_above_zero", "check_free_in_state", "check_whole"]


def check_whole(name: str, value: object, unit: str) -> None:
    """Raise TypeError unless ``value`` is a whole number, ValueError if it is below 1.

    Args:
        name: the argument's name.
        value: what was given.
        unit: what is counted, as ``"iteration"``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number of {unit}s, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1 {unit}, got {value!r}")


def check_above_zero(name: str, value: object, unit: str = "") -> None:
    """Raise TypeError unless ``value`` is a number, ValueError unless it is above 0; nan is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number{unit and f' of {unit}'}, got {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be above 0{unit and f' {unit}'}, got {value!r}")


def check_free_in_state(argument: str, name: str) -> None:
    """Raise ValueError where ``name`` is an attribute that every ``engine.state`` has."""
    if hasattr(State(), name):
        raise ValueError(
            f"{argument} {name!r}: engine.state's own attribute would be overwritten; give another"
        )
