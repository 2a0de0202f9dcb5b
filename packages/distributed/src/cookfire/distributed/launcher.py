"""Running a function in one process or many, whoever starts them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import torch.distributed as dist

from ._checks import check_options
from ._environment import launched
from ._group import (
    check_backend,
    device,
    finalize,
    get_local_rank,
    get_rank,
    get_world_size,
    initialize,
    is_active,
)
from ._log import announce
from ._spawn import Job, plan
from ._together import end_with_launcher

__all__ = ["Parallel"]

_LOGGER = f"{__name__}.Parallel"
Parameters = ParamSpec("Parameters")


class Parallel:
    """A context in which a function runs in as many processes as were asked for.

    - ``Parallel()``: in this process, without a process group.
    - ``Parallel(backend="gloo", nproc_per_node=2)``: in two processes, which :meth:`run` starts and
      which end with it; see :func:`spawn`.
    - ``Parallel(backend="gloo")``: in this process as one of those that a launcher started:
      torchrun (also elastic, also on several nodes) or SLURM's srun. The group lives as long as the
      ``with``. Without a launcher the group has this one process. If one raises, torchrun ends the
      others and shows that one's traceback; if torchrun itself is killed, they end too.

    Args:
        backend: One of :func:`available_backends`; None for no process group.
        nproc_per_node: How many processes to start on this node.
        nnodes: How many nodes start processes by this same call; 1 by default.
        node_rank: This node's number among them, from 0; needed if there are several.
        master_addr: The address of node 0; needed if there are several.
        master_port: A free port of node 0; needed if there are several.
        init_method: Torch's URL of the rendezvous, in place of address and port.
        **spawn_kwargs: ``start_method`` of the processes ("spawn" by default; functions defined in
            a notebook need "fork"), and ``timeout`` of the collectives, a ``timedelta``.

    Raises:
        ValueError: The backend is unknown, or arguments contradict one another.
        TypeError: An argument is of the wrong type, or there is none of that name.

    Example:
        >>> def training(local_rank, config, **kwargs):
        ...     print("local rank", local_rank, "runs with", config)
        >>> with Parallel(backend=None) as parallel:
        ...     parallel.run(training, {"c": 12345}, a=1, b=2)
        local rank 0 runs with {'c': 12345}
    """

    def __init__(
        self,
        backend: str | None = None,
        nproc_per_node: int | None = None,
        nnodes: int | None = None,
        node_rank: int | None = None,
        master_addr: str | None = None,
        master_port: int | None = None,
        init_method: str | None = None,
        **spawn_kwargs: Any,
    ) -> None:
        check_options("Parallel", Job, spawn_kwargs, taken=("backend",))
        self.backend = backend
        self._job: Job | None = None
        options = {
            "nnodes": nnodes,
            "node_rank": node_rank,
            "master_addr": master_addr,
            "master_port": master_port,
            "init_method": init_method,
            **spawn_kwargs,
        }
        self._options = {name: value for name, value in options.items() if value is not None}
        if backend is None:
            self._check_serial(nproc_per_node)
        elif nproc_per_node is None:
            self._check_joining(backend)
        else:
            self._job = self._to_spawn(backend, nproc_per_node)

    def __enter__(self) -> Parallel:
        if self.backend is not None and self._job is None:
            if "TORCHELASTIC_RUN_ID" in os.environ:
                end_with_launcher()
            initialize(self.backend, **self._options)
            _say(f"Initialized processing group with backend: {self.backend!r}")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.backend is not None and self._job is None:
            if kind is not None and get_world_size() > 1 and device().type != "cpu":
                # The others may be in a collective: nccl would wait for them, and the launcher,
                # which ends them, for this process. The group ends with it.
                return
            speaks = get_rank() == 0
            finalize()
            if speaks:
                _say(f"Finalized processing group with backend: {self.backend!r}")

    def run(
        self,
        func: Callable[Concatenate[int, Parameters], object],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> None:
        """Run ``func(local_rank, *args, **kwargs)`` in every process.

        Args:
            func: A function at the top level of a module if it is to run in new processes.
            *args: Its arguments after the local rank.
            **kwargs: Its keyword arguments.

        Raises:
            ProcessRaisedException, ProcessExitedException: A started process failed; see
                :func:`spawn`. In this process, what ``func`` raises.
            RuntimeError: The group is not up: this was called outside the ``with``.
        """
        if self._job is not None:
            _say(f"Spawn function '{func}' in {self._job.nproc_per_node} processes")
            self._job.run(func, args, kwargs)
        else:
            if self.backend is not None and not is_active():
                raise RuntimeError("Parallel.run: expected inside `with Parallel(...)`")
            _say(f"- Run '{func}' in {get_world_size()} processes")
            try:
                func(get_local_rank(), *args, **kwargs)
            except (Exception, SystemExit) as error:  # raised again, torchrun told
                if not (isinstance(error, SystemExit) and error.code in (None, 0)):
                    _tell_launcher(error)
                raise
        _say("End of run")

    def _check_serial(self, nproc_per_node: int | None) -> None:
        given = {"nproc_per_node": nproc_per_node, **self._options}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name}={value!r}: expected a backend too, given backend=None")
        place = launched()
        if place is not None and place.world_size > 1:
            announce(
                _LOGGER,
                f"this process is one of {place.world_size} that a launcher started; without a "
                "backend each of them does the whole work",
                logging.WARNING,
            )

    def _check_joining(self, backend: str) -> None:
        check_backend(backend)
        self._options.pop("start_method", None)
        unused = self._options.keys() - {"init_method", "timeout"}
        if unused:
            raise ValueError(f"{', '.join(sorted(unused))}: expected nproc_per_node too")

    def _to_spawn(self, backend: str, nproc_per_node: int) -> Job:
        if is_active() or {"RANK", "WORLD_SIZE"} <= os.environ.keys():
            raise ValueError(
                f"nproc_per_node={nproc_per_node}: this process is one of several already, which "
                "torchrun or the like started; leave nproc_per_node out to join them"
            )
        job = plan(backend, nproc_per_node, self._options)
        shown = {
            "nproc_per_node": job.nproc_per_node,
            "nnodes": job.nnodes,
            "node_rank": job.number_of_node,
        } | self._options
        lines = [f"\n\t{name}: {value}" for name, value in shown.items()]
        _say(f"Initialized distributed launcher with backend: {backend!r}")
        _say(f"- Parameters to spawn processes: {''.join(lines)}")
        return job


def _tell_launcher(error: BaseException) -> None:
    """Let torchrun's last words name the rank that failed first, and its traceback."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        if not _is_first_to_fail():
            time.sleep(1)  # torchrun compares whole seconds
        get_error_handler().record_exception(error)


def _is_first_to_fail() -> bool:
    """Tell it before the others notice, most of which then fail for want of this process."""
    with contextlib.suppress(Exception):  # whoever has the store may be gone
        store = dist.distributed_c10d._get_default_store()
        return int(store.add("failures", 1)) == 1
    return False


def _say(message: str) -> None:
    announce(_LOGGER, message)
