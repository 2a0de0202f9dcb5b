"""Looking at arguments before anything depends on them, in any number of processes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from numbers import Integral


def check_whole(name: str, value: object, least: int) -> None:
    """Raise TypeError unless ``value`` is a whole number, ValueError if it is below ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}: expected a whole number, given {kind(value)}")
    if value < least:
        raise ValueError(f"{name} {value}: expected {least} or more")


def check_type(name: str, value: object, expected: type | tuple[type, ...], words: str) -> None:
    """Raise TypeError, with what is expected in ``words``, unless ``value`` is of a type."""
    if not isinstance(value, expected):
        raise TypeError(f"{name}={value!r}: expected {words}, given {kind(value)}")


def check_options(
    where: str, function: Callable[..., object], given: Iterable[str], taken: Iterable[str] = ()
) -> None:
    """Raise TypeError, with the name that may have been meant, if ``function`` has no such option.

    Args:
        where: Who was given the options.
        function: Whose options they are.
        given: The options' names.
        taken: Names that ``where`` gives ``function`` itself.
    """
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [name for name in parameters if name not in (*taken, "self")]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(known)}"
            raise TypeError(f"{where}: unknown option {name!r}; {meant}")


def kind(value: object) -> str:
    """What to call a value of the wrong type: ``a str``."""
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
