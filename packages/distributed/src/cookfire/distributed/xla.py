"""XLA where a program uses it, and nothing elsewhere: for code that runs on any device.

None of this imports torch_xla, which takes seconds; a program that uses XLA has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["describe", "get_random_state", "in_use", "set_random_state", "sync"]


def in_use() -> bool:
    """Whether this process has opened XLA's devices.

    Example:
        >>> in_use()
        False
    """
    torch_xla = sys.modules.get("torch_xla")
    return torch_xla is not None and torch_xla._XLAC._xla_runtime_is_initialized()


def sync() -> None:
    """Start what was asked of XLA's devices since the last time, as one graph; without waiting.

    ``auto_dataloader``'s loaders do so for each batch. What is computed outside such a loop needs
    it before several results are read, or each of them becomes a graph of its own.
    """
    if in_use():
        sys.modules["torch_xla"].sync()


def get_random_state() -> int | None:
    """The state of XLA's generator; None where XLA is not in use.

    Example:
        >>> get_random_state() is None
        True
    """
    if not in_use():
        return None
    state: int = _xla_model().get_rng_state()
    return state


def set_random_state(state: int) -> None:
    """Set XLA's generator to a state, or to a seed, which is the same; nothing elsewhere."""
    if in_use():
        _xla_model().set_rng_state(state % 2**63)


def describe() -> str:
    """The devices that XLA drives, on which bits depend: ``CPU x4, torch_xla 2.9.0``.

    Raises:
        RuntimeError: XLA is not in use.
    """
    if not in_use():
        raise RuntimeError("describe: XLA is not in use in this process")
    import torch_xla
    from torch_xla import runtime

    count = runtime.global_runtime_device_count()
    return f"{runtime.device_type()} x{count}, torch_xla {torch_xla.__version__}"


def _xla_model() -> Any:
    from torch_xla.core import xla_model

    return xla_model
