"""A hook of mkdocs: recipes' cards, the benchmarks' page and the gallery, with no second copy.

Links in all pages are written for the repository, so that they work where it is browsed. On the
site those to what is a page lead to that page; of the others, to code, the text stays.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Path on the site of each file that is outside of docs/.
OUTSIDE = {
    "benchmarks/README.md": "benchmarks.md",
    **{
        card.relative_to(ROOT).as_posix(): f"recipes/{card.parent.name}.md"
        for card in ROOT.glob("recipes/*/README.md")
    },
}
SOURCES = {page: source for source, page in OUTSIDE.items()}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are elsewhere in the repository."""
    from mkdocs.structure.files import File  # here, so that types are checked without the group

    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path
    from tools import gallery

    files.append(File.generated(config, "gallery.md", content=gallery.page()))
    for name, content in gallery.pictures().items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Lead the page's relative links to where their targets are on the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))

    def mended(match: re.Match[str]) -> str:
        mark, text, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / path).exists():
            return match[0]  # mkdocs warns of it
        on_site = OUTSIDE.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(on_site) is None:
            return text
        relative = posixpath.relpath(on_site, posixpath.dirname(here) or ".")
        return f"{mark}[{text}]({relative}{anchor or ''})"

    return LINK.sub(mended, markdown)
