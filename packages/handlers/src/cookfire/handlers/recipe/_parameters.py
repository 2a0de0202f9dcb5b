"""params.yaml, one block a profile, read strictly into a recipe's frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar, Union

from cookfire.handlers.recipe._errors import RecipeError, show_path, show_value
from cookfire.handlers.recipe._yaml import read_yaml

ConfigT = TypeVar("ConfigT", bound="Config")
T = TypeVar("T")

MOST_PROCESSES = 1024
"""Of one machine; a mistyped number must not bring it down."""

MOST_THREADS = 65_536


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What every recipe has; a recipe's own frozen dataclass inherits from it and adds its fields.

    A field without a default must be in the profile. Checks of values go into ``__post_init__``
    (call ``super().__post_init__()`` first): ``ValueError("momentum: expected below 1, got 2")``
    reaches the user as ``params.yaml: tiny.momentum: expected below 1, got 2``.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class MnistConfig(Config):
        ...     lr: float
        ...     '''Step of SGD; 0.01 is the introduction's.'''
    """

    data: str
    """Folder (or file) of the data set, relative to the folder of params.yaml."""

    seed: int = 0
    """Seed of the initial weights, the data order and the augmentation."""

    processes: int = 1
    """Processes that share each batch. Under torchrun, the number that it starts counts instead."""

    backend: str | None = None
    """Of torch.distributed. None: none for one process, else nccl with CUDA and gloo without."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the forward and backward pass; anything but float32 is automatic mixed precision."""

    compile: bool = False
    """Whether the model goes through torch.compile: faster after a slow first step."""

    save_every: int = 500
    """Iterations between resume points (the ends of epochs are always some): what a kill loses."""

    environment: dict[str, str | int] = dataclasses.field(default_factory=dict)
    """Variables that must be set before torch is imported: threads, instruction set."""

    def __post_init__(self) -> None:
        for name in ("processes", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.processes > MOST_PROCESSES:
            raise ValueError(f"processes: expected at most {MOST_PROCESSES}, got {self.processes}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed: expected a number of 64 bits, got {show_value(self.seed)}")
        for name, value in self.environment.items():
            if not name or any(bad in name for bad in "=\0") or "\0" in str(value):
                raise ValueError(f"environment: {name!r} can't be an environment variable")
        threads = str(self.environment.get("OMP_NUM_THREADS", ""))
        if threads.isdecimal() and int(threads) > MOST_THREADS:
            raise ValueError(f"environment: OMP_NUM_THREADS: expected at most {MOST_THREADS}")


def profiles(params_yaml: Path) -> list[str]:
    """Return the names of the profiles; a block named like `.x` or `_x` is a shared part."""
    return list(read_profiles(params_yaml))


def read_profiles(params_yaml: Path) -> dict[str, object]:
    """Return each profile's block as it stands in the file, unchecked."""
    blocks = read_yaml(params_yaml)
    if not isinstance(blocks, dict):
        raise RecipeError(f"{show_path(params_yaml)}: expected one block a profile, like `tiny:`")
    return {str(name): block for name, block in blocks.items() if str(name)[:1] not in (".", "_")}


def find_profile(params_yaml: Path, profile: str) -> object:
    """Return the profile's block; RecipeError with the list of profiles where there is none."""
    blocks = read_profiles(params_yaml)
    if profile not in blocks:
        known = ", ".join(blocks) or "none"
        hint = _suggestion(profile, blocks)
        raise RecipeError(
            f"{show_path(params_yaml)}: no profile {profile!r}{hint} (there are: {known})"
        )
    return blocks[profile]


def load(params_yaml: Path, profile: str, config: type[ConfigT]) -> ConfigT:
    """Return the profile's parameters as an instance of the recipe's dataclass.

    Understands nested dataclasses, bool, int, float, str, None, Literal, unions, list, tuple, dict
    and object (anything). An int where a float is expected becomes one; nothing else is converted.

    Raises:
        RecipeError: in one line, the file, the key, and what was expected there.
        TypeError: the dataclass has a field of a type that YAML can't hold.

    Example:
        >>> load(Path("recipes/mnist/params.yaml"), "tiny", MnistConfig).lr
        0.01
    """
    return read_as(params_yaml, profile, find_profile(params_yaml, profile), config)


def load_common(params_yaml: Path, profile: str) -> Config:
    """Return what every recipe has of the profile's parameters; errors are those of ``load``."""
    block = find_profile(params_yaml, profile)
    if isinstance(block, dict):
        known = {field.name for field in dataclasses.fields(Config)}
        block = {name: value for name, value in block.items() if name in known}
    return read_as(params_yaml, profile, block, Config)


def read_as(path: Path, key: str, block: object, kind: type[T]) -> T:
    """Return a file's block as an instance of a dataclass; see ``load`` for types and errors."""
    try:
        return _dataclass(block, kind, key)
    except _WrongError as error:
        raise RecipeError(f"{show_path(path)}: {error}") from error


class _WrongError(Exception):
    """A value that does not fit; the text starts with its key."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}")


def _dataclass(value: object, kind: type[T], key: str) -> T:
    if not isinstance(value, dict):
        raise _expected(key, f"a block with the fields of {kind.__name__}", value)
    hints = typing.get_type_hints(kind)
    assert dataclasses.is_dataclass(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in value:
        if name not in fields:
            raise _WrongError(_inside(key, name), f"unknown key{_suggestion(str(name), fields)}")
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise _WrongError(_inside(key, name), "missing key")
    converted = {
        name: _convert(item, hints[name], _inside(key, name)) for name, item in value.items()
    }
    try:
        return kind(**converted)
    except ValueError as error:
        name, _, text = str(error).partition(": ")
        if text and name in fields:
            raise _WrongError(_inside(key, name), text) from error
        raise _WrongError(key, str(error)) from error


def _convert(value: object, kind: object, key: str) -> object:
    """Return the value as the annotation wants it, or raise with the key where it does not fit."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(value, kind, key)
    if kind is object:
        return value
    if kind in SCALARS:
        return SCALARS[kind](value, key)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(value, arguments, key)
    if origin is Literal:
        for choice in arguments:
            if value == choice and type(value) is type(choice):
                return choice
        hint = _suggestion(str(value), [str(choice) for choice in arguments])
        choices = ", ".join(repr(choice) for choice in arguments)
        raise _WrongError(key, f"expected one of {choices}, got {show_value(value)}{hint}")
    if origin is list:
        return [_convert(item, arguments[0], f"{key}[{at}]") for at, item in _items(value, key)]
    if origin is tuple:
        return _tuple(value, arguments, key)
    if origin is dict:
        if not isinstance(value, dict):
            raise _expected(key, "a mapping", value)
        return {
            _convert(name, arguments[0], _inside(key, name)): _convert(
                item, arguments[1], _inside(key, name)
            )
            for name, item in value.items()
        }
    raise TypeError(f"{key}: a parameter can't be of type {kind!r}; see recipe.load for the types")


def _union(value: object, choices: tuple[object, ...], key: str) -> object:
    # A value keeps its own type where the union has it: 3 stays an int for `float | int`.
    ordered = sorted(choices, key=lambda choice: choice is not type(value))
    mistakes = []
    for choice in ordered:
        try:
            return _convert(value, choice, key)
        except _WrongError as error:
            mistakes.append((choice, error))
    others = [error for choice, error in mistakes if choice is not types.NoneType]
    if len(others) == 1 and value is not None:
        raise others[0]
    raise _expected(key, " or ".join(_name(choice) for choice in choices), value)


def _tuple(value: object, kinds: tuple[object, ...], key: str) -> tuple[object, ...]:
    items = _items(value, key)
    if kinds[-1:] == (Ellipsis,):
        kinds = kinds[:1] * len(items)
    if len(items) != len(kinds):
        raise _expected(key, f"a list of {len(kinds)}", value)
    return tuple(
        _convert(item, kind, f"{key}[{at}]") for (at, item), kind in zip(items, kinds, strict=True)
    )


def _items(value: object, key: str) -> list[tuple[int, object]]:
    if not isinstance(value, list):
        raise _expected(key, "a list", value)
    return list(enumerate(value))


def _exactly(kind: type) -> Callable[[object, str], object]:
    def check(value: object, key: str) -> object:
        if type(value) is not kind:
            raise _expected(key, _name(kind), value)
        return value

    return check


def _float(value: object, key: str) -> float:
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise _expected(key, "float", value) from None
    if type(value) is not float or math.isnan(value):
        raise _expected(key, "float", value)
    return value


SCALARS: Mapping[object, Callable[[object, str], object]] = {
    bool: _exactly(bool),
    int: _exactly(int),
    str: _exactly(str),
    types.NoneType: _exactly(types.NoneType),
    float: _float,
}


def _name(kind: object) -> str:
    if kind is types.NoneType:
        return "null"
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _expected(key: str, what: str, value: object) -> _WrongError:
    return _WrongError(key, f"expected {what}, got {show_value(value)}")


def _inside(key: str, name: object) -> str:
    text = name if isinstance(name, str) and name.isprintable() and name else repr(name)
    return f"{key}.{text}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
