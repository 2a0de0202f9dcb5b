"""What the commands of the data stages share: a mirror, downloads, and errors in one line."""

from __future__ import annotations

import argparse
import errno
import http.client
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ._folder import HERE, DataError, replace_folder

MIRROR = "COOKFIRE_MIRROR"
PATIENCE = 30.0  # seconds that a silent server is waited for; torchvision would wait for ever
REPLACE = f"replace it, or unset {MIRROR} to download"


def mirror_folder() -> Path | None:
    """Return the folder that ``$COOKFIRE_MIRROR`` names."""
    given = os.environ.get(MIRROR)
    return Path(given).expanduser() if given else None


@contextmanager
def downloading(
    name: str, tried: Path | None, source: str, files: str, instead: str
) -> Iterator[None]:
    """Download a dataset inside, and let what fails be a DataError that names the two ways on.

    Args:
        name: of the dataset.
        tried: what the mirror lacks; None without a mirror.
        source: the address.
        files: what to put into a mirror.
        instead: what needs no download.
    """
    why = f"{MIRROR} is not set" if tried is None else f"{MIRROR} has no {tried}"
    print(f"{name}: {why}; downloading", file=sys.stderr)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    # torchvision raises RuntimeError, the network OSError, a server that breaks off HTTPException.
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # no other source would help
        raise DataError(
            f"{name} can't be had: {why}, and the download from {source} failed "
            f"({' '.join(str(error).split())}). Either put {files} into a folder and set {MIRROR} "
            f"to that folder, or run {instead}, which needs no download"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """Return the parser of the command ``python -m data.<module>``."""
    return argparse.ArgumentParser(
        prog=f"python -m data.{module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


@contextmanager
def answering(destination: Path) -> Iterator[None]:
    """Let an error be one line and exit code 2; ``destination`` is what it is about."""
    try:
        yield
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that is not the user's: most name no file
        where = error.filename or destination
        reason = error.strerror or error
        print(f"error: {where}: {reason}; mend that, and run it again", file=sys.stderr)
        sys.exit(2)


def make(
    name: str, write: Callable[[Path], None], doc: str | None, argv: Sequence[str] | None
) -> None:
    """Be the command ``python -m data.make_<name>``."""
    # It has nothing to say, but --help and wrong arguments are answered.
    parser(f"make_{name}", doc).parse_args(argv)
    with answering(HERE / name):
        replace_folder(HERE / name, write)


def put(
    module: str,
    names: Iterable[str],
    fetch: Callable[[str, Path | None, Path], None],
    doc: str | None,
    argv: Sequence[str] | None,
) -> None:
    """Be the command ``python -m data.<module> NAME``, which fetches one of several data sets."""
    command = parser(module, doc)
    command.add_argument("name", choices=sorted(names))
    name = command.parse_args(argv).name
    with answering(HERE / name):
        fetch(name, mirror_folder(), HERE / name)
