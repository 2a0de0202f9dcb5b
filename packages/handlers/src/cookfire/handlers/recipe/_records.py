"""Small JSON files: sorted keys, written atomically, read without trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cookfire.handlers._files import write_atomically


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the file's object, None if there is no such file or it holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_record(path: Path, value: Mapping[str, object]) -> None:
    """Write the object with sorted keys, so that equal values are equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)
