"""Killing a process while it writes files: at random moments, and before each system call."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch


def _fork(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child, which costs a millisecond; return its process id."""
    with warnings.catch_warnings():
        # Of threads that the child does not need: it only writes files.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def kill_at_random_moments(work: Callable[[], None], times: int) -> Iterator[None]:
    """Run the endless ``work`` and kill it with SIGKILL; yield after each kill."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(times):
        child = _fork(work)
        time.sleep(0.005 + 0.05 * torch.rand((), generator=generator).item())
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child ended by itself"
        yield


def kill_before_each_call(work: Callable[[], None]) -> Iterator[int]:
    """Run ``work`` again and again, killed before its first, second, ... call that touches files.

    Yields after each kill, and ends when ``work`` got through.
    """
    calls = 0
    while True:
        child = _fork(partial(_with_deadly_calls, work, calls))
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert calls > 5, "the calls are not counted"
            return
        yield calls
        calls += 1


def _with_deadly_calls(work: Callable[[], None], left: int) -> None:
    def deadly(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*args, **kwargs)

        return call

    for name in ("open", "fsync", "replace", "unlink", "close"):
        setattr(os, name, deadly(getattr(os, name)))
    work()
