"""Processes that end together: one failure ends all, and so does the end of their parent."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Any, Final, NoReturn, cast

from torch import multiprocessing  # it also teaches pickle to send tensors by shared memory
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

_GRACE: Final = 3.0  # seconds that a process has to clean up after it was told to end
_SETTLE: Final = 0.1  # seconds in which failures come in that belong together


def run_together(
    start_method: str, count: int, function: Callable[..., object], *args: object
) -> None:
    """Run ``function(number, *args)`` in ``count`` processes and wait for all to succeed.

    When one fails, the others are told to end (SIGTERM) and, if they have not within seconds,
    killed. When this process ends, however it does, they end as well.

    Raises:
        ProcessRaisedException: A process raised; with its traceback as text, and the exception
            itself as ``__cause__`` if it can be pickled. The first one, where several did.
        ProcessExitedException: A process was killed, or exited before its function returned,
            with whatever code; or afterwards with one that is not 0.
        TypeError: The function or an argument can't be sent to another process.
    """
    context = cast("SpawnContext", multiprocessing.get_context(start_method))
    # What a process starts itself, such as data loading workers, starts as it would from here; else
    # multiprocessing would go on with the method by which the process was started.
    own_method = multiprocessing.get_start_method(allow_none=True)
    own_method = own_method or multiprocessing.get_all_start_methods()[0]
    workers: list[_Worker] = []
    try:
        for number in range(count):
            reports, inbox = context.Pipe(duplex=False)
            # Not daemonic: such a process could not have data loading workers.
            process = context.Process(
                target=_work,
                args=(inbox, own_method, function, number, args),
                name=f"rank {number}",
            )
            with inbox:  # closed here, so that its end in the process is the only one
                _start(process)
            workers.append(_Worker(number, process, reports))
        _wait(workers)
    finally:
        _end(workers)


@dataclass(frozen=True)
class _Failure:
    """An exception, as told by the process in which it was raised."""

    nanoseconds: int
    text: str
    pickled: bytes

    def exception(self) -> BaseException | None:
        with contextlib.suppress(Exception):  # a user's exception may not survive the journey
            error = pickle.loads(self.pickled)
            return error if isinstance(error, BaseException) else None
        return None


@dataclass
class _Worker:
    """A started process, and what it reported."""

    number: int
    process: Any  # of the start method's own class
    reports: Connection
    returned: bool = False
    failure: _Failure | None = None

    def receive(self) -> None:
        with contextlib.suppress(EOFError):
            if not self.returned and self.failure is None and self.reports.poll():
                self.failure = pickle.loads(self.reports.recv_bytes())
                self.returned = self.failure is None

    @property
    def crashed(self) -> bool:
        code = self.process.exitcode
        return self.failure is None and code is not None and not (code == 0 and self.returned)

    def __str__(self) -> str:
        name = f"rank {self.number} (process {self.process.pid})"
        if self.failure is not None:
            return f"{name} raised\n\n{self.failure.text.rstrip()}"
        code = self.process.exitcode
        if code < 0:
            return f"{name} was ended by {signal.Signals(-code).name}"
        return f"{name} exited with code {code}" + (
            "" if self.returned else ", before its function returned"
        )


def _start(process: Any) -> None:
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"cannot send the function or its arguments to a new process: {error}; define the "
            "function at the top level of a module, or use start_method='fork'"
        ) from error


def _wait(workers: Sequence[_Worker]) -> None:
    waiting: dict[Any, _Worker] = {}
    for worker in workers:
        waiting |= {worker.process.sentinel: worker, worker.reports: worker}
    while waiting:
        for ready in connection.wait(list(waiting)):
            worker = waiting.pop(ready)
            if ready == worker.process.sentinel:
                worker.process.join()  # its end is seen here before its exit code is known
            worker.receive()
            if worker.failure is not None or worker.crashed:
                _raise(workers)


def _raise(workers: Sequence[_Worker]) -> NoReturn:
    """Raise the failure that caused the others."""
    time.sleep(_SETTLE)
    for worker in workers:
        worker.receive()
    raised = sorted(
        (worker for worker in workers if worker.failure is not None),
        key=lambda worker: worker.failure.nanoseconds if worker.failure else 0,
    )
    crashed = [worker for worker in workers if worker.crashed]
    if not crashed:
        # The first to raise: the others complain that it has gone.
        first = raised[0]
        assert first.failure is not None
        raise ProcessRaisedException(
            str(first), first.number, first.process.pid
        ) from first.failure.exception()
    # One that crashed could not say when; what the others raised may be cause or consequence.
    code = crashed[0].process.exitcode
    raise ProcessExitedException(
        "\n\n".join(str(worker) for worker in crashed + raised),
        crashed[0].number,
        crashed[0].process.pid,
        exit_code=code,
        signal_name=signal.Signals(-code).name if code < 0 else None,
    )


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _GRACE
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        worker.reports.close()


def _work(
    inbox: Connection,
    own_method: str,
    function: Callable[..., object],
    number: int,
    args: tuple[object, ...],
) -> None:
    """What runs in a started process."""
    multiprocessing.set_start_method(own_method, force=True)
    threading.Thread(target=_end_with_parent, name="watches the parent", daemon=True).start()
    # As an exception, so that data loading workers and the like are cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        function(number, *args)
        inbox.send_bytes(pickle.dumps(None))  # only who says so has succeeded: exit code 0 is cheap
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # the parent has been interrupted as well, and says so
    except Exception as error:  # whatever the function raises: the parent raises it again
        when, text = time.monotonic_ns(), traceback.format_exc()
        try:
            pickled = pickle.dumps(error)
        except Exception:  # whatever a user's exception holds; its text says the same
            pickled = b""
        inbox.send_bytes(pickle.dumps(_Failure(when, text, pickled)))
        sys.exit(1)
    finally:
        # It ends anyway: what runs at exit is neither interrupted nor complains of that.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@functools.cache  # once a process
def end_with_launcher() -> None:
    """Let this process end when torchrun's, which started it, has died without ending it."""
    thread = threading.Thread(
        target=_end_without, args=(os.getppid(),), name="watches the launcher", daemon=True
    )
    thread.start()


def _end_without(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1.0)
    _end_this_process()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    _end_this_process()


def _end_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)  # the main thread does not listen: it is inside a collective or the like
