"""Reading YAML strictly: numbers as YAML 1.2 writes them, no key twice, nothing but plain values.

PyYAML follows YAML 1.1, where ``1e-3`` is text, ``010`` is eight and ``no`` is false; DVC reads the
same file by YAML 1.2, where they are a number, ten and text. Both must see one set of parameters.
PyYAML only parses here; the values are built below.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

import yaml

from cookfire.handlers.recipe._errors import RecipeError, show_path

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[Value, Value] | None"

CORE = "tag:yaml.org,2002:"
PATTERNS = {
    f"{CORE}null": re.compile(r"~|null|Null|NULL|"),
    f"{CORE}bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    f"{CORE}int": re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)"),
    f"{CORE}float": re.compile(
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
    f"{CORE}merge": re.compile("<<"),
}
BASES = {"0b": 2, "0o": 8, "0x": 16}
LONGEST_NUMBER = 400
MOST_VALUES = 100_000
"""Aliases can make billions of a few lines."""


class _Loader(yaml.BaseLoader):
    """A parser that gives plain scalars the tags of YAML 1.2's core schema."""

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            for tag, pattern in PATTERNS.items():
                if pattern.fullmatch(value):
                    return tag
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]  # types-PyYAML has none for it


def read_yaml(path: Path) -> Value:
    """Return the file's one document as plain values; RecipeError says where it is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{show_path(path)}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{show_path(path)}: not UTF-8 text (byte {error.start})") from error
    try:
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _build(node, (), [])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        text = error.problem or error.context or "not YAML"
        raise RecipeError(f"{show_path(path)}{place}: {text}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{show_path(path)}: not YAML: {error}") from error
    except RecursionError as error:
        raise RecipeError(f"{show_path(path)}: nested too deeply") from error


def _build(node: yaml.Node, within: tuple[yaml.Node, ...], built: list[yaml.Node]) -> Value:
    built.append(node)
    if len(built) > MOST_VALUES:
        raise _error(node, f"more than {MOST_VALUES:,} values, counting what aliases repeat")
    if node in within:
        raise _error(node, "an alias that contains itself")
    if isinstance(node, yaml.MappingNode) and node.tag == f"{CORE}map":
        return _mapping(node, (*within, node), built)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{CORE}seq":
        return [_build(item, (*within, node), built) for item in node.value]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    raise _error(node, f"the tag {node.tag!r} is not supported")


def _mapping(
    node: yaml.MappingNode, within: tuple[yaml.Node, ...], built: list[yaml.Node]
) -> dict[Value, Value]:
    merged: dict[Value, Value] = {}
    own: dict[Value, Value] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _error(key_node, "a key must be a single word")
        value = _build(value_node, within, built)
        if key_node.tag == f"{CORE}merge":
            for mapping in reversed(value if isinstance(value, list) else [value]):
                if not isinstance(mapping, dict):
                    raise _error(value_node, "`<<:` takes a mapping or a list of mappings")
                merged.update(mapping)
            continue
        key = _scalar(key_node)
        if key in own:
            raise _error(key_node, f"the key {key_node.value!r} is given twice")
        own[key] = value
    return {**merged, **own}


def _scalar(node: yaml.ScalarNode) -> bool | int | float | str | None:
    kind, text = node.tag.removeprefix(CORE), str(node.value)
    if kind in ("str", "merge"):
        if not _is_unicode(text):
            raise _error(node, f"{text[:40]!a} holds half of a character")
        return text
    if (pattern := PATTERNS.get(node.tag)) is None:
        raise _error(node, f"the tag {node.tag!r} is not supported")
    if not pattern.fullmatch(text) or len(text) > LONGEST_NUMBER:
        raise _error(node, f"{text[:40]!r} is not a value of type {kind}")
    digits = text.replace("_", "").lower()
    if kind == "null":
        return None
    if kind == "bool":
        return digits == "true"
    if kind == "float":
        return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
    try:
        return int(digits, BASES.get(digits.lstrip("+-")[:2], 10))
    except ValueError as error:  # underscores alone behind a prefix
        raise _error(node, f"{text[:40]!r} is not a value of type {kind}") from error


def _is_unicode(text: str) -> bool:
    """Tell whether text holds characters alone: an escape can make half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _error(node: yaml.Node, text: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)
