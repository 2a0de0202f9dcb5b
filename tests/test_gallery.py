"""The gallery tells of every locked baseline, and draws the curves of its run."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tools import gallery

ROOT = Path(__file__).resolve().parent.parent


def test_every_baseline_has_a_row_with_its_own_figures() -> None:
    rows = [line for line in gallery.page().splitlines() if line.startswith("| [")]
    found = list(gallery.baselines())
    assert len(rows) == len(found) >= 10
    for row, (recipe, profile, block) in zip(rows, found, strict=True):
        name, metric = next(iter(block["metrics"].items()))
        assert f"| [{recipe}](recipes/{recipe}.md) | `{profile}` | **{name} " in row
        shown = float(row.split(f"**{name} ")[1].split("**")[0])
        assert abs(shown - metric["value"]) <= 1e-3 * abs(metric["value"])
        assert block["commit"][:7] in row


def test_each_picture_of_the_page_is_there_and_has_a_line_for_each_column() -> None:
    pictures, page = gallery.pictures(), gallery.page()
    assert pictures
    for name, content in pictures.items():
        assert f"]({name})" in page
        if name.endswith(".png"):
            continue
        recipe, _, profile = Path(name).stem.partition("-")
        columns = gallery.curves(ROOT, recipe, profile)
        ids = [node.get("id", "") for node in ElementTree.fromstring(content).iter()]
        legends = [name for name in ids if name.startswith("legend_")]
        assert legends
        texts = content.decode()
        for column in list(columns)[1:]:
            assert f"<!-- {column.replace('_', ' ')} -->" in texts
    assert page.count("](gallery/") == len(pictures)


def test_pictures_are_shown_where_they_are_those_of_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "recipes" / "tea"
    run = folder / "runs" / "tiny"
    run.mkdir(parents=True)
    for name in ("cup.png", "other.png"):
        (run / name).write_bytes(b"picture")
    md5 = hashlib.md5(b"picture").hexdigest()
    outs = "".join(
        f"    - {{path: recipes/tea/runs/tiny/{name}, md5: {of}}}\n"
        for name, of in {"cup.png": md5, "other.png": "0" * 32, "gone.png": md5}.items()
    )
    (folder / "dvc.lock").write_text(f"stages:\n  evaluate@tiny:\n    outs:\n{outs}")
    found = gallery.locked_pictures(tmp_path, "tea", "tiny")
    assert found == {"gallery/tea-tiny-cup.png": run / "cup.png"}


def test_a_recipe_without_curves_is_in_the_table_alone(tmp_path: Path) -> None:
    folder = tmp_path / "recipes" / "tea"
    folder.mkdir(parents=True)
    (folder / "baseline.yaml").write_text(
        "tiny: {metrics: {taste: {value: 0.9, tolerance: 0.1}}, commit: abcdef01, date: 2026-01-01,"
        " environment: {torch: '2', device: cpu, world_size: 1, threads: 1}}\n"
    )
    assert "**taste 0.9**" in gallery.page(tmp_path)
    assert "](gallery/" not in gallery.page(tmp_path)
    assert gallery.pictures(tmp_path) == {}
