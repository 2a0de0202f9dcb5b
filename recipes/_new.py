"""``python -m recipes new``: a recipe of this repository, begun as a copy of the smallest one."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

from cookfire.handlers import recipe

from ._fork._project import is_package_name
from ._fork._source import Source

SMALLEST = "mnist"

CARD = """# {name}

Begun as a copy of the MNIST recipe; say here what it is to reproduce, and whose figure it is held
against.

| profile | hardware | torch | steps | wall time | accuracy | commit |
| --- | --- | --- | --- | --- | --- | --- |
| `full` | not run yet | — | — | — | — | — |
| `tiny` | not run yet | — | — | — | — | — |

```sh
dvc repro smoke/{name}      # the pipeline on tiny data; then verify
dvc repro recipes/{name}    # the `full` profile; then verify
python -m recipes.{name}.train --profile tiny --data DIR --out DIR
```

`params.yaml` holds the values of each profile, and `config.py` says what they mean.
"""

CHANGELOG = """# Changelog of {name}

## 0.1.0

- Begun as a copy of the MNIST recipe.
"""


def new(root: Path, name: str) -> Path:
    """Write ``recipes/<name>`` and register it; return its folder. All of it or nothing.

    It is the smallest recipe under another name, with that one's data, and with no lock, baseline
    or figure, which it has not earned. Its names are entered in the repository's ``dvc.yaml`` and
    ``pyproject.toml``.

    Args:
        root: the repository's root.
        name: of the recipe, which is that of its package too.

    Raises:
        RecipeError: there is such a recipe, or it is no name for one; nothing is left behind.
    """
    if not is_package_name(name):
        raise recipe.RecipeError(
            f"{name!r}: expected small letters, digits and underscores, like 'voc_segmentation', "
            "and no name of a module that Python or this repository has"
        )
    folder = root / "recipes" / name
    if folder.exists():
        raise recipe.RecipeError(f"{folder}: is there already; choose another name")
    registers = {root / file: (root / file).read_text() for file in ("pyproject.toml", "dvc.yaml")}
    for path, text in registers.items():
        if f'"recipes/{name}"' in text or f"  smoke/{name}:" in text:
            raise recipe.RecipeError(
                f"{path}: has a recipe {name!r} still; take its lines out, or choose another name"
            )
    try:
        _copy(root, name, folder)
        for path, text in registers.items():
            entered = _in_workspace(text, name) if path.suffix == ".toml" else _in_dvc(text, name)
            path.write_text(entered)
    except BaseException:  # Ctrl-C too
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in registers.items():
            with suppress(OSError):
                path.write_text(text)
        raise
    return folder


def _copy(root: Path, name: str, folder: Path) -> None:
    source = Source(root, SMALLEST, name, name, None)
    for path in source.files():
        target = folder / str(path).replace(SMALLEST, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed((source.folder / path).read_text(), name))
    project = _renamed((source.folder / "pyproject.toml").read_text(), name)
    project = re.sub(r'(?m)^version = ".*"$', 'version = "0.1.0"', project)
    project = re.sub(r'(?m)^description = ".*"$', f'description = "{name}."', project)
    (folder / "pyproject.toml").write_text(project)
    (folder / "README.md").write_text(CARD.format(name=name))
    (folder / "CHANGELOG.md").write_text(CHANGELOG.format(name=name))


def _renamed(text: str, name: str) -> str:
    """Return text that speaks of the recipe by its new name, and of its data by theirs."""
    text = re.sub(rf"\b(recipes[./]|smoke/|-m recipes verify ){SMALLEST}\b", rf"\g<1>{name}", text)
    text = text.replace(f'experiment="{SMALLEST}"', f'experiment="{name}"')
    return text.replace(f"cookfire-recipe-{SMALLEST}", _distribution(name))


def _distribution(name: str) -> str:
    return f"cookfire-recipe-{name.replace('_', '-')}"


def _in_workspace(text: str, name: str) -> str:
    """Enter a recipe into the repository's pyproject.toml: requirement, member and source."""
    old, project = f"cookfire-recipe-{SMALLEST}", _distribution(name)
    for line, copy in (
        (f'    "{old}",\n', f'    "{project}",\n'),
        (f"{old} = {{ workspace = true }}\n", f"{project} = {{ workspace = true }}\n"),
    ):
        text = _before(text, line, copy)
    return _before(text, f'"recipes/{SMALLEST}"', f'"recipes/{name}", ')


def _in_dvc(text: str, name: str) -> str:
    """Append the recipe's two names, each with and without its slash, to the root's dvc.yaml."""
    found = re.findall(rf"(?ms)^  (?:recipes|smoke)/{SMALLEST}/?:.*?(?=^  \w|\Z)", text)
    if len(found) != 4:
        raise recipe.RecipeError(f"dvc.yaml: no stages of {SMALLEST!r} to go by")
    stages = "".join(block.rstrip("\n") + "\n" for block in found)
    stages = re.sub(rf"(recipes|smoke)([/-]){SMALLEST}\b", rf"\g<1>\g<2>{name}", stages)
    stages = stages.replace(f"verify {SMALLEST}", f"verify {name}").replace("MNIST's", f"{name}'s")
    stages = re.sub(r"(?m)^(  (?:recipes|smoke)/\w+:)", r"\n\1", stages)
    return f"{text.rstrip()}\n{stages}"


def _before(text: str, line: str, copy: str) -> str:
    if line not in text:
        raise recipe.RecipeError(f"pyproject.toml: lacks {line.strip()!r}, which the copy goes by")
    return text.replace(line, copy + line, 1)
