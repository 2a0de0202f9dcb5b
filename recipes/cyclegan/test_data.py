"""Reading pictures, and what an epoch shows of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cookfire.handlers import recipe

from . import data
from .config import Config
from .conftest import CONFIG, COUNTS, HERE, write_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


def number(count: int, size: int = 6) -> torch.Tensor:
    """Return pictures that show their own number."""
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, size, size)


def epoch_of(dataset: data.UnpairedPictures, epoch: int) -> data.Batch:
    return dataset.__getitems__([(epoch, position) for position in range(len(dataset))])


# Mistakes in a folder


def test_a_folder_that_is_not_there_is_named_with_how_to_make_one(folder: Path) -> None:
    (folder / "trainB").rename(folder / "trainC")
    with pytest.raises(
        recipe.RecipeError, match=r"trainB: no such folder; --data takes .*dvc repro"
    ):
        data.load(CONFIG, folder)


def test_a_folder_without_pictures_is_named_with_what_counts_as_one(folder: Path) -> None:
    for path in (folder / "testA").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(recipe.RecipeError, match=r"testA: no pictures in it; .*\.jpg"):
        data.load(CONFIG, folder)


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_one_corrupt_picture_is_named(folder: Path, kept: int) -> None:
    path = folder / "trainA" / "7.png"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(recipe.RecipeError, match=r"trainA/7\.png: damaged, cut short or no pictur"):
        data.load(CONFIG, folder)


def test_a_cut_short_jpeg_is_named_too(folder: Path) -> None:
    path = folder / "trainB" / "3.jpg"
    Image.open(folder / "trainB" / "3.png").save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(recipe.RecipeError, match=r"trainB/3\.jpg: damaged"):
        data.load(CONFIG, folder)


def test_pictures_of_several_sizes_are_refused_by_name_unless_they_may_be(folder: Path) -> None:
    path = folder / "trainB" / "5.png"
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(
        recipe.RecipeError,
        match=r"trainB/5\.png: 40x30 pixels, but .*trainA/0\.png has 20x20; `sizes",
    ):
        data.load(CONFIG, folder)
    data.load(replace(CONFIG, sizes="any"), folder)


def test_fewer_pictures_than_a_batch_are_refused(folder: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"12 training pictures .* batch of 14"):
        data.load(replace(CONFIG, batch_size=14), folder)


def test_pairs_must_have_the_same_names(folder: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"3\.png is in one of testA and testB only"):
        data.load(replace(CONFIG, paired=True), folder)


# Reading


def test_pictures_are_read_by_name_in_colours_and_resized(folder: Path) -> None:
    Image.new("L", (20, 20), 77).save(folder / "testA" / "00.png")
    (folder / "testA" / "notes.txt").write_text("not a picture")
    a, b = data.read(folder, "test", 20)
    assert (a.shape, b.shape) == ((4, 3, 20, 20), (5, 3, 20, 20))
    assert set(a[1].flatten().tolist()) == {77}  # "0.png" comes before "00.png"
    expected = np.array(Image.open(folder / "testA" / "1.png"))
    np.testing.assert_array_equal(a[2].permute(1, 2, 0), expected)
    a, _ = data.read(folder, "test", 8)
    assert a.shape == (4, 3, 8, 8)


def test_of_any_size_a_picture_is_cut_to_the_square_in_its_middle(folder: Path) -> None:
    picture = Image.new("RGB", (60, 20), (255, 0, 0))
    picture.paste((0, 0, 255), (20, 0, 40, 20))
    picture.save(folder / "testA" / "0.png")
    a, _ = data.read(folder, "test", 10, "any")
    assert [set(channel.flatten().tolist()) for channel in a[0]] == [{0}, {0}, {255}]


def test_bytes_and_values_are_one_another_s_inverse() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    scaled, _ = data.prepare_batch((pixels, pixels))
    assert (scaled.min().item(), scaled.max().item()) == (-1, 1)
    assert torch.equal(data.to_bytes(scaled), pixels)


# Epochs


def test_an_epoch_has_the_larger_domain_once_and_the_smaller_one_evenly_in_other_pairs() -> None:
    dataset = data.UnpairedPictures(number(5), number(8), image_size=6, seed=0)
    epochs = []
    for epoch in (1, 2):
        a, b = (of[:, 0, 0, 0].tolist() for of in epoch_of(dataset, epoch))
        assert sorted(b) == list(range(8))
        assert sorted(Counter(a).values()) == [1, 1, 2, 2, 2]
        epochs.append(list(zip(a, b, strict=True)))
    assert epochs[0] != epochs[1]
    other = data.UnpairedPictures(number(5), number(8), image_size=6, seed=1)
    assert not torch.equal(epoch_of(other, 1)[1], epoch_of(dataset, 1)[1])


def test_a_picture_is_cut_and_mirrored_as_a_function_of_seed_epoch_and_position() -> None:
    pixels = torch.arange(100, dtype=torch.uint8).view(1, 1, 10, 10).expand(40, 3, 10, 10)
    dataset = data.UnpairedPictures(pixels, pixels, image_size=8, seed=0)
    a, b = epoch_of(dataset, 1)
    corners = Counter((int(of[0, 0, 0]), int(of[0, 0, 1] - of[0, 0, 0])) for of in a)
    # Three rows and columns to begin at, and the two directions of a line.
    beginnings = {10 * row + column for row in range(3) for column in range(3)}
    assert {corner - (7 if step == 255 else 0) for corner, step in corners} == beginnings
    assert {step for _, step in corners} == {1, 255}
    assert not torch.equal(a, b)
    epoch_of(dataset, 2)
    assert torch.equal(dataset[1, 3][0], a[3])


def test_a_batch_past_the_end_of_the_smaller_domain_is_empty(folder: Path) -> None:
    config = replace(CONFIG, validation_batch_size=3)
    sizes = [(len(a), len(b)) for a, b in data.load(config, folder).test]
    assert sizes == [(3, 3), (0, 2)]
    assert sum(size for _, size in sizes) == COUNTS["testB"]


# Parameters


@pytest.mark.parametrize("profile", recipe.profiles(HERE / "params.yaml"))
def test_every_profile_can_be_read(profile: str) -> None:
    assert recipe.load(HERE / "params.yaml", profile, Config).lambda_cycle == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 18}, "image_size: expected a multiple of 4"),
        ({"image_size": 20}, "load_size: expected at least image_size, 20, got 18"),
        ({"discriminator_layers": 3}, "image_size: expected at least 24 for 3"),
        ({"epochs": 0, "decay_epochs": 0}, "epochs: expected at least 1"),
        ({"lr": 0.0}, "lr: expected more than 0"),
        ({"betas": (0.5, 1.0)}, "betas: expected from 0 to below 1"),
        ({"pool": -1}, "pool: expected at least 0"),
        ({"lambda_identity": float("inf")}, "lambda_identity: expected at least 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
    ],
)
def test_values_that_would_fail_later_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
