"""Names as MLflow takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cookfire.handlers._log_values import WarnOnce

__all__ = ["MLflowNames"]

FORBIDDEN = re.compile(r"[^/\w.\- :]")
LONGEST_NAME = 250


class MLflowNames:
    """Turns names into those that MLflow takes, each into one of its own; says which it changed."""

    def __init__(self, warn: WarnOnce) -> None:
        self._warn_once = warn
        self._names: dict[str, str] = {}

    def __call__(self, names: Iterable[str]) -> list[str]:
        """Return names that MLflow takes; warn of those that are not the ones given."""
        changed = []
        for name in names:
            if name not in self._names:
                allowed = self._names[name] = self._allowed(name)
                if allowed != name:
                    changed.append(f"{name!r} as {allowed!r}")
        if changed:
            message = f"MLflow does not allow all names; logged are {', '.join(changed)}"
            self._warn_once(("names", *changed), message)
        return [self._names[name] for name in names]

    def _allowed(self, name: str) -> str:
        parts = FORBIDDEN.sub("_", name).split("/")
        clean = "/".join(part for part in parts if part.strip(".")) or "_"
        allowed, number = clean[:LONGEST_NAME], 1
        while allowed in self._names.values():
            number += 1
            allowed = f"{clean[: LONGEST_NAME - len(str(number)) - 1]}_{number}"
        return allowed
