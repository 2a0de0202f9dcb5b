"""Running a profile's cells anew by DVC; what lay there before is lost only to a finished run.

DVC deletes a stage's outs before it runs the stage. Its cache keeps those that it was told to
cache, as long as nobody clears it, and the lock in git names them; but not metrics and curves, and
not the manifest. So all of it is set aside first (hard links: no room, no time), and put back
unless every cell came through; what a finished training made is kept beside it then. What is set
aside stays through a kill, and the next rerun goes on from it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cookfire.handlers.recipe import _lock, _manifest, _outs
from cookfire.handlers.recipe._child import run_python
from cookfire.handlers.recipe._errors import RecipeError, show_path
from cookfire.handlers.recipe._parameters import find_profile, load_common
from cookfire.handlers.recipe._yaml import read_yaml

FORCED = ("--single-item", "--force", "--no-run-cache")

logger = logging.getLogger("cookfire.handlers.recipe")


def rerun(folder: Path, profile: str) -> dict[str, str]:
    """Run the profile's cells once more, whatever is there; return the lock's outs of before.

    The data set's stage runs only if the data are missing. Nothing comes from DVC's run cache.

    Args:
        folder: the recipe's folder.
        profile: a profile that has cells in the recipe's dvc.yaml.

    Raises:
        RecipeError: there are no such cells, or one of them failed; the outs of before are back.
        KeyboardInterrupt: likewise.
    """
    folder = folder.resolve()
    find_profile(folder / "params.yaml", profile)  # says which there are
    cells = cells_of(folder, profile)
    root = _dvc_root(folder)
    aside = Aside(folder, profile)
    lock = aside.path.with_name(".rerun")  # one for all profiles: they share dvc.lock
    with _lock.locked(lock):
        try:
            return _rerun(root, aside, cells)
        finally:
            _lock.remove(lock)


def _rerun(root: Path, aside: Aside, cells: Sequence[str]) -> dict[str, str]:
    aside.take()
    before = _outs.locked_outs(aside.path, aside.profile)
    done: list[str] = []
    try:
        if (missing := _missing_data(aside.folder, aside.profile)) is not None:
            _repro(root, [missing], [])
        for cell in cells:
            _repro(root, [f"{aside.folder / 'dvc.yaml'}:{cell}"], FORCED)
            done.append(cell)
    except BaseException:  # Ctrl-C too
        if done:
            aside.keep_new()
            made = ", ".join(done)
            logger.warning("%s: what %s made anew is kept here", show_path(aside.new), made)
        aside.put_back()
        raise
    aside.remove()
    return before


def cells_of(folder: Path, profile: str) -> list[str]:
    """Return the names of the profile's stages in the order of the file: ``train@tiny``, ..."""
    path = folder / "dvc.yaml"
    content = read_yaml(path)
    stages = content.get("stages") if isinstance(content, dict) else None
    keys: dict[str, list[str]] = {}
    for name, stage in (stages if isinstance(stages, dict) else {}).items():
        each = stage.get("foreach") if isinstance(stage, dict) else None
        keys[str(name)] = [str(key) for key in each] if isinstance(each, dict | list) else []
    cells = [f"{name}@{profile}" for name, listed in keys.items() if profile in listed]
    if not cells:
        known = ", ".join(dict.fromkeys(key for listed in keys.values() for key in listed))
        raise RecipeError(
            f"{show_path(path)}: no stage runs {profile!r} (of each of these one does: {known})"
        )
    return cells


class Aside:
    """What lay there before a rerun: outs, lock and manifest, in ``.resume/<profile>.before``."""

    def __init__(self, folder: Path, profile: str) -> None:
        self.folder, self.profile = folder, profile
        self.path = folder / ".resume" / f"{profile}.before"
        self.new = folder / ".resume" / f"{profile}.new"
        self.outputs = folder / "runs" / profile
        self.files = {
            _outs.NAME: folder / _outs.NAME,
            _manifest.NAME: folder / "logs" / profile / _manifest.NAME,
        }

    def take(self) -> None:
        """Set everything aside, unless a killed rerun has and nobody finished the run since."""
        if self.path.exists() and not self._is_complete():
            logger.info("%s: kept since a rerun that was killed", show_path(self.path))
            return
        if self.path.exists():
            self.remove()
        partial = self.path.with_name(f".{self.path.name}")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "outputs").mkdir(parents=True)
        _copy(self.outputs, partial / "outputs")
        for name, path in self.files.items():
            if path.exists():
                shutil.copyfile(path, partial / name)
        partial.rename(self.path)

    def keep_new(self) -> None:
        """Move what the rerun has made so far out of the way."""
        shutil.rmtree(self.new, ignore_errors=True)
        self.outputs.rename(self.new)

    def put_back(self) -> None:
        """Make everything as it was."""
        shutil.rmtree(self.outputs, ignore_errors=True)
        if any((self.path / "outputs").iterdir()):
            self.outputs.mkdir(parents=True)
            _copy(self.path / "outputs", self.outputs)
        for name, path in self.files.items():
            kept = self.path / name
            now, before = (_text(file) for file in (path, kept))
            if name == _outs.NAME:  # other profiles' stages may have run since a kill
                before = _outs.with_stages(now, before, self.profile)
            if before is None:
                path.unlink(missing_ok=True)
            elif before != now:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(before, encoding="utf-8")
                if name == _outs.NAME:  # DVC has put its own into the index (core.autostage)
                    _git_add(path)
        self.remove()

    def remove(self) -> None:
        """Forget what was set aside."""
        # Renamed first: a folder of that name is whole.
        partial = self.path.with_name(f".{self.path.name}")
        shutil.rmtree(partial, ignore_errors=True)
        self.path.rename(partial)
        shutil.rmtree(partial)

    def _is_complete(self) -> bool:
        """Tell whether the outs are all there, and those that the lock names."""
        names = _outs.locked_outs(self.folder, self.profile)
        there = all((self.outputs / name).exists() for name in names)
        return bool(names) and there and not _outs.others(self.outputs, names)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(
            source, target, symlinks=True, dirs_exist_ok=True, copy_function=_link_or_copy
        )


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
    return target


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _git_add(path: Path) -> None:
    with contextlib.suppress(OSError):
        subprocess.run(
            ["git", "add", "--", path.name], cwd=path.parent, capture_output=True, check=False
        )


def _missing_data(folder: Path, profile: str) -> str | None:
    """Return the stage that makes the profile's data set, if that is not there."""
    data = (folder / load_common(folder / "params.yaml", profile).data).resolve()
    stages = data.parent / "dvc.yaml"
    return None if data.exists() or not stages.exists() else f"{stages}:{data.name}"


def _dvc_root(folder: Path) -> Path:
    for root in (folder, *folder.parents):
        if (root / ".dvc").is_dir():
            if importlib.util.find_spec("dvc") is None:
                raise RecipeError("a rerun needs DVC, which is not installed")
            return root
    raise RecipeError(f"{show_path(folder)}: not in a DVC repository, so that no stage can run")


def _repro(root: Path, targets: Sequence[str], options: Sequence[str]) -> None:
    shown = [os.path.relpath(target, root) for target in targets]
    code = run_python(["-m", "dvc", "repro", *options, *shown], root)
    if code:
        raise RecipeError(
            f"`dvc repro {' '.join([*options, *shown])}` failed (exit code {code}); the outs of "
            "before are back, and the same command goes on with what an interrupted training kept"
        )
