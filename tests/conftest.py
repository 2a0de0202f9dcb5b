"""Fixtures shared by the tests of the four packages."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

import hypothesis
import pytest
import torch

from tests import warm

torch.set_num_threads(1)
warm.forkserver()  # also for tests that have others start their processes
if "PYTEST_XDIST_WORKER" in os.environ and multiprocessing.parent_process() is None:
    forkserver.ensure_running()  # it imports while this worker collects its tests
# An example takes as long as a busy machine lets it.
hypothesis.settings.register_profile("any time", deadline=None)
hypothesis.settings.load_profile("any time")

if importlib.util.find_spec("torch_xla"):
    # Ignite, an oracle, would call what torch_xla has no more; it is not to see it.
    sys.modules["torch_xla"] = None
    importlib.import_module("ignite.distributed")
    del sys.modules["torch_xla"]


@pytest.fixture(scope="session")
def processes() -> Callable[..., list[Any]]:
    """Run ``function(*args)`` in real gloo processes: ``processes(2, function, *args)``."""
    return warm.run_ranks
