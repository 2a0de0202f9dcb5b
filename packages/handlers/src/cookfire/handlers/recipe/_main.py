"""A recipe's command line: ``python -m recipes.mnist.train --profile tiny``."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from cookfire import distributed as idist
from cookfire.handlers._reading import DamagedCheckpoint
from cookfire.handlers.recipe import _environment
from cookfire.handlers.recipe._errors import RecipeError, one_line, show_path
from cookfire.handlers.recipe._parameters import Config, ConfigT, find_profile, load, profiles
from cookfire.handlers.recipe._parent import end_with_parent
from cookfire.handlers.recipe._resume import ResumeFolder
from cookfire.handlers.recipe._worker import Function, Task, work

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
DISK_TROUBLE = (*NO_ROOM, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
"""Errors of the place that is written to, which a user can mend."""

MISFITS = ("Error(s) in loading state_dict", "Expected state_dict to be dict-like")
"""How torch begins to say that weights are not this net's."""

LAUNCHERS = ({"RANK", "WORLD_SIZE"}, {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"})
"""Variables that torchrun and srun set for each process they start."""


def main(
    function: Function[ConfigT],
    config: type[ConfigT],
    file: str,
    argv: Sequence[str] | None = None,
    *,
    resumable: bool = True,
    owns_runs: bool = True,
) -> None:
    """Run a recipe's entry point from the command line, in the environment its profile asks for.

    Reads the profile from ``params.yaml`` beside ``file``, sets the profile's environment (by
    starting the command once more, since torch reads it when it is imported), starts the profile's
    processes or joins those of torchrun, and calls ``function(config, run)`` in each.

    Args:
        function: ``train(config, run)`` or ``evaluate(config, run)``; returns its headline numbers.
        config: the recipe's frozen dataclass, a ``recipe.Config``.
        file: ``__file__`` of the entry point; its folder is the recipe, its name the entry's name.
        argv: arguments in place of the command line's; the environment must fit already then.
        resumable: True for a training: ``run.outputs`` is a staging folder beside what
            ``run.keep`` keeps in ``.resume/<profile>``, locked for this process, and its files
            appear in ``runs/<profile>`` when the function returns. False for an evaluation:
            ``run.outputs`` is ``runs/<profile>``, where it finds the weights and writes its outs.
        owns_runs: False for a program beside the pipeline, which must not write where a baseline's
            outs are: ``--out`` is required then.

    Raises:
        SystemExit: with code 2 after one line on stderr where the user can mend it (parameters, a
            missing or damaged file, a full disk); 130 after Ctrl-C. Other errors are raised as they
            are.

    Example:
        >>> if __name__ == "__main__":
        ...     recipe.main(train, MnistConfig, __file__)
    """
    try:
        _main(function, config, Path(file).resolve(), argv, resumable, owns_runs)
    except (RecipeError, DamagedCheckpoint) as error:
        _leave(one_line(str(error)), 2)
    except (RuntimeError, TypeError) as error:
        if not str(error).startswith(MISFITS):
            raise
        _leave(one_line(f"{error}; the weights are another net's: train this profile again"), 2)
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        _leave(_describe(error, resumable=resumable), 2)
    except KeyboardInterrupt:
        _leave("interrupted", 130)


def _describe(error: OSError, *, resumable: bool) -> str:
    text = str(error.strerror)
    if error.filename is not None:
        path = Path(os.fsdecode(error.filename))
        # A temporary file or .resume are ours: the user knows the folder.
        text = f"{show_path(path.parent if path.name.startswith('.') else path)}: {text}"
    if error.errno in NO_ROOM and resumable:
        text += "; the same command goes on when there is room"
    return text


def _leave(text: str, code: int) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)


def _main(
    function: Function[ConfigT],
    config_type: type[ConfigT],
    file: Path,
    argv: Sequence[str] | None,
    resumable: bool,
    owns_runs: bool,
) -> None:
    params_yaml = file.parent / "params.yaml"
    out = _describe_out(resumable=resumable, owns_runs=owns_runs)
    parser = _parser(function, params_yaml)
    parser.add_argument("--out", type=Path, metavar="DIR", required=not owns_runs, help=out)
    options = parser.parse_args(argv)
    config = load(params_yaml, options.profile, config_type)
    if options.data is not None:  # what is logged as a parameter is what is used
        config = dataclasses.replace(config, data=str(options.data.resolve()))
    block = find_profile(params_yaml, options.profile)
    if options.seed is not None:
        try:
            config = dataclasses.replace(config, seed=options.seed)
        except ValueError as error:
            raise RecipeError(f"--{error}") from error
        block = {**block, "seed": options.seed} if isinstance(block, dict) else block
    task = _task(file, options, block, config, resumable)
    where = _environment.where(params_yaml, options.profile)
    _environment.require(config.environment, where=where, restart=argv is None)
    _environment.check_instruction_set(config.environment, where=where)
    if not task.data.exists():
        key = f"{show_path(params_yaml)}: {options.profile}.data"
        raise RecipeError(
            f"{'--data' if options.data else key}: no such file or folder: {show_path(task.data)}"
            f"{'' if options.data else _ways_on(task.data)}"
        )
    if "DVC_ROOT" in os.environ:
        end_with_parent()
    try:
        launch(function, config, task)
    except KeyboardInterrupt:
        _leave(f"interrupted{_way_on(task)}", 130)


def _way_on(task: Task) -> str:
    if task.resume is None:
        return ""
    if (at := ResumeFolder(task.resume).kept()) is None:
        return "; nothing was kept yet, so that the same command begins again"
    return f"; the same command goes on from iteration {at}"


def _ways_on(data: Path) -> str:
    stages = data.parent / "dvc.yaml"
    stage = f"`dvc repro {show_path(stages)}:{data.name}` makes it, and " if stages.exists() else ""
    return f"; {stage}--data DIR --out DIR takes another"


def launch(function: Function[ConfigT], config: ConfigT, task: Task) -> None:
    """Call ``work`` in the processes that the profile asks for, or that a launcher has started."""
    launched = any(names <= os.environ.keys() for names in LAUNCHERS)
    backend = config.backend
    if backend is None and (launched or config.processes > 1):
        backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend is None:
        work(0, function, config, task)
        return
    # XLA drives all devices from one process, for which this one will do.
    here = launched or (backend in ("xla", "xla-tpu") and config.processes == 1)
    try:
        group = idist.Parallel(backend, nproc_per_node=None if here else config.processes)
    except (ValueError, RuntimeError) as error:
        key = f"{show_path(task.recipe / 'params.yaml')}: {task.profile}.backend"
        raise RecipeError(f"{key}: {error}") from error
    try:
        with group as parallel:
            parallel.run(work, function, config, task)
    except ProcessRaisedException as error:
        cause = error.__cause__
        if isinstance(cause, RecipeError | DamagedCheckpoint | OSError):
            raise cause from None
        if cause is not None and str(cause).startswith(MISFITS):
            raise cause from None
        raise


def _parser(function: Function[ConfigT], params_yaml: Path) -> argparse.ArgumentParser:
    module = sys.modules[function.__module__]
    spec = getattr(module, "__spec__", None)
    parser = argparse.ArgumentParser(
        prog=f"python -m {spec.name}" if spec is not None else None,
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(profiles(params_yaml))
    parser.add_argument("--profile", required=True, metavar="NAME", help=f"one of: {names}")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="another data set in the same layout; needs --out"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="another seed than the profile's; needs --out"
    )
    return parser


def _describe_out(*, resumable: bool, owns_runs: bool) -> str:
    folders = ["logs", ".resume"] if resumable else ["logs"]
    text = f"write everything there: outs, {' and '.join(f'DIR/{name}' for name in folders)}"
    if not owns_runs:
        return text
    defaults = " and ".join(f"{name}/<profile>" for name in folders)
    return f"{text} (default: runs/<profile>, {defaults} beside params.yaml)"


def _task(
    file: Path, options: argparse.Namespace, parameters: object, config: Config, resumable: bool
) -> Task:
    recipe, profile = file.parent, str(options.profile)
    if not re.fullmatch(r"\w[\w.-]*", profile):
        raise RecipeError(f"{show_path(recipe / 'params.yaml')}: {profile!r} can't name a folder")
    if options.out is not None and options.out.resolve().is_relative_to(recipe / "runs"):
        raise RecipeError(f"--out {options.out}: runs/ is DVC's; choose a folder outside it")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise RecipeError(f"--out {options.out}: not a folder")
    if options.data is not None and options.out is None:
        raise RecipeError(
            "--data needs --out DIR outside runs/, which holds results on the profile's own data"
        )
    if options.seed is not None and options.out is None:
        raise RecipeError("--seed needs --out DIR outside runs/, which holds the profile's own")
    data = (recipe / config.data if options.data is None else options.data).resolve()
    out = None if options.out is None else options.out.resolve()
    if out is not None and out.is_relative_to(data):
        raise RecipeError(f"--out {options.out}: is in the data set, {show_path(data)}")
    resume = recipe / ".resume" / profile if out is None else out / ".resume"
    return Task(
        entry=file.stem,
        recipe=recipe,
        profile=profile,
        parameters=parameters,
        data=data,
        outputs=recipe / "runs" / profile if out is None else out,
        logs=recipe / "logs" / profile if out is None else out / "logs",
        resume=resume if resumable else None,
    )
