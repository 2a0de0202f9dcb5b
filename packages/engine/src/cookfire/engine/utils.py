"""Small helpers: tensors in nested containers, seeds, logging, deprecation, named checkpoints."""

from __future__ import annotations

import functools
import hashlib
import logging
import random
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

import numpy as np
import torch
from torch import Tensor

import cookfire.distributed as idist

__all__ = [
    "apply_to_tensor",
    "apply_to_type",
    "convert_tensor",
    "deprecated",
    "hash_checkpoint",
    "manual_seed",
    "setup_logger",
    "to_onehot",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def convert_tensor(
    x: Result, device: str | torch.device | None = None, non_blocking: bool = False
) -> Result:
    """Move every tensor of a nested container to ``device``.

    Args:
        x: a tensor, or mappings, sequences and named tuples of them; strings and bytes pass.
        device: where to; None leaves tensors where they are.
        non_blocking: copy asynchronously from pinned memory.

    Example:
        >>> convert_tensor({"x": torch.zeros(1), "name": "a"}, device="cpu")
        {'x': tensor([0.]), 'name': 'a'}
    """
    if device is None:
        return x
    moved: Result = apply_to_tensor(
        x, lambda tensor: tensor.to(device=device, non_blocking=non_blocking)
    )
    return moved


def apply_to_tensor(x: Any, func: Callable[[Tensor], Any]) -> Any:
    """Apply ``func`` to every tensor of a nested container; see :func:`apply_to_type`."""
    return apply_to_type(x, Tensor, func)


def apply_to_type(x: Any, input_type: type | tuple[type, ...], func: Callable[[Any], Any]) -> Any:
    """Apply ``func`` to every object of ``input_type`` in a nested container.

    Containers keep their types; strings and bytes that are not of ``input_type`` pass unchanged.

    Raises:
        TypeError: something in ``x`` is neither a container nor of ``input_type``.

    Example:
        >>> apply_to_type({"a": [1, 2]}, int, str)
        {'a': ['1', '2']}
    """
    if isinstance(x, input_type):
        return func(x)
    if isinstance(x, str | bytes):
        return x
    if isinstance(x, Mapping):
        return _same_kind(
            x, {key: apply_to_type(value, input_type, func) for key, value in x.items()}
        )
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(apply_to_type(value, input_type, func) for value in x))
    if isinstance(x, Sequence):
        return _same_kind(x, [apply_to_type(value, input_type, func) for value in x])
    raise TypeError(
        f"expected {input_type}, or a mapping or sequence of it, got {type(x).__name__}"
    )


def _same_kind(original: Any, converted: Any) -> Any:
    return converted if type(original) is type(converted) else type(original)(converted)


def to_onehot(indices: Tensor, num_classes: int) -> Tensor:
    """Turn class indices ``(N, ...)`` into one-hot ``(N, num_classes, ...)`` uint8, same device.

    Example:
        >>> to_onehot(torch.tensor([2, 0]), 3)
        tensor([[0, 0, 1],
                [1, 0, 0]], dtype=torch.uint8)
    """
    shape = (indices.shape[0], num_classes, *indices.shape[1:])
    onehot = torch.zeros(shape, dtype=torch.uint8, device=indices.device)
    return onehot.scatter_(1, indices.unsqueeze(1), 1)


def manual_seed(seed: int) -> None:
    """Seed python's, numpy's and torch's generators (all devices, XLA's once it is in use)."""
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    idist.xla.set_random_state(seed)


def setup_logger(
    name: str | None = "cookfire",
    level: int = logging.INFO,
    stream: TextIO | None = None,
    format: str = "%(asctime)s %(name)s %(levelname)s: %(message)s",  # noqa: A002 - ignite's name
    filepath: str | Path | None = None,
    distributed_rank: int | None = None,
    reset: bool = False,
    encoding: str | None = "utf-8",
) -> logging.Logger:
    """Return a logger that writes to a stream (stderr) and, if named, to a file.

    Ranks other than 0 are silent below WARNING, and write no file.

    Args:
        name: the logger's name; None for the root logger.
        level: from which level on messages are shown.
        stream: where to; stderr by default.
        format: of a line, as in :mod:`logging`.
        filepath: a file that gets the same lines.
        distributed_rank: this process's rank; asked of ``cookfire.distributed`` by default.
        reset: drop the handlers that the logger has; without it a logger that is set up already
            is set up anew as well, so lines never come twice.
        encoding: of the file.

    Example:
        >>> logger = setup_logger("trainer")
        >>> logger.level == logging.INFO
        True
    """
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        if reset or getattr(handler, "_cookfire", False):
            logger.removeHandler(handler)
            handler.close()
    rank = idist.get_rank() if distributed_rank is None else distributed_rank
    if name is not None:
        logger.propagate = False
    logger.setLevel(level if rank == 0 else max(level, logging.WARNING))
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    if filepath is not None and rank == 0:
        handlers.append(logging.FileHandler(filepath, encoding=encoding))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(format))
        vars(handler)["_cookfire"] = True
        logger.addHandler(handler)
    return logger


def deprecated(
    deprecated_in: str,
    removed_in: str = "",
    reasons: tuple[str, ...] = (),
    raise_exception: bool = False,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Make a function warn (or raise) that it is on its way out.

    Args:
        deprecated_in: version since which it is deprecated.
        removed_in: version that will remove it.
        reasons: why, and what to use in its place.
        raise_exception: raise the DeprecationWarning in place of showing it.

    Example:
        >>> @deprecated("0.2", reasons=("use new()",), raise_exception=True)
        ... def old(): ...
        >>> old()
        Traceback (most recent call last):
            ...
        DeprecationWarning: old is deprecated since version 0.2: use new()
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        text = f"{function.__name__} is deprecated since version {deprecated_in}"
        if removed_in:
            text += f" and will be removed in version {removed_in}"
        if reasons:
            text += ": " + "; ".join(reasons)

        @functools.wraps(function)
        def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            if raise_exception:
                raise DeprecationWarning(text)
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return function(*args, **kwargs)

        wrapper.__doc__ = f"{function.__doc__ or ''}\n\n.. deprecated:: {deprecated_in}\n"
        return wrapper

    return decorate


def hash_checkpoint(checkpoint_path: str | Path, output_dir: str | Path) -> tuple[Path, str]:
    """Copy a checkpoint to ``<stem>-<first 8 of its sha256><suffix>`` in ``output_dir``.

    Torch's hub checks downloads by such names.

    Returns:
        The path of the copy, and the whole sha256.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    source = Path(checkpoint_path)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such checkpoint")
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # ignite's name for best_model.pt is best_model-<hash>.pt.
    target = folder / f"{source.stem}-{digest[:8]}{source.suffix}"
    shutil.copy2(source, target)
    return target, digest
