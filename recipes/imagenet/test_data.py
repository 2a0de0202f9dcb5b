"""Folders of images, what is made of them, and what can't be decoded."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from cookfire.handlers import recipe

from . import data, sources, transforms
from .config import Config
from .conftest import CLASSES, CONFIG, CORRUPT, TRAINING, cut_short, pattern, write_images
from .corrupt import refuse_corrupt


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    chance = np.random.RandomState(0)
    smooth = chance.randint(0, 256, size=(5, 7, 3)).astype(np.uint8)
    return Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def cropped(image: Image.Image, epoch: int = 1, index: int = 0, flip: float = 0.5) -> torch.Tensor:
    return transforms.random_crop(
        image, 24, smallest=0.1, flip=flip, seed=0, epoch=epoch, index=index
    )


# Transforms


def test_a_random_crop_is_a_function_of_seed_epoch_and_index() -> None:
    image = picture(61, 83)
    first = cropped(image)
    assert first.shape == (3, 24, 24)
    assert first.dtype == torch.uint8
    assert torch.equal(first, cropped(image))
    others = [cropped(image, epoch, index) for epoch in (1, 2) for index in (0, 1)]
    assert len({other.numpy().tobytes() for other in others}) == 4


def test_a_mirrored_crop_is_the_crop_mirrored() -> None:
    image = picture(61, 83)
    assert torch.equal(cropped(image, flip=1.0), cropped(image, flip=0.0).flip(-1))


def test_resizing_is_torchvision_s(tmp_path: Path) -> None:
    image = picture(41, 67)
    ours = transforms.middle_crop(image, 24, 1.0)
    square = v2.functional.center_crop(v2.functional.pil_to_tensor(image), [41, 41])
    theirs = v2.functional.resize(square, [24, 24], antialias=True)
    assert int((ours.int() - theirs.int()).abs().max()) <= 1


def test_random_crops_are_spread_like_torchvision_s() -> None:
    # Of an image whose pixels are their own places, a crop's corners say where it was.
    rows, columns = np.mgrid[:200, :240]
    image = Image.fromarray(np.stack([rows, columns, rows], axis=2).astype(np.uint8))

    def places(crop: torch.Tensor) -> list[float]:
        crop = crop.float()
        high, wide = crop[0, -1, 0] - crop[0, 0, 0], (crop[1, 0, -1] - crop[1, 0, 0]).abs()
        return [float(high), float(wide), float(crop[0].mean()), float(crop[1].mean())]

    torch.manual_seed(0)
    peer = v2.RandomResizedCrop(24, scale=(0.1, 1.0), antialias=True)
    tensor = v2.functional.pil_to_tensor(image)
    theirs = torch.tensor([places(peer(tensor)) for _ in range(400)])
    ours = torch.tensor([places(cropped(image, index=index)) for index in range(400)])
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0.06, atol=0)
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.15, atol=0)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_with_nearly_the_same_result(
    tmp_path: Path,
) -> None:
    picture(480, 640).save(tmp_path / "large.JPEG", quality=95)
    with Image.open(tmp_path / "large.JPEG") as image:
        fast = transforms.random_crop(image, 32, smallest=1, flip=0, seed=0, epoch=1, index=0)
        assert image.size == (80, 60)
    with Image.open(tmp_path / "large.JPEG") as image:
        image.load()
        whole = transforms.random_crop(
            image.copy(), 32, smallest=1, flip=0, seed=0, epoch=1, index=0
        )
    assert float((fast.float() - whole.float()).abs().mean()) < 2


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB", "P"])
@pytest.mark.parametrize(("height", "width"), [(1, 200), (300, 2), (7, 7)])
def test_any_shape_and_any_colours_become_a_square_of_three_channels(
    mode: str, height: int, width: int
) -> None:
    image = picture(height, width, mode)
    assert cropped(image).shape == (3, 24, 24)
    assert transforms.middle_crop(image, 24, 0.875).shape == (3, 24, 24)


def test_images_grow_to_their_full_size_in_steps_of_32() -> None:
    config = replace(CONFIG, epochs=10, first_size=64, size=150, grown_at=0.8)
    sizes = [data.size_at(config, epoch) for epoch in range(1, 11)]
    assert sizes == [64, 64, 64, 96, 96, 96, 128, 128, 150, 150]
    assert {data.size_at(replace(config, first_size=None), epoch) for epoch in (1, 9)} == {150}


# Batches


def test_a_batch_is_bytes_channels_last_and_normalised_on_the_device(images: Path) -> None:
    loaders = data.load(CONFIG, images)
    batch = next(iter(loaders.validation))
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    x, y = data.prepare_batch(batch)
    expected = v2.functional.normalize(batch.images / 255, data.MEAN, data.STD)
    torch.testing.assert_close(x, expected)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert loaders.classes == list(CLASSES)


@pytest.mark.parametrize("change", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_mixed_labels_say_how_much_of_each_image_there_is(change: dict[str, Any]) -> None:
    mix = data.create_mixing(replace(CONFIG, **change), 3)
    x = torch.eye(3).repeat_interleave(64, 1).reshape(3, 3, 8, 8)  # image k: channel k is 1
    torch.manual_seed(0)
    mixed, labels = mix(x, torch.arange(3))
    assert labels.shape == (3, 3)
    torch.testing.assert_close(mixed.mean(dim=(2, 3)), labels)


# What can't be decoded


def test_a_corrupt_image_is_replaced_in_training_and_left_out_of_evaluations(
    tmp_path: Path,
) -> None:
    folder = write_images(tmp_path)
    for path in (folder / CORRUPT, folder / "val/ant/ant_0.JPEG", folder / "train/bee/bee_4.JPEG"):
        cut_short(path)
    (folder / "train/bee/bee_5.JPEG").write_bytes(b"")
    loaders = data.load(CONFIG, folder)
    training, bad = data.TrainingImages(loaders.sources["train"], CONFIG), TRAINING + 3
    assert loaders.sources["train"].name(bad) == CORRUPT
    replaced, taken = training[2, bad], training[2, bad + 3]
    assert replaced.corrupt == (bad, bad + 1, bad + 2)
    assert replaced.image is not None
    assert taken.image is not None
    assert torch.equal(replaced.image, taken.image)
    batch = next(iter(loaders.validation))
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.corrupt.tolist() == [0]


def test_a_batch_of_nothing_but_corrupt_images_is_empty() -> None:
    batch = data.collate([data.Item(None, -1, (3,)), data.Item(None, -1, (1,))])
    x, y = data.prepare_batch(batch)
    assert (len(x), len(y), batch.corrupt.tolist()) == (0, 0, [3, 1])


def test_all_corrupt_images_are_named_before_the_training_where_they_are_fatal(
    images: Path, tmp_path: Path
) -> None:
    found = data.load(CONFIG, images).sources
    with pytest.raises(recipe.RecipeError, match=rf"^1 corrupt image: {CORRUPT}; replace them"):
        refuse_corrupt(found)
    refuse_corrupt({"val": found["val"]})


# Errors


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "val"), r"val: no such folder; --data takes"),
        (lambda folder: shutil.rmtree(folder / "val/cat"), r"class 'cat' is not in both"),
        (lambda folder: empty(folder / "val/cat"), "val/cat: no image"),
        (
            lambda folder: empty(folder / "val"),
            "a folder for each",
        ),
    ],
)
def test_a_folder_that_is_not_as_expected_is_told_of(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = write_images(tmp_path)
    damage(folder)
    with pytest.raises(recipe.RecipeError, match=message):
        data.load(CONFIG, folder)


def test_fewer_images_than_a_batch_are_told_of(images: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"36 training images, fewer than a batch of 64"):
        data.load(replace(CONFIG, batch_size=64), images)


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = write_images(tmp_path)
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "ant" / "notes.txt").write_text("")
    (folder / "train" / "ant" / "._ant_0.JPEG").write_bytes(b"")
    assert len(sources.find(folder, "train").labels) == 4 * TRAINING


# CIFAR-100


def write_cifar100(folder: Path) -> Path:
    here = folder / sources.CIFAR100
    here.mkdir()
    rows = np.stack([np.asarray(pattern(label, 0)[:, :32, :32]).reshape(-1) for label in range(4)])
    for name in ("train", "test"):
        content = {"data": rows, "fine_labels": [0, 1, 2, 3]}
        (here / name).write_bytes(pickle.dumps(content))
    (here / "meta").write_bytes(pickle.dumps({"fine_label_names": list(CLASSES)}))
    return folder


def test_cifar100_s_files_are_read_like_a_folder(tmp_path: Path) -> None:
    config = replace(CONFIG, batch_size=2, validation_crop=1.0)
    loaders = data.load(config, write_cifar100(tmp_path))
    assert loaders.classes == list(CLASSES)
    item = data.ValidationImages(loaders.sources["val"], config)[2]
    assert item.image is not None
    assert torch.equal(item.image, pattern(2, 0)[:, :32, :32])
    refuse_corrupt(loaders.sources)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x80", "damaged or cut short"), (pickle.dumps({"labels": []}), "not CIFAR-100"),
     (pickle.dumps([1]), "not a file of CIFAR-100"), (pickle.dumps(Path), "damaged")],
)  # fmt: skip
def test_files_that_are_not_cifar100_s_are_told_of(
    tmp_path: Path, content: bytes, message: str
) -> None:
    folder = write_cifar100(tmp_path)
    (folder / sources.CIFAR100 / "train").write_bytes(content)
    with pytest.raises(recipe.RecipeError, match=message):
        data.load(CONFIG, folder)


# Parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr: expected more than 0"),
        ({"epochs": 0}, "epochs: expected at least 1"),
        ({"first_size": 64}, "first_size: expected from 1 to size"),
        ({"warmup": 6.0}, "warmup: expected from 0 to below epochs"),
        ({"ema": 1.0}, "ema: expected from 0 to below 1"),
        ({"smallest_crop": 0.0}, "smallest_crop: expected above 0"),
        ({"flip": 1.5}, "flip: expected from 0 to 1"),
        ({"mixup": -1.0}, "mixup: expected at least 0"),
        ({"backbone_lr": 0.0}, "backbone_lr: 0 leaves random weights"),
    ],
)
def test_a_value_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    assert isinstance(CONFIG, Config)
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
