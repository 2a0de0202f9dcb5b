"""The public modules of the four packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import cookfire


def public_modules() -> Iterator[ModuleType]:
    """Yield each module that a user may import."""
    for found in pkgutil.walk_packages(cookfire.__path__, "cookfire."):
        if "._" not in found.name and not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)
