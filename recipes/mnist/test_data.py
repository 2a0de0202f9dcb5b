"""The data: their order, their statistics, and what is said of files that are damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.datasets import MNIST

from cookfire.handlers import recipe

from . import data
from .conftest import CONFIG, TRAINING, write_idx


def test_the_order_of_batches_depends_on_the_seed_and_the_epoch_alone(digits: Path) -> None:
    def labels(seed: int, epochs: int) -> list[list[int]]:
        loader = data.load(replace(CONFIG, seed=seed), digits).training
        return [[label for _, y in loader for label in y.tolist()] for _ in range(epochs)]

    first, second = labels(0, 2)
    assert [first, second] == labels(0, 2)
    assert first != second
    assert first != labels(1, 1)[0]
    assert len(first) == TRAINING // CONFIG.batch_size * CONFIG.batch_size


def test_batches_are_normalised_to_mean_zero_and_variance_one_of_mnist() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1)
    x, y = data.prepare_batch((pixels, torch.tensor([1, 2])))
    expected = torch.tensor([-0.1307 / 0.3081, (1 - 0.1307) / 0.3081]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(x, expected)
    assert y.tolist() == [1, 2]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def scribble(path: Path) -> None:
    path.write_bytes(b"<html>503 Service Unavailable</html>")


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (IMAGES, Path.unlink, "no such file; --data takes a folder with MNIST/raw"),
        (IMAGES, truncate, "damaged or cut short: 258,731 bytes, its header says 258,736; fetch"),
        (LABELS, truncate, "damaged or cut short: 333 bytes, its header says 338; fetch it again"),
        (IMAGES, scribble, "no IDX file of bytes in 3 dimensions; fetch it again"),
        (IMAGES, lambda path: path.write_bytes(b""), "no IDX file of bytes in 3 dimensions"),
        (LABELS, lambda path: path.write_bytes(b"\0\0\10\1\0"), "damaged .*5 bytes, its header"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_one_clear_line(
    tmp_path: Path, digits: Path, name: str, spoil: Callable[[Path], object], message: str
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (digits / "MNIST" / "raw").iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    spoil(raw / name)
    with pytest.raises(recipe.RecipeError, match=f"{name}: {message}") as caught:
        data.load(CONFIG, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((40, 28, 28), torch.zeros(39), "40 images, but train-labels-idx1-ubyte has 39 labels"),
        ((40, 32, 32), torch.zeros(40), "images of 32x32, expected 28x28"),
        ((40, 28, 28), torch.full((40,), 10), "label 10, expected 0 to 9"),
        ((0, 28, 28), torch.zeros(0), "no images in it"),
        ((31, 28, 28), torch.zeros(31), "31 training images, fewer than a batch of 32"),
    ],
)
def test_files_that_do_not_belong_together_are_one_clear_line(
    tmp_path: Path, digits: Path, images: tuple[int, ...], labels: Tensor, message: str
) -> None:
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        path = tmp_path / "MNIST" / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((digits / "MNIST" / "raw" / name).read_bytes())
    write_idx(tmp_path, IMAGES, torch.zeros(images))
    write_idx(tmp_path, LABELS, labels)
    with pytest.raises(recipe.RecipeError, match=message):
        data.load(CONFIG, tmp_path)


def test_the_digits_read_are_those_that_torchvision_reads(digits: Path) -> None:
    for split in ("train", "t10k"):
        read, expected = data.read(digits, split), MNIST(digits, train=split == "train")
        assert torch.equal(read.images, expected.data)
        assert torch.equal(read.labels, expected.targets)
        assert (read.images.dtype, read.labels.dtype) == (torch.uint8, torch.int64)
