"""Say whether a recipe claims something new under a version that claimed something else.

    uv run tools/claims.py          # since each recipe's newest release
    uv run tools/claims.py main     # since any commit

A recipe claims the metrics and the weights' sha256 in its baseline.yaml, and what `full` is: its
parameters, and the defaults of those that it does not set, be they in the recipe's own config.py or
in what every recipe has. Whoever changes one of these gives ``[project] version`` in the recipe's
pyproject.toml a higher number, and says under a heading with that number in its CHANGELOG.md what
is new. Code that changes no recorded bits is free, and so is a new parameter with a default. A
release is a tag like ``recipes/mnist=baseline@v1.2.0``; a recipe without one has promised nothing
yet. A clone without the tags (a shallow one, or one of --no-tags) knows of no release and passes:
fetch them first.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

CLAIMED = ("metrics", "sha256")
CLAIMING = ("baseline.yaml", "params.yaml", "config.py")
SHARED = "packages/handlers/src/cookfire/handlers/recipe/_parameters.py"  # every recipe's Config
DEFAULT = "full, default."
SHOWN = 4


def main(arguments: list[str]) -> int:
    """Check every recipe; return 0, 1 where a claim changed silently, 2 for no such commit."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print("usage: claims.py [COMMIT]", file=sys.stderr)
        return 2
    root = Path(_git("rev-parse", "--show-toplevel") or ".")
    if arguments and _git("rev-parse", "--verify", "--quiet", f"{arguments[0]}^{{commit}}") is None:
        print(f"claims.py: git knows no commit {arguments[0]!r}", file=sys.stderr)
        return 2
    if not arguments and _git("rev-parse", "--is-shallow-repository") == "true":
        print(
            "claims.py: a shallow clone may lack releases; `git fetch --unshallow --tags` first",
            file=sys.stderr,
        )
    code = 0
    for folder in sorted(path.parent for path in root.glob("recipes/*/params.yaml")):
        name = folder.relative_to(root).as_posix()
        base = arguments[0] if arguments else newest_release(name)
        if base is None:
            print(f"{name}: no release (a tag {name}=baseline@v...), so nothing to compare")
            continue
        try:
            problem = check(root, name, base)
        except (yaml.YAMLError, tomllib.TOMLDecodeError, KeyError, SyntaxError) as error:
            print(f"{name}: a file can't be read: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        if problem:
            code = 1
            print(f"{name}: {problem}", file=sys.stderr)
        else:
            print(f"{name}: what it claims fits its version (since {base})")
    return code


def check(root: Path, name: str, base: str) -> str | None:
    """Return what is wrong with the recipe in ``root / name``, measured by the commit ``base``."""
    folder = root / name
    released = _git("show", f"{base}:{name}/pyproject.toml")
    if released is None:
        return None  # a recipe that was not there
    files = (*(f"{name}/{file}" for file in CLAIMING), SHARED)
    changes = changed_claims(
        claims_of(*(_git("show", f"{base}:{file}") or "" for file in files)),
        claims_of(*(_read(root / file) for file in files)),
    )
    if not changes:
        return None
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    what = f"since {base} changed: {', '.join(changes[:SHOWN])}{more}"
    version = version_of(_read(folder / "pyproject.toml"))
    if _numbers(version) <= _numbers(version_of(released)):
        return f"{what}; give [project] version, still {version}, a higher number"
    if not re.search(rf"(?m)^## v?{re.escape(version)}\b(?!\.)", _read(folder / "CHANGELOG.md")):
        return f"{what}; say so in CHANGELOG.md under a heading `## {version}`"
    return None


def claims_of(baseline: str, parameters: str, config: str, shared: str) -> dict[str, object]:
    """Return each single claim by its name, of the texts of ``CLAIMING`` and of ``SHARED``."""
    claims: dict[str, object] = {}
    for profile, block in _mapping(yaml.safe_load(baseline)).items():
        for key in CLAIMED:
            claims |= _flat(f"{profile}.{key}", _mapping(block).get(key))
    full = _mapping(yaml.safe_load(parameters)).get("full")
    claims |= _flat("full, parameter", full)
    given = defaults(shared) | defaults(config)
    unset = {name: text for name, text in given.items() if name not in _mapping(full)}
    return claims | {f"{DEFAULT}{name}": text for name, text in unset.items()}


def defaults(config: str) -> dict[str, str]:
    """Return the default of each field of the class ``Config`` in a module's text, as Python."""
    return {
        field.target.id: ast.unparse(field.value)
        for node in ast.parse(config).body
        if isinstance(node, ast.ClassDef) and node.name == "Config"
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value
    }


def changed_claims(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Return the names of claims that differ, and, but for defaults, that are gone or new."""
    return [
        name
        for name in {**old, **new}
        if old.get(name) != new.get(name)
        and not (name.startswith(DEFAULT) and (name not in old or name not in new))
    ]


def newest_release(name: str) -> str | None:
    """Return the recipe's tag with the highest version, in the form that gto gives tags."""
    tags = (_git("tag", "--list", f"{name}=*@v*") or "").split()
    return max(tags, key=lambda tag: _numbers(tag.rpartition("@v")[2]), default=None)


def version_of(pyproject: str) -> str:
    """Return the version that a pyproject.toml's text gives."""
    return str(tomllib.loads(pyproject)["project"]["version"])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _flat(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        return {} if value is None else {name: value}
    return dict(_items(name, value))


def _items(name: str, mapping: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield from _items(f"{name}.{key}", value)
        else:
            yield f"{name}.{key}", value


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip("\n") if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
