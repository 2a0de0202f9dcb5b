"""The gallery of the site: each recipe's locked baselines, with curves and pictures of the runs.

    uv run tools/gallery.py FOLDER    # writes gallery.md and its pictures there, to look at

All of it is read from ``baseline.yaml``, from the ``curves.tsv`` in git, and from the outs named in
``dvc.lock`` where these lie there (``dvc pull`` or ``dvc repro`` brings them); nothing is run.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Gallery

The baselines that are locked, read from the repository when this site was built: each is a run
that `dvc repro` repeats and verify compares. `tiny` profiles are of made-up data:
they show that a run repeats bit for bit, not how good a net is. A row is one run, of one seed:
a recipe's page has the mean where it is trained with several. Other metrics: the next three.

| recipe | profile | headline | other metrics | accepted | commit | where |
| --- | --- | --- | --- | --- | --- | --- |
"""


def baselines(root: Path = ROOT) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield recipe, profile and block of each baseline, those of made-up data last."""
    for path in sorted(root.glob("recipes/*/baseline.yaml")):
        blocks = yaml.safe_load(path.read_text())
        for profile in sorted(blocks, key=lambda name: name.startswith("tiny")):
            yield path.parent.name, profile, blocks[profile]


def page(root: Path = ROOT) -> str:
    """Return the page, whose pictures are those of :func:`pictures`."""
    rows, shown = [], []
    for recipe, profile, block in baselines(root):
        metrics = [f"{name} {of['value']:.4g}" for name, of in block["metrics"].items()]
        where = block["environment"]
        rows.append(
            f"| [{recipe}](recipes/{recipe}.md) | `{profile}` | **{metrics[0]}** "
            f"| {', '.join(metrics[1:4])} | {block['date']} | {block['commit'][:7]} "
            f"| torch {where['torch']}, {where['device']}, {where['world_size']} x "
            f"{where['threads']} thread |\n"
        )
        if curves(root, recipe, profile):
            shown.append(f"## {recipe}, {profile}\n\n![curves](gallery/{recipe}-{profile}.svg)\n")
        outs = locked_pictures(root, recipe, profile)
        shown += [f"![{path.stem}]({name})\n" for name, path in outs.items()]
    return HEAD + "".join(rows) + "\n" + "\n".join(shown)


def pictures(root: Path = ROOT) -> dict[str, bytes]:
    """Return the curves of each baseline's run as SVG and the pictures that it made, by name."""
    contents = {}
    for recipe, profile, _ in baselines(root):
        if found := curves(root, recipe, profile):
            contents[f"gallery/{recipe}-{profile}.svg"] = draw(found)
        for name, path in locked_pictures(root, recipe, profile).items():
            contents[name] = path.read_bytes()
    return contents


def locked_pictures(root: Path, recipe: str, profile: str) -> dict[str, Path]:
    """Return the pictures of a run that lie there as ``dvc.lock`` names them.

    Those of variants (``tiny_ddp``) are left out: they show the same once more.
    """
    lock = root / "recipes" / recipe / "dvc.lock"
    if "_" in profile or not lock.exists():
        return {}
    stage = yaml.safe_load(lock.read_text())["stages"].get(f"evaluate@{profile}", {})
    return {
        f"gallery/{recipe}-{profile}-{path.name}": path
        for out in stage.get("outs", [])
        if (path := root / out["path"]).suffix == ".png"
        and path.exists()
        and hashlib.md5(path.read_bytes()).hexdigest() == out["md5"]
    }


def curves(root: Path, recipe: str, profile: str) -> dict[str, list[float]]:
    """Return the columns of a run's ``curves.tsv`` by name; none, if git holds none."""
    path = root / "recipes" / recipe / "runs" / profile / "curves.tsv"
    if not path.exists():
        return {}
    with path.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}


def draw(columns: Mapping[str, list[float]]) -> bytes:
    """Return a picture of columns over the first one: losses at the left, all else at the right."""
    (x_name, x), *rest = columns.items()
    # Where none is called a loss, what is measured of the training are the losses.
    mark = "loss" if any("loss" in name for name, _ in rest) else "training"
    losses = {name for name, _ in rest if mark in name}
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, wanted in zip(figure.subplots(1, 2), (True, False), strict=True):
        for name, values in rest:
            if (name in losses) is wanted:
                measured = [pair for pair in zip(x, values, strict=True) if isfinite(pair[1])]
                axes.plot(*zip(*measured, strict=True), marker=".", label=name.replace("_", " "))
        axes.set_xlabel(x_name)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="xx-small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def main() -> int:
    """Write page and pictures into a folder."""
    if len(sys.argv) != 2:
        print("usage: gallery.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    (folder / "gallery").mkdir(parents=True, exist_ok=True)
    (folder / "gallery.md").write_text(page())
    for name, content in pictures().items():
        (folder / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
