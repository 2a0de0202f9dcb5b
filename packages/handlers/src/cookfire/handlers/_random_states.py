"""The states of the global random number generators."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

import numpy
import torch

from cookfire.distributed import derive_seed, xla

__all__ = ["get_random_states", "seed_from_state", "set_random_states"]


def get_random_states() -> dict[str, Any]:
    """Return the states of this process's generators: torch's, every device's, numpy's, python's.

    They are plain values and tensors on the CPU. A device that was not used has no state.
    """
    version, internal, gauss = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
        "numpy": _plain(numpy.random.get_state(legacy=False)),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch has no types there
        states["cuda"] = torch.cuda.get_rng_state_all()
    if (on_xla := xla.get_random_state()) is not None:
        states["xla"] = on_xla
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Restore what :func:`get_random_states` returned; warn about devices that are not here."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy.random.set_state(_from_plain(states["numpy"]))
    cuda = states.get("cuda", [])
    if cuda and len(cuda) != torch.cuda.device_count():
        logging.getLogger(__name__).warning(
            "the run was saved with %d CUDA devices, here are %d: random numbers will differ",
            len(cuda),
            torch.cuda.device_count(),
        )
    for index, state in enumerate(cuda[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, index)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
    if "xla" in states:
        xla.set_random_state(states["xla"])
    torch.set_rng_state(states["torch"])


def seed_from_state(number: int) -> None:
    """Seed all generators anew as a function of torch's present state and ``number``."""
    seed = derive_seed(int(torch.randint(2**62, ())), number)
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)


def _plain(value: Any) -> Any:
    """Return numpy's state with tensors for arrays."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, numpy.ndarray):
        # As int64, which has every operation in torch; the words have 32 bits.
        return torch.from_numpy(value.astype(numpy.int64))
    return value


def _from_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _from_plain(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        return value.numpy().astype(numpy.uint32)
    return value
