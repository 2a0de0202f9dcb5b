"""The files of a fork: copied under new names, or made from the templates."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from string import Template
from textwrap import indent

import yaml

from ._source import PACKAGES, Source

TEMPLATES = Path(__file__).parent / "templates"
PACKAGE_VERSIONS = re.compile(r"(?m)^( *- )packages/\w+/pyproject\.toml: \[project\.version\]\n")
TOOLS = ("pytest", "ruff")
"""Of the repository's development group, what a fork has too, with what its tests import."""


def write(source: Source, folder: Path) -> None:
    """Write everything but the wheels."""
    for path in source.files():
        _copy(source, source.folder / path, folder / source.package / path)
    for name in source.data_files:
        _copy(source, source.root / name, folder / name)
    data = source.root / "data"
    kept = chosen(data / "datasets.yaml", source.datasets, before="")
    (folder / "data" / "datasets.yaml").write_text(kept)
    kept = chosen(data / "dvc.yaml", source.datasets, before="  ")
    (folder / "data" / "dvc.yaml").write_text(kept)
    outs = "".join(f"/{name}\n" for name in source.datasets)
    (folder / "data" / ".gitignore").write_text(outs)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(source.root / name, folder / name)
    values = _values(source)
    for template in sorted(TEMPLATES.rglob("*")):
        if template.is_file():
            target = folder / template.relative_to(TEMPLATES).with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(template.read_text()).substitute(values))


def renamed(source: Source, text: str) -> str:
    """Return text of the recipe with the project's names for modules, folders and stages."""
    name, package = re.escape(source.name), source.package
    core = "wheels" if source.git is None else "pyproject.toml"
    text = re.sub(rf"dvc repro recipes/{name}(?![\w/.])", "dvc repro full", text)
    text = re.sub(rf"dvc repro smoke/{name}(?![\w/.])", "dvc repro smoke", text)
    text = re.sub(rf"(?<![\w/])smoke/{name}(?![\w/.])", "smoke", text)
    text = re.sub(rf"python -m recipes verify {name}\b",
                  f"python -m cookfire.handlers.recipe verify {package}", text)  # fmt: skip
    text = re.sub(rf"\brecipes([./]){name}\b", package, text)
    text = text.replace(f'experiment="{source.name}"', f'experiment="{source.project}"')
    text = text.replace("../../data/", "../data/").replace("wdir: ../..", "wdir: ..")
    text = text.replace("core: packages", f"core: {core}")
    text = re.sub(r" \(``benchmarks/\w+\.py``\)", "", text)
    # The packages' versions are those of the project's dependencies.
    first = PACKAGE_VERSIONS.search(text)
    if first is not None:
        text = PACKAGE_VERSIONS.sub("", text)
        line = f"{first[1]}pyproject.toml: [project.dependencies]\n"
        text = text[: first.start()] + line + text[first.start() :]
    return text


def chosen(path: Path, names: Iterable[str], before: str) -> str:
    """Return a YAML file's head and the named of its blocks; ``before`` is a name's indent."""
    head, *blocks = re.split(rf"(?m)^(?={before}\w+:$)", path.read_text())
    kept = [block for block in blocks if block.split(":")[0].strip() in names]
    return head + "\n".join(block.strip("\n") + "\n" for block in kept)


def _copy(source: Source, path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    if path.suffix in (".py", ".yaml", ".md") or path.name == ".gitignore":
        content = renamed(source, content.decode()).encode()
    target.write_bytes(content)


def _values(source: Source) -> dict[str, str]:
    dependencies = [*_pinned(source, source.metadata["dependencies"]), *_of_data(source)]
    groups = source.workspace["dependency-groups"]
    tools = [line for line in groups["dev"] if _name(line) in (*TOOLS, *_imported(source))]
    pins = [*source.workspace["tool"]["uv"]["constraint-dependencies"], *groups["recent"]]
    return {
        "name": source.name,
        "title": source.project,
        "project": source.project,
        "package": source.package,
        "recipe_version": source.version,
        "commit": f"{source.commit[:7]}{' with changes' if source.changed else ''}",
        "description": f"Forked from Cookfire's recipe {source.name} {source.version}.",
        "dependencies": _lines(sorted(dependencies)),
        "tools": _lines(tools),
        "pins": _lines(pins),
        "sources": "\n".join(_sources(source)),
        "smoke": _stage(source, "smoke"),
        "full": _stage(source, "recipes"),
    }


def _pinned(source: Source, requirements: Iterable[str]) -> list[str]:
    """Return requirements; those of ours with the version that is here."""
    return [
        f"{line}=={_version(source, line)}" if line.startswith("cookfire-") else line
        for line in requirements
    ]


def _of_data(source: Source) -> list[str]:
    wanted = ["dvc", "torchvision"]
    if "tiny_mnist" in source.datasets:
        wanted.append("scikit-learn")
    workspace = source.workspace
    known = [*workspace["project"]["dependencies"], *workspace["dependency-groups"]["recent"]]
    had = {_name(line) for line in source.metadata["dependencies"]}
    return [line for line in known if _name(line) in wanted and _name(line) not in had]


def _imported(source: Source) -> set[str]:
    tests = (source.folder / path for path in source.files() if path.name.startswith("test_"))
    found = re.findall(r"(?m)^\s*(?:from|import) (\w+)", "\n".join(p.read_text() for p in tests))
    return {name.replace("_", "-") for name in found}


def _sources(source: Source) -> list[str]:
    lines = []
    for package in PACKAGES:
        if source.git is None:
            wheel = f"cookfire_{package}-{_version(source, package)}-py3-none-any.whl"
            where = f'path = "wheels/{wheel}"'
        else:
            where = f'git = "{source.git}", rev = "{source.commit}"'
            where += f', subdirectory = "packages/{package}"'
        lines.append(f"cookfire-{package} = {{ {where} }}")
    return lines


def _stage(source: Source, kind: str) -> str:
    """Return the stage of the repository's root that ends with verify, as the project's."""
    path = source.root / "dvc.yaml"
    stage = yaml.safe_load(path.read_text())["stages"][f"{kind}/{source.name}"]
    kept = {name: stage[name] for name in ("desc", "cmd", "deps")}
    kept["params"] = [{"pyproject.toml": ["project.version"]}]
    kept["always_changed"] = True
    name = "smoke" if kind == "smoke" else "full"
    if name == "full":  # there is no baseline yet
        kept["desc"] = "Train and evaluate on the full data set; compare with the baseline, if any."
    text = yaml.safe_dump({name: kept}, sort_keys=False, width=100)
    return indent(renamed(source, text), "  ").rstrip()


def _version(source: Source, requirement: str) -> str:
    package = _name(requirement).removeprefix("cookfire-")
    path = source.root / "packages" / package / "pyproject.toml"
    return str(tomllib.loads(path.read_text())["project"]["version"])


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0].lower() if found else ""


def _lines(requirements: Iterable[str]) -> str:
    return "\n".join(f'    "{line}",' for line in requirements)
