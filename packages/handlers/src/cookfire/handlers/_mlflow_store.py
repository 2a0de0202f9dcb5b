"""MLflow's database: where it is, and how it comes to be there completely or not at all.

MLflow makes its tables by dozens of migrations, for some ten seconds. A kill meanwhile leaves a
database that it refuses ever after. Here it is made beside its place, and renamed when complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["create_database", "database_of", "default_uri"]

try:
    import fcntl
except ImportError:  # not on Windows; then two processes may make the database at once
    fcntl = None  # type: ignore[assignment] # checked where it is used

ARTIFACTS = "mlruns"


def default_uri() -> str:
    """Return the URI of ``mlflow.db`` at the project's root: one database for all its folders.

    The root is the nearest folder with ``.dvc``, from the working folder upwards; else the working
    folder itself.
    """
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    return f"sqlite:///{root / 'mlflow.db'}"


def database_of(uri: str) -> Path | None:
    """Return the absolute path of the database file that ``uri`` names, None for others."""
    path = uri.removeprefix("sqlite:///")
    if path == uri or path in ("", ":memory:") or "?" in path:
        return None
    return Path(path).absolute()


def create_database(path: Path) -> None:
    """Make MLflow's database at ``path`` unless it is there; artifacts go to ``mlruns`` beside it.

    Safe against a kill at any moment, and against other processes that do the same.

    Raises:
        OSError: the folder can't be written.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path.parent):
        if path.exists():  # made by another process while this one waited
            return
        partial = path.with_name(f".{path.name}.partial")
        _remove(partial)  # left by a process that was killed
        try:
            _migrate(partial, path.parent / ARTIFACTS)
            _publish(partial, path)
        finally:
            _remove(partial)


def _migrate(path: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store_class: Any = SqlAlchemyStore  # its constructor is not annotated
    store = store_class(f"sqlite:///{path}", str(artifacts))
    store.engine.dispose()


def _publish(partial: Path, path: Path) -> None:
    """Give the database its name; if MLflow itself has made one meanwhile, that one stays."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        partial.rename(path)


def _remove(partial: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        partial.with_name(f"{partial.name}{suffix}").unlink(missing_ok=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself, so that no lock file is left; it ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if fcntl is not None:
            with suppress(OSError):  # some network file systems have no locks for folders
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
