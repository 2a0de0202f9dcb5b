"""Search for better parameters of a profile, with Optuna; no test image has a say.

    python -m recipes.cifar10.tune --profile full --trials 30 --out DIR
    python -m recipes.cifar10.tune --profile full --trials 30 --data DIR --out DIR

The last tenth of the training images is held out, and the accuracy on it decides. The first trial
is the profile as it is. DIR holds ``study.db``, which is Optuna's (``optuna-dashboard`` reads it),
and after each trial ``trials.tsv``, ``tune.png`` and ``best.yaml``, a block for ``params.yaml``. An
interrupted search goes on when the same command is given again, within the trial that it was in;
more ``--trials`` extend a finished one.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import pickle
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import DatabaseError

from cookfire import distributed as idist
from cookfire.handlers import recipe
from cookfire.handlers.recipe.pictures import write_png

from .config import Config
from .data import FILES, FOLDER, Images, read
from .train import train


@dataclass(frozen=True)
class Range:
    """Where a parameter is looked for."""

    low: float
    high: float
    log: bool = False
    """Whether steps are ratios rather than differences."""


SPACE = {
    "lr": Range(0.05, 5.0, log=True),
    "lr_peak": Range(0.05, 0.5),
    "momentum": Range(0.7, 0.97),
    "weight_decay": Range(1e-4, 1e-2, log=True),
    "label_smoothing": Range(0.0, 0.4),
}
"""What is searched for; all else stays as the profile has it. A fork changes this table."""


def search(config: Config, data: Path, out: Path, trials: int) -> list[FrozenTrial]:
    """Begin the search in ``out``, or go on with it, until so many trials have ended; return them.

    What a trial tries depends on the seed and on the trials before it alone, so that an interrupted
    search finds what an uninterrupted one does.

    Raises:
        RecipeError: ``out`` holds another search, or another process is at it; the profile asks for
            several processes, or has a value outside of ``SPACE``.
    """
    _check(config, trials)
    with _locked(out), _opened(out) as study:
        images = read(data, "train")
        _begin(study, config, images, out)
        trial_folder = out / "trial"
        if not _take_up(study):
            shutil.rmtree(trial_folder, ignore_errors=True)
        hold_out(images, out / "data")
        while (number := len(ended(study))) < trials:
            seed = idist.derive_seed(config.seed, number) % 2**32
            study.sampler = optuna.samplers.TPESampler(seed=seed)
            trial = study.ask()
            (trial_folder / "states").mkdir(parents=True, exist_ok=True)
            run = recipe.Run(
                "tune",
                outputs=trial_folder,
                logs=trial_folder / "logs",
                data=out / "data",
                states=trial_folder / "states",
                save_every=config.save_every,
            )
            tried = replace(config, mlflow=False, **_suggest(trial))
            study.tell(trial, train(tried, run)["accuracy"])
            shutil.rmtree(trial_folder)
            write_results(ended(study), out)
            print(_describe(ended(study), trials), flush=True)
        shutil.rmtree(out / "data")
        return ended(study)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were trained to their end, in their order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def hold_out(images: Images, folder: Path) -> None:
    """Write CIFAR-10's files: nine tenths of the training images, and the last in place of tests.

    The official files are shuffled, so that the last tenth is like the others.
    """
    training = len(images) - len(images) // 10
    shares = [
        *torch.arange(training).chunk(len(FILES["train"])),
        torch.arange(training, len(images)),
    ]
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, share in zip([*FILES["train"], *FILES["test"]], shares, strict=True):
        pixels, labels = images.images[share].flatten(1).numpy(), images.labels[share].tolist()
        (folder / FOLDER / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}))


def write_results(trials: Sequence[FrozenTrial], out: Path) -> None:
    """Write ``trials.tsv``, ``tune.png`` and ``best.yaml``."""
    rows = [["accuracy", *SPACE]]
    rows += [[str(trial.value), *(str(trial.params[name]) for name in SPACE)] for trial in trials]
    (out / "trials.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    with (out / "tune.png").open("wb") as file:
        write_png(draw(trials), file)
    best = _best(trials)
    (out / "best.yaml").write_text(
        f"# Accuracy {best.value:.4f} on held-out images, the best of {len(trials)} trials.\n"
        "# For params.yaml, below `<<: *PROFILE`.\n" + yaml.safe_dump({"tuned": best.params})
    )


def draw(trials: Sequence[FrozenTrial]) -> Figure:
    """Draw the accuracy of each trial, in their order and against each parameter."""
    values = [trial.value or 0.0 for trial in trials]
    best = _best(trials)
    with style.context("default"):
        figure = Figure(figsize=(12, 7), dpi=100, layout="tight")
        panels = figure.subplots(2, 3, sharey=True)
        first, *others = panels.flat
        first.plot(range(len(values)), values, "o")
        first.step(range(len(values)), list(accumulate(values, max)), where="post", label="best")
        first.set(xlabel="trial; 0 is the profile as it is", title="The search")
        first.xaxis.set_major_locator(MaxNLocator(integer=True))
        first.legend()
        for axes, (name, within) in zip(others, SPACE.items(), strict=True):
            tried = [trial.params[name] for trial in trials]
            points = axes.scatter(tried, values, c=range(len(values)), cmap="viridis")
            axes.plot(best.params[name], best.value, "*", color="tab:red", markersize=14)
            axes.set(xlabel=name, xscale="log" if within.log else "linear")
            axes.set_xlim(within.low, within.high)
        for axes in panels[:, 0]:
            axes.set_ylabel("accuracy, held out")
        figure.colorbar(points, ax=others[-1], label="trial", ticks=MaxNLocator(integer=True))
    return figure


def _check(config: Config, trials: int) -> None:
    if trials < 1:
        raise recipe.RecipeError(f"--trials: expected at least 1, got {trials}")
    if config.processes > 1 or config.backend is not None:
        raise recipe.RecipeError(
            "processes and backend: a search trains in one process; choose a profile without them"
        )
    for name, within in SPACE.items():
        value = getattr(config, name)
        if not within.low <= value <= within.high:
            raise recipe.RecipeError(
                f"{name}: the profile's {value} is not within {within.low} to {within.high}; "
                "widen SPACE in tune.py"
            )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if folder.exists() and not folder.is_dir():
        raise recipe.RecipeError(f"--out {folder}: not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise recipe.RecipeError(f"{folder}: another process is searching there") from error
        yield


@contextmanager
def _opened(out: Path) -> Iterator[optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = out / "study.db"
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    except DatabaseError as error:
        raise recipe.RecipeError(
            f"{database}: {error.orig}; choose another --out, or delete it to search anew"
        ) from error
    try:
        yield optuna.create_study(
            storage=storage, study_name="cifar10", direction="maximize", load_if_exists=True
        )
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _begin(study: optuna.Study, config: Config, images: Images, out: Path) -> None:
    """Begin a new study with the profile's own values; see that an old one is of this search."""
    space = {name: asdict(within) for name, within in SPACE.items()}
    pixels = hashlib.sha256(images.images.numpy().tobytes()).hexdigest()
    about = {**asdict(config), "data": pixels, "SPACE": space}
    about["widths"] = list(config.widths)  # what JSON makes of it
    known = study.user_attrs.get("about")
    if known is None:
        study.set_user_attr("about", about)
        study.enqueue_trial({name: getattr(config, name) for name in SPACE})
    elif differs := sorted(name for name in about if about[name] != known.get(name)):
        raise recipe.RecipeError(
            f"{out}: holds a search with other {', '.join(differs)}; choose another --out"
        )


def _take_up(study: optuna.Study) -> bool:
    """Queue the trial that was interrupted, if there is one; tell whether."""
    queued = False
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if len(trial.params) == len(SPACE):  # or else it did not begin
            study.enqueue_trial(trial.params)
            queued = True
    return queued


def _suggest(trial: Trial) -> dict[str, Any]:
    return {
        name: trial.suggest_float(name, within.low, within.high, log=within.log)
        for name, within in SPACE.items()
    }


def _best(trials: Sequence[FrozenTrial]) -> FrozenTrial:
    return max(trials, key=lambda trial: trial.value or 0.0)


def _describe(trials: Sequence[FrozenTrial], wanted: int) -> str:
    last, best = trials[-1], _best(trials)
    values = ", ".join(f"{name} {last.params[name]:.4g}" for name in SPACE)
    found = f"accuracy {last.value:.4f}, best {best.value:.4f}"
    return f"trial {len(trials)} of {wanted}: {found}, with {values}"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, and search; 2 where that can't be."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.cifar10.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    params_yaml = Path(__file__).with_name("params.yaml")
    names = ", ".join(recipe.profiles(params_yaml))
    parser.add_argument("--profile", required=True, metavar="NAME", help=f"one of: {names}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="its folder")
    parser.add_argument("--trials", type=int, default=30, metavar="N", help="in all (30)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="in CIFAR-10's layout")
    given = parser.parse_args(argv)
    try:
        config = recipe.load(params_yaml, given.profile, Config)
        data = given.data or (params_yaml.parent / config.data).resolve()
        search(config, data, given.out, given.trials)
    except recipe.RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    print((given.out / "best.yaml").read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
