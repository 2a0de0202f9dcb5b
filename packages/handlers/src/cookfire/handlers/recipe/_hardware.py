"""The machine a run had, and the versions it ran with: for the manifest, and for who compares."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

OURS = "cookfire-"


def describe_hardware(processor: str) -> dict[str, object]:
    """Return the machine: processor, logical CPUs this process may use, memory in bytes, GPUs."""
    gpus: list[dict[str, object]] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            gpus.append({"name": found.name, "memory": found.total_memory})
    return {
        "processor": processor,
        "cpus": _cpus(),
        "memory": _memory(),
        "gpus": gpus,
        "system": platform.platform(),
    }


def versions_of(recipe: Path) -> dict[str, str]:
    """Return the versions of Python and of what the recipe's pyproject.toml asks for."""
    versions = {"python": platform.python_version()}
    asked = ["torch"]
    with suppress(OSError, tomllib.TOMLDecodeError):
        project = tomllib.loads((recipe / "pyproject.toml").read_text()).get("project", {})
        asked += project.get("dependencies", [])
    for requirement in asked:
        if match := re.match(r"[\w.-]+", requirement):
            with suppress(importlib.metadata.PackageNotFoundError):
                versions[match[0]] = importlib.metadata.version(match[0])
    return versions


def deciding(versions: Mapping[str, str]) -> dict[str, str]:
    """Return those versions that a baseline records beside torch's.

    Python's without its patch level; not those of our packages, whose code is hashed.
    """
    python = ".".join(versions.get("python", "").split(".")[:2])
    others = {
        name: version
        for name, version in sorted(versions.items())
        if name not in ("python", "torch") and not name.startswith(OURS)
    }
    return {"python": python, **others} if python else others


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
