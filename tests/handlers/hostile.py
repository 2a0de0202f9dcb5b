"""Files that make a folder if they are unpickled, by which a test sees that they ran."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch

KINDS = [
    "zip", "zip of tensors", "nested zip", "old format", "tar", "tar of pickles",
    "0", "1", "2", "3", "4", "5", "system", "eval", "stack global", "inner pickle",
]  # fmt: skip
"""What :func:`write_hostile` can write; a number is the protocol of a bare pickle."""


class Hostile:
    """Makes a folder if it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


class Called:
    """Calls a function if it is unpickled."""

    def __init__(self, function: Any, argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> Any:
        return self.call


def write_hostile(kind: str, path: Path, target: Path) -> None:
    """Write a file that makes the folder ``target`` if it is unpickled."""
    bad = Hostile(target)
    command = f"mkdir {target}"
    match kind:
        case "zip":
            torch.save({"weight": bad}, path)
        case "zip of tensors":
            torch.save({"weight": torch.ones(3), "meta": [{"deep": (bad,)}]}, path)
        case "nested zip":  # a good archive whose pickle was exchanged
            _exchange_pickle(path, pickle.dumps({"weight": bad}, protocol=2))
        case "old format":
            torch.save({"weight": bad}, path, _use_new_zipfile_serialization=False)
        case "tar" | "tar of pickles":
            content = pickle.dumps(bad, protocol=2)
            with tarfile.open(path, "w") as archive:
                for name in ("sys_info", "pickle", "storages", "tensors"):
                    entry = tarfile.TarInfo(name)
                    first = b"" if kind == "tar" or name == "pickle" else pickle.dumps(0, 2)
                    entry.size = len(first + content)
                    archive.addfile(entry, io.BytesIO(first + content))
        case "system":
            path.write_bytes(b"cos\nsystem\n(S'" + command.encode() + b"'\ntR.")
        case "eval":
            path.write_bytes(pickle.dumps(Called(eval, f"__import__('os').mkdir({str(target)!r})")))
        case "stack global":
            path.write_bytes(
                b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c"
                + bytes([len(command)]) + command.encode() + b"\x85R."
            )  # fmt: skip
        case "inner pickle":
            torch.save({"weight": Called(pickle.loads, pickle.dumps(bad))}, path)
        case _:
            path.write_bytes(pickle.dumps(bad, protocol=int(kind)))


def _exchange_pickle(path: Path, content: bytes) -> None:
    good = io.BytesIO()
    torch.save({"weight": torch.ones(3)}, good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, content if name.endswith("data.pkl") else source.read(name))
