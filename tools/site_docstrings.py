"""An extension of griffe: the reference shows our docstrings as they are meant.

griffe knows the section of examples by its plural alone, and would take ours for prose; and it
shows Sphinx's roles, which editors know, as they stand.
"""

from __future__ import annotations

import re

from griffe import Extension, Object

CHANGES = {
    re.compile(r"^( *)Example:$", re.M): r"\1Examples:",
    re.compile(r"^( *)\.\. math:: (.+)$", re.M): r"\1    \2",  # LaTeX, as it is
    re.compile(r"^ *\.\. (code-block|math)::.*\n", re.M): "",
    re.compile(r":[a-z]+:`~?([^`]+)`"): r"`\1`",
}


class Docstrings(Extension):
    """Rewrites what griffe would misread."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rewrite the docstring of each object that is found."""
        if obj.docstring is not None:
            for found, new in CHANGES.items():
                obj.docstring.value = found.sub(new, obj.docstring.value)
