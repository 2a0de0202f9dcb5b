"""Where images come from: a folder of files by class, or CIFAR-100's files."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cookfire.handlers import recipe

CIFAR100 = "cifar-100-python"
SPLITS = {"train": "train", "val": "test"}  # as the files of CIFAR-100 are named
SUFFIXES = (".jpeg", ".jpg", ".png")


# What reading or decoding an image raises where its file is damaged, or is not there.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class Source(Protocol):
    """Images with labels."""

    classes: list[str]
    labels: Tensor  # (N,) of int64

    def open(self, index: int) -> Image.Image:
        """Return an image that is yet to be decoded; that, and this, may raise ``UNREADABLE``."""

    def name(self, index: int) -> str:
        """Return what to call an image: its path in the data set's folder."""


def find(folder: Path, split: str) -> Source:
    """Return the training (``train``) or the validation (``val``) images of ``folder``.

    Raises:
        RecipeError: there are none, or not as expected.
    """
    if (folder / CIFAR100).is_dir():
        return Cifar100(folder, split)
    return ImageFolder(folder, split)


class ImageFolder:
    """Files ``folder/{train,val}/<class>/*.JPEG`` (.jpg, .png); classes and files are sorted."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder = folder / split
        if not self._folder.is_dir():
            raise recipe.RecipeError(
                f"{self._folder}: no such folder; --data takes a folder with train/<class>/ and "
                "val/<class>/ in it, and a stage of data/dvc.yaml makes one"
            )
        found = {entry.name for entry in os.scandir(self._folder) if entry.is_dir()}
        self.classes = sorted(name for name in found if not name.startswith("."))
        files, labels = [], []
        for label, name in enumerate(self.classes):
            images = sorted(
                file
                for file in (entry.name for entry in os.scandir(self._folder / name))
                if file.lower().endswith(SUFFIXES) and not file.startswith(".")
            )
            if not images:
                raise recipe.RecipeError(
                    f"{self._folder / name}: no image (.JPEG, .jpg, .png) here"
                )
            files += [f"{name}/{file}" for file in images]
            labels += [label] * len(images)
        if not self.classes:
            raise recipe.RecipeError(f"{self._folder}: expected a folder for each class in it")
        # No list: workers would copy its million objects, by counting references to them.
        self._files = np.array([os.fsencode(file) for file in files])
        self.labels = torch.tensor(labels)

    def open(self, index: int) -> Image.Image:
        """Return an image; see :class:`Source`."""
        return Image.open(self._folder / os.fsdecode(self._files[index]))

    def name(self, index: int) -> str:
        """Return the image's path."""
        return f"{self._folder.name}/{os.fsdecode(self._files[index])}"


class Cifar100:
    """CIFAR-100's two files, ``folder/cifar-100-python/{train,test}``, in memory."""

    def __init__(self, folder: Path, split: str) -> None:
        here = folder / CIFAR100
        self._split = split
        content = _unpickle(here / SPLITS[split])
        try:
            self._images = content["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            self.labels = torch.tensor(content["fine_labels"], dtype=torch.int64)
            self.classes = [str(name) for name in _unpickle(here / "meta")["fine_label_names"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise recipe.RecipeError(
                f"{here / SPLITS[split]}: not CIFAR-100 ({type(error).__name__}: {error}); fetch "
                "it again"
            ) from error
        if len(self._images) != len(self.labels) or self.labels.max() >= len(self.classes):
            raise recipe.RecipeError(f"{here / SPLITS[split]}: labels don't fit; fetch it again")

    def open(self, index: int) -> Image.Image:
        """Return an image; see :class:`Source`."""
        return Image.fromarray(self._images[index])

    def name(self, index: int) -> str:
        """Return the image's number."""
        return f"{self._split}/{index}"


def _unpickle(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise recipe.RecipeError(f"{path}: no such file; `dvc repro data/dvc.yaml:cifar100`")
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise recipe.RecipeError(f"{path}: can't be read: {error.strerror}") from error
    except Exception as error:  # whatever a damaged pickle leads to
        raise recipe.RecipeError(f"{path}: damaged or cut short; fetch it again") from error
    if not isinstance(content, dict):
        raise recipe.RecipeError(f"{path}: not a file of CIFAR-100; fetch it again")
    return content


class _ArraysOnly(pickle.Unpickler):
    """Loads arrays and plain values: a pickle from elsewhere must not run code of its own."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in self._ALLOWED:
            if name == "_reconstruct":
                return np.zeros(0).__reduce__()[0]
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")
