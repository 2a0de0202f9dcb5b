"""Pairs on the disk, what is refused of them, and what augmentation and batches make of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import VOCSegmentation
from torchvision.transforms import v2

from cookfire.handlers import recipe

from . import data
from .augmentation import MEAN_COLOR, create_transform
from .config import Config
from .conftest import CONFIG, HERE, TRAINING, VALIDATION
from .pairs import FOLDER, IMAGES, LISTS, MASKS, find
from .palette import PALETTE, VOID, overlay, to_picture

# Pairs on the disk


def test_pairs_are_those_that_torchvision_reads(pairs: Path) -> None:
    theirs = VOCSegmentation(pairs, year="2012", image_set="val")
    ours = data.WholePairs(find(pairs, "val"))
    assert len(ours) == len(theirs) == VALIDATION
    for place in range(VALIDATION):
        (image, mask, number), (picture, truth) = ours[place], theirs[place]
        assert number == place
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(picture))
        assert np.array_equal(mask.numpy(), np.asarray(truth))


def test_the_palette_is_voc_s() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128),
             20: (0, 64, 128), 255: (224, 224, 192)}  # fmt: skip
    assert {value: tuple(PALETTE[value].tolist()) for value in known} == known
    mask = np.array([[0, 15], [255, 1]], np.uint8)
    picture = to_picture(mask)
    assert np.array_equal(np.asarray(picture), mask)
    assert np.array_equal(np.asarray(picture.convert("RGB")), PALETTE[mask])
    image = np.full((2, 2, 3), 10, np.uint8)
    assert overlay(image, mask, 1.0).tolist()[0] == [[10] * 3, list(known[15])]


def another_size(mask: Path) -> None:
    with Image.open(mask) as picture:
        picture.resize((12, 34)).save(mask)


def of_class(value: int) -> Callable[[Path], None]:
    def spoil(mask: Path) -> None:
        with Image.open(mask) as picture:
            values = np.array(picture)
        values[3, 3] = value
        to_picture(values).save(mask)

    return spoil


def in_colours(mask: Path) -> None:
    with Image.open(mask) as picture:
        picture.convert("RGB").save(mask)


def cut_short(mask: Path) -> None:
    mask.write_bytes(mask.read_bytes()[:-60])


def image_of(mask: Path) -> Path:
    return mask.parents[1] / IMAGES / f"{mask.stem}.jpg"


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (another_size, r"_2\.png: 12x34 pixels, but its image \w+_2\.jpg has \d+x\d+"),
        (of_class(21), r"_2\.png: class 21, expected 0 to 20, or 255 for void"),
        (of_class(254), r"_2\.png: class 254, expected"),
        (in_colours, r"_2\.png: a mask of mode RGB, expected one class index a pixel"),
        (Path.unlink, r"_2\.png: no such file; every image of a list needs"),
        (cut_short, r"_2\.png: damaged or cut short"),
        (lambda mask: mask.write_text("?"), r"_2\.png: damaged, or no image; fetch it again"),
        (lambda mask: image_of(mask).unlink(), r"_2\.jpg: no such file; every image of a list"),
        (lambda mask: image_of(mask).write_text("?"), r"_2\.jpg: damaged, or no image"),
    ],
)  # fmt: skip
def test_a_pair_that_can_not_be_learned_from_is_one_line_before_any_step(
    tmp_path: Path, pairs: Path, split: str, spoil: Callable[[Path], object], message: str
) -> None:
    shutil.copytree(pairs, tmp_path / "pairs")
    spoil(tmp_path / "pairs" / FOLDER / MASKS / f"{split}_2.png")
    with pytest.raises(recipe.RecipeError, match=message) as caught:
        data.load(CONFIG, tmp_path / "pairs")
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_list_and_too_few_pairs_are_named(tmp_path: Path, pairs: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"trainaug\.txt: no such file; --data takes"):
        data.load(replace(CONFIG, training_split="trainaug"), pairs)
    with pytest.raises(recipe.RecipeError, match="24 training images, fewer than a batch of 25"):
        data.load(replace(CONFIG, batch_size=TRAINING + 1), pairs)
    (tmp_path / FOLDER / LISTS).mkdir(parents=True)
    (tmp_path / FOLDER / LISTS / "train.txt").write_text("\n")
    with pytest.raises(recipe.RecipeError, match=r"train\.txt: names no image"):
        data.load(CONFIG, tmp_path)


# Augmentation


def changed(image: Any, mask: Any, **changes: Any) -> tuple[Any, Any]:
    config = replace(CONFIG, **changes)
    both = create_transform(config)(image=image, mask=mask)
    return both["image"], both["mask"]


@settings(max_examples=20, deadline=None)
@given(height=st.integers(20, 70), width=st.integers(20, 70), scale=st.sampled_from([0.5, 1.0, 2]))
def test_an_image_and_its_mask_are_changed_alike_and_what_is_filled_up_is_void(
    height: int, width: int, scale: float
) -> None:
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2], mask[:, : width // 3] = 7, 20
    image = np.stack([mask * 10] * 3, axis=2)  # its colour says the class
    image, mask = changed(image, mask, scales=(scale, scale), size=48)
    assert image.shape == (48, 48, 3)
    assert set(np.unique(mask).tolist()) <= {0, 7, 20, VOID}
    filled = mask == VOID
    known = image[~filled][:, 0].astype(int)
    near = np.abs(known - mask[~filled].astype(int) * 10) <= 1
    assert near.mean() > 0.8  # but where an image's classes meet, it is between them
    if scale == 1:
        assert near.all()
        assert filled.sum() == 48 * 48 - min(height, 48) * min(width, 48)
    assert (image[filled] == MEAN_COLOR).all()


def test_a_sample_is_a_function_of_seed_epoch_and_index_alone(pairs: Path) -> None:
    training = find(pairs, "train")

    def sample(key: tuple[int, int], seed: int = 0) -> torch.Tensor:
        config = replace(CONFIG, seed=seed, jitter=0.2)
        image, mask, _ = data.AugmentedPairs(training, config)[key]
        return torch.cat([image, mask[None]])

    augmented = data.AugmentedPairs(training, replace(CONFIG, jitter=0.2))
    first = [torch.cat([image, mask[None]]) for image, mask, _ in
             (augmented[key] for key in ((2, 5), (1, 0), (1, 5)))]  # fmt: skip
    for key, found in zip(((2, 5), (1, 0), (1, 5)), first, strict=True):
        assert torch.equal(sample(key), found)
    assert not torch.equal(sample((1, 5)), sample((2, 5)))
    assert not torch.equal(sample((1, 5)), sample((1, 5), seed=1))


def test_batches_do_not_depend_on_workers(pairs: Path) -> None:
    one, two = (
        [batch for _ in range(2) for batch in data.load(replace(CONFIG, workers=n), pairs).training]
        for n in (0, 2)
    )
    assert len(one) == 2 * (TRAINING // CONFIG.batch_size)
    for first, second in zip(one, two, strict=True):
        assert all(torch.equal(*both) for both in zip(first, second, strict=True))


# Batches


def test_whole_images_of_several_sizes_are_padded_with_void_and_the_mean_colour(
    pairs: Path,
) -> None:
    whole = data.WholePairs(find(pairs, "val"))
    images, masks, places = data.collate([whole[1], whole[4]])
    assert places.tolist() == [1, 4]
    for place, number in enumerate((1, 4)):
        image, mask, _ = whole[number]
        height, width = mask.shape
        assert torch.equal(images[place, :, :height, :width], image)
        assert torch.equal(masks[place, :height, :width], mask)
        outside = torch.ones(masks.shape[1:], dtype=torch.bool)
        outside[:height, :width] = False
        assert (masks[place][outside] == VOID).all()
        x, _ = data.prepare_batch((images, masks, places))
        if outside.any():
            assert x[place][:, outside].abs().max() < 0.01


def test_batches_are_normalised_by_the_channels_of_imagenet(pairs: Path) -> None:
    batch = next(iter(data.load(CONFIG, pairs).training))
    x, y = data.prepare_batch(batch)
    expected = v2.Normalize(list(data.MEAN), list(data.STD))(
        v2.ToDtype(torch.float32, scale=True)(batch[0])
    )
    torch.testing.assert_close(x, expected)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.dtype == torch.int64
    assert torch.equal(y, batch[1].long())


# Parameters


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0.0, "epochs: expected more than 0, got 0"),
        ("batch_size", 0, "batch_size: expected at least 1, got 0"),
        ("accumulate", 3, "batch_size: expected a multiple of accumulate x processes, 3 x 1, got"),
        ("scales", (2.0, 1.0), r"scales: expected two above 0 in order, got \[2.0, 1.0\]"),
        ("views", (), r"views: expected one or more above 0, got \[\]"),
        ("widths", (8,), r"widths: expected two or more, of at least 1, got \[8\]"),
        ("jitter", 1.0, "jitter: expected from 0 to below 1"),
        ("auxiliary", 0.4, "auxiliary: the net 'light' has no auxiliary head"),
        (
            "weights_backbone",
            "torchvision",
            "weights_backbone: expected null for the net",
        ),
    ],
)
def test_a_parameter_that_can_not_be_names_its_key(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **{name: value})


def test_every_profile_can_be_read() -> None:
    for profile in recipe.profiles(HERE / "params.yaml"):
        recipe.load(HERE / "params.yaml", profile, Config)
