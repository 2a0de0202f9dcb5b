"""One process's part of a run, from the folders to the manifest; the first process writes them."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

from cookfire import distributed as idist
from cookfire.handlers.recipe import _environment, _manifest
from cookfire.handlers.recipe._errors import show_path
from cookfire.handlers.recipe._fingerprint import fingerprint
from cookfire.handlers.recipe._parameters import ConfigT
from cookfire.handlers.recipe._resume import ResumeFolder
from cookfire.handlers.recipe._run import Run

Function = Callable[[ConfigT, Run], Mapping[str, float] | None]

logger = logging.getLogger("cookfire.handlers.recipe")


@dataclasses.dataclass(frozen=True)
class Task:
    """Where one run of one entry point reads and writes; the same for each of its processes."""

    entry: str
    """Name of the entry point: ``train``, ``evaluate``."""

    recipe: Path
    """The recipe's folder."""

    profile: str

    parameters: object
    """The profile's block of params.yaml."""

    data: Path

    outputs: Path
    """Where the outs appear."""

    logs: Path

    resume: Path | None
    """Folder of the unfinished run; None for an entry point that is not resumable."""


def work(_local_rank: int, function: Function[ConfigT], config: ConfigT, task: Task) -> None:
    """Run the function in this process; what ``Parallel`` starts."""
    _environment.prepare_process(compiles=config.compile)
    _show_log()
    count = idist.get_world_size()
    if count != config.processes and idist.get_rank() == 0:
        logger.warning(
            "%d processes were started, the profile has %d; its results may differ",
            count, config.processes,
        )  # fmt: skip
    if task.resume is None:
        _run(function, config, task)
    else:
        _run_resumable(function, config, task, ResumeFolder(task.resume))


def _run(function: Function[ConfigT], config: ConfigT, task: Task) -> None:
    task.outputs.mkdir(parents=True, exist_ok=True)
    began = _Beginning(task)
    run = Run(task.profile, outputs=task.outputs, logs=task.logs, data=task.data)
    began.note(_call(function, config, run))


def _run_resumable(
    function: Function[ConfigT], config: ConfigT, task: Task, folder: ResumeFolder
) -> None:
    first = idist.get_rank() == 0
    is_new = not task.outputs.exists()
    with folder.locked() if first else nullcontext():
        began = _Beginning(task, folder)
        run = Run(
            task.profile,
            outputs=folder.outputs,
            logs=task.logs,
            data=task.data,
            states=folder.path,
            save_every=config.save_every,
            begins=began.announce,
        )
        # The first process's answer, so that all go the same way.
        if idist.broadcast(int(folder.finished() is not None), src=0):
            logger.info("the training was complete; publishing its outs")
        else:
            try:
                result = _call(function, config, run)
            except BaseException:  # to clean up, also at Ctrl-C
                if first:
                    folder.remove_if_useless()
                    began.take_back()
                    if is_new:
                        with suppress(OSError):  # there is something in it
                            task.outputs.rmdir()
                raise
            if first:
                folder.finish({"result": result})
        if first:
            finished = folder.finished()
            assert finished is not None
            folder.publish(task.outputs)
            began.note(finished["result"])
            folder.remove()
            for tracker in run.trackers:
                with tracker:  # a closed logger goes on with its run
                    tracker.log_artifact(task.logs / _manifest.NAME)


class _Beginning:
    """Makes the folder ready; says what runs, and notes the result at the end.

    The former is said when the training begins, so that of data that are missing or damaged there
    is one line to read, or by the latter where nobody has.
    """

    def __init__(self, task: Task, folder: ResumeFolder | None = None) -> None:
        self.task, self.at = task, time.monotonic()
        self.environment = _environment.describe(
            world_size=idist.get_world_size(), device=_environment.describe_device(idist.device())
        )
        self.prints: dict[str, str] = {}
        self.said = self.aside = False
        if idist.get_rank() == 0:
            self.prints = fingerprint(
                task.parameters, task.recipe, task.data, idist.get_world_size()
            )
            if folder is not None and folder.begin(self.prints, self.environment):
                self.aside = _set_aside(task.logs)
        idist.barrier()  # nobody looks for an interrupted run before it is known to fit

    def announce(self) -> None:
        """Say what runs, once."""
        if self.said:
            return
        self.said = True
        task, environment = self.task, self.environment
        used = ", ".join(f"{environment[name]}" for name in ("torch", "device", "instruction_set"))
        logger.info(
            "%s %s %s: torch %s, %s, %s, data %s", task.recipe.name, task.entry, task.profile, used,
            _count(environment["threads"], "thread"), _count(environment["world_size"], "process"),
            show_path(task.data),
        )  # fmt: skip

    def take_back(self) -> None:
        """Bring back the logs of the run before, if this one did not begin."""
        if self.aside and not self.said:
            shutil.rmtree(self.task.logs, ignore_errors=True)
            _previous(self.task.logs).rename(self.task.logs)

    def note(self, result: Mapping[str, float]) -> None:
        """Write the manifest, and say what came out."""
        self.announce()
        task = self.task
        if idist.get_rank() == 0:
            _manifest.record(
                task.logs, task.entry, recipe=task.recipe, data=task.data, outputs=task.outputs,
                environment=self.environment, fingerprint=self.prints, parameters=task.parameters,
                result=result,
            )  # fmt: skip
        shown = ", ".join(f"{name} {value:.6g}" for name, value in result.items()) or "done"
        logger.info(
            "%s (%.1f s); outs in %s", shown, time.monotonic() - self.at, show_path(task.outputs)
        )


def _count(number: object, thing: str) -> str:
    if number == 1:
        return f"1 {thing}"
    return f"{number} {thing}{'es' if thing.endswith('s') else 's'}"


def _set_aside(logs: Path) -> bool:
    """Keep the logs of the run before under another name, so that curves of two runs never mix."""
    if not logs.is_dir():
        return False
    previous = _previous(logs)
    if previous.is_dir():
        shutil.rmtree(previous)
    logs.rename(previous)
    return True


def _previous(logs: Path) -> Path:
    return logs.with_name(f"{logs.name}.previous")


def _call(function: Function[ConfigT], config: ConfigT, run: Run) -> dict[str, float]:
    result = function(config, run) or {}
    idist.barrier()  # all are done with the folder
    return {name: float(value) for name, value in result.items()}


class _ToStderr(logging.Handler):
    """Writes to what is stderr at the time, unlike ``logging.StreamHandler``."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _show_log() -> None:
    """Show what this package logs on stderr, unless the program has configured logging for it."""
    shown = logger.hasHandlers() and logger.isEnabledFor(logging.INFO)
    if idist.get_rank() == 0 and not shown:
        logger.propagate = not logging.root.handlers  # else warnings would come twice
        logger.addHandler(_ToStderr())
        logger.setLevel(logging.INFO)
