"""Starting the processes of a node, and the process group that joins them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]  # exported, unlisted

from ._backends import ALIASES, BARRIER_AFTER_INIT, Backend, receive, sendable
from ._checks import check_options, check_type, check_whole
from ._environment import Place
from ._group import check_backend, finalize, get_local_rank, get_nproc_per_node, initialize
from ._together import run_together

_LOOPBACK = "127.0.0.1"


def spawn(
    backend: str,
    fn: Callable[..., object],
    args: tuple[Any, ...],
    kwargs_dict: Mapping[str, Any] | None = None,
    nproc_per_node: int = 1,
    **kwargs: Any,
) -> None:
    """Run ``fn(local_rank, *args, **kwargs_dict)`` in processes of their own, in one group.

    They start together and end together: if one fails, the others are ended within seconds, and if
    this process dies, so do they. Torch's threads are divided among the processes unless
    ``OMP_NUM_THREADS`` says how many each has.

    Args:
        backend: One of :func:`available_backends`.
        fn: A function at the top level of a module (a script's own too, if the script starts
            processes under ``if __name__ == "__main__":`` only).
        args: Its positional arguments after the local rank; pickled, tensors by shared memory.
        kwargs_dict: Its keyword arguments.
        nproc_per_node: How many processes to start here.
        **kwargs: ``nnodes``, ``node_rank``, ``master_addr``, ``master_port``, ``init_method``,
            ``start_method`` and ``timeout``, as for :class:`Parallel`.

    Raises:
        ProcessRaisedException, ProcessExitedException: (from ``torch.multiprocessing``) A process
            failed: with the rank, its traceback, and the exception itself as ``__cause__``. One
            that ends before ``fn`` returns has failed too, also by ``sys.exit(0)``.
        TypeError: The function can't be sent to another process, or an argument is of the wrong
            type or unknown.
        ValueError: The backend is unknown, or arguments contradict one another.
    """
    plan(backend, nproc_per_node, kwargs).run(fn, args, kwargs_dict or {})


@dataclass(frozen=True)
class Job:
    """What to start on this node: checked when made, started by :meth:`run`."""

    backend: str
    nproc_per_node: int
    nnodes: int = 1
    node_rank: int | None = None
    master_addr: str | None = None
    master_port: int | None = None
    init_method: str | None = None
    start_method: str = "spawn"
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        check_backend(self.backend)
        self._check_types()
        if self._by_xla:
            self._check_xla()
        if self.nnodes > 1 and self.node_rank is None:
            raise ValueError(f"nnodes {self.nnodes}: expected node_rank= too, from 0")
        if not 0 <= self.number_of_node < self.nnodes:
            raise ValueError(f"node_rank {self.node_rank}: expected 0 to {self.nnodes - 1}")
        if self.init_method is not None:
            if self.master_addr is not None or self.master_port is not None:
                raise ValueError("init_method: expected no master_addr or master_port beside it")
        elif (self.nnodes > 1 or self.master_addr is not None) and (
            self.master_addr is None or self.master_port is None
        ):
            raise ValueError(
                f"nnodes={self.nnodes}, master_addr={self.master_addr!r}, "
                f"master_port={self.master_port}: expected address and port of node 0, "
                "or init_method="
            )

    def _check_types(self) -> None:
        check_whole("nproc_per_node", self.nproc_per_node, 1)
        check_whole("nnodes", self.nnodes, 1)
        if self.node_rank is not None:
            check_whole("node_rank", self.node_rank, 0)
        if self.master_port is not None:
            check_whole("master_port", self.master_port, 1)
        texts = (str, type(None))
        check_type("master_addr", self.master_addr, texts, "an address")
        check_type("init_method", self.init_method, texts, "a URL")
        check_type("timeout", self.timeout, (timedelta, type(None)), "a datetime.timedelta")
        methods = multiprocessing.get_all_start_methods()
        if self.start_method not in methods:
            expected = ", ".join(map(repr, methods))
            raise ValueError(f"start_method={self.start_method!r}: expected one of {expected}")

    @property
    def number_of_node(self) -> int:
        """``node_rank``, which one node alone need not be given."""
        return self.node_rank or 0

    def run(
        self, function: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Run ``function(local_rank, *args, **kwargs)`` in every process of this node."""
        if self.start_method != "fork" and _defined_interactively(function):
            raise ValueError(
                f"{function!r}: new processes cannot import what was defined interactively; put "
                "it into a file, or use start_method='fork'"
            )
        if self._by_xla:
            from ._xla import launch

            launch(_as_replica, (self, function, args, dict(kwargs)), self.start_method)
            return
        threads = None
        if "OMP_NUM_THREADS" not in os.environ:
            threads = max(1, torch.get_num_threads() // self.nproc_per_node)
        url, store = self._rendezvous()
        run_together(
            self.start_method,
            self.nproc_per_node,
            _in_process,
            self,
            sendable(self.backend),
            url,
            threads,
            function,
            args,
            dict(kwargs),
        )
        del store  # it served the processes until here

    def place(self, local_rank: int) -> Place:
        """Where the process stands that has this local rank."""
        first = self.number_of_node * self.nproc_per_node
        return Place(
            first + local_rank,
            self.nnodes * self.nproc_per_node,
            local_rank,
            self.nproc_per_node,
            self.number_of_node,
            self.nnodes,
        )

    @property
    def _by_xla(self) -> bool:
        """Whether torch_xla starts the processes, which alone knows how to share TPUs."""
        return ALIASES.get(self.backend, self.backend) == "xla" and self.nproc_per_node > 1

    def _check_xla(self) -> None:
        from ._xla import check_launch

        check_launch()
        given = (self.master_addr, self.master_port, self.init_method, self.timeout)
        if self.nnodes > 1 or any(value is not None for value in given):
            raise ValueError(
                "backend 'xla': expected no nnodes, master_addr, master_port, init_method or "
                "timeout: start the same on each host, whose TPUs know one another"
            )

    def _rendezvous(self) -> tuple[str | int, Store | None]:
        """Where the processes meet: a URL, or the port of a store that lives in this process.

        The latter has a port that the system chose and nobody can take away, and is reached from
        this machine only.
        """
        if self.init_method is not None:
            return self.init_method, None
        if self.master_port is not None:
            return f"tcp://{self.master_addr or _LOOPBACK}:{self.master_port}", None
        with socket.create_server((_LOOPBACK, 0)) as server:
            port = server.getsockname()[1]
            store = TCPStore(
                _LOOPBACK,
                port,
                is_master=True,
                wait_for_workers=False,
                master_listen_fd=server.detach(),
            )
        return port, store


def plan(backend: str, nproc_per_node: int, options: Mapping[str, Any]) -> Job:
    """A job of these options, by name.

    Raises:
        TypeError: An option is unknown, or of the wrong type.
        ValueError: Options contradict one another, or the backend is unknown.
    """
    check_options("spawn", Job, options, taken=("backend", "nproc_per_node"))
    return Job(backend, nproc_per_node, **options)


def _in_process(
    local_rank: int,
    job: Job,
    backend: Backend | None,
    url: str | int,
    threads: int | None,
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """What each process does: take its place, join the group, run the function."""
    receive(job.backend, backend)
    place = job.place(local_rank)
    place.export()
    if threads is not None:
        torch.set_num_threads(threads)
    options: dict[str, Any] = {} if job.timeout is None else {"timeout": job.timeout}
    if isinstance(url, int):
        options["store"] = TCPStore(_LOOPBACK, url, is_master=False)
    else:
        options["init_method"] = url
    # Nobody leaves, done at once or failed, while another one still connects to it.
    os.environ.setdefault(BARRIER_AFTER_INIT, "1")
    initialize(job.backend, **options)
    function(local_rank, *args, **kwargs)
    finalize()


def _as_replica(
    _: int,
    job: Job,
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """What each process does that torch_xla started."""
    initialize(job.backend)
    if get_nproc_per_node() != job.nproc_per_node:
        raise ValueError(
            f"nproc_per_node={job.nproc_per_node}: this host has {get_nproc_per_node()} XLA "
            "devices, and XLA starts a process for each"
        )
    function(get_local_rank(), *args, **kwargs)
    finalize()


def _defined_interactively(function: Callable[..., object]) -> bool:
    main = sys.modules["__main__"]
    return getattr(function, "__module__", "") == "__main__" and not hasattr(main, "__file__")
