"""The batch files, and what augmentation makes of them."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from cookfire.handlers import recipe

from . import data
from .augmentation import AlbumentationsImages
from .config import Config
from .conftest import CONFIG, TRAINING

NOISE = torch.randint(0, 256, (60, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator())
LABELS = torch.arange(60) % 10
TEN_EPOCHS = [(epoch, index) for epoch in range(1, 11) for index in range(60)]
IMAGES = data.Images(NOISE, LABELS)


def augmented(
    translate: int = 2, seed: int = 0, *, alternate: bool = False
) -> data.AugmentedImages:
    return data.AugmentedImages(IMAGES, translate=translate, alternate_flips=alternate, seed=seed)


def windows(image: Tensor, translate: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every picture that may be made of an image, by numpy's reflection; how it was made."""
    pads = ((0, 0), (translate, translate), (translate, translate))
    padded = np.pad(image.numpy(), pads, mode="reflect")
    found = {}
    for row in range(2 * translate + 1):
        for column in range(2 * translate + 1):
            window = padded[:, row : row + 32, column : column + 32]
            found[window.tobytes()] = (row, column, False)
            found[window[:, :, ::-1].tobytes()] = (row, column, True)
    return found


def made_of(batch: Tensor, indices: list[int], translate: int) -> list[tuple[int, int, bool]]:
    """How each image of a batch was made: rows and columns cut off, and whether mirrored."""
    return [
        windows(NOISE[index], translate)[image.contiguous().numpy().tobytes()]
        for image, index in zip(batch, indices, strict=True)
    ]


# Augmentation


@settings(max_examples=20, deadline=None)
@given(
    translate=st.sampled_from([0, 1, 2, 4]),
    seed=st.integers(0, 2**31),
    epoch=st.integers(1, 500),
    chosen=st.lists(st.integers(0, 59), min_size=1, max_size=8),
)
def test_an_image_is_a_function_of_seed_epoch_and_index_alone_and_a_shifted_mirrored_window(
    translate: int, seed: int, epoch: int, chosen: list[int]
) -> None:
    images = augmented(translate, seed)
    batch, labels = images.__getitems__([(epoch, index) for index in chosen])
    assert torch.equal(labels, LABELS[chosen])
    made_of(batch, chosen, translate)
    # Whatever was asked before, and beside which others.
    other = augmented(translate, seed)
    other.__getitems__([(epoch + 1, 0)])
    for image, index in zip(batch, chosen, strict=True):
        assert torch.equal(other[epoch, index][0], image)


def test_a_window_is_torchvision_s_crop_of_the_padded_image() -> None:
    batch, _ = augmented(4).__getitems__([(3, index) for index in range(60)])
    made = made_of(batch, list(range(60)), 4)
    pad = v2.Pad(4, padding_mode="reflect")
    for image, original, (row, column, mirrored) in zip(batch, NOISE, made, strict=True):
        expected = v2.functional.crop(pad(original), row, column, 32, 32)
        assert torch.equal(image, v2.functional.hflip(expected) if mirrored else expected)


def test_seeds_and_epochs_differ_and_every_shift_and_mirroring_is_there() -> None:
    everything = [(1, index) for index in range(60)]
    first, _ = augmented(seed=0).__getitems__(everything)
    assert not torch.equal(first, augmented(seed=1).__getitems__(everything)[0])
    seen: Counter[tuple[int, int, bool]] = Counter()
    images = augmented(1)
    for epoch in range(1, 31):
        batch, _ = images.__getitems__([(epoch, index) for index in range(60)])
        seen.update(made_of(batch, list(range(60)), 1))
    # 18 ways, 100 times each; a count's deviation is 10.
    assert len(seen) == 18
    assert min(seen.values()) > 55
    assert max(seen.values()) < 145


def test_two_alternate_epochs_show_every_image_both_ways() -> None:
    images = augmented(alternate=True)
    mirrored = []
    for epoch in (1, 2, 3):
        batch, _ = images.__getitems__([(epoch, index) for index in range(60)])
        mirrored.append([flip for _, _, flip in made_of(batch, list(range(60)), 2)])
    assert all(one != two for one, two in zip(mirrored[0], mirrored[1], strict=True))
    assert mirrored[2] == mirrored[0]
    assert 15 < sum(mirrored[0]) < 45


def test_albumentations_draws_from_the_same_windows_and_is_reproducible() -> None:
    def dataset() -> AlbumentationsImages:
        return AlbumentationsImages(IMAGES, translate=1, seed=5)

    batch, labels = (images := dataset()).__getitems__(TEN_EPOCHS)
    assert torch.equal(labels, LABELS.repeat(10))
    made = made_of(batch, [index for _, index in TEN_EPOCHS], 1)
    # 9 shifts, 67 times each, and 300 mirrored; the counts' deviations are 8 and 12.
    shifts = Counter((row, column) for row, column, _ in made)
    assert len(shifts) == 9
    assert min(shifts.values()) > 30
    assert max(shifts.values()) < 105
    assert 240 < sum(mirrored for _, _, mirrored in made) < 360
    # Whatever was asked before, and beside which others.
    for place in (0, 7, 599):
        assert torch.equal(dataset()[TEN_EPOCHS[place]][0], batch[place])
        assert torch.equal(images[TEN_EPOCHS[place]][0], batch[place])
    assert len(images) == 60


def test_albumentations_mirrors_whatever_the_shift() -> None:
    batch, _ = AlbumentationsImages(IMAGES, translate=1, seed=5).__getitems__(TEN_EPOCHS)
    assert len(set(made_of(batch, [index for _, index in TEN_EPOCHS], 1))) == 18


# Loaders


@pytest.mark.parametrize("augmentation", ["tensor", "albumentations"])
def test_batches_depend_on_the_seed_and_the_epoch_alone(
    images: Path, augmentation: Literal["tensor", "albumentations"]
) -> None:
    def epochs(seed: int, count: int) -> list[Tensor]:
        config = replace(CONFIG, seed=seed, augmentation=augmentation, alternate_flips=False)
        loader = data.load(config, images).training
        return [torch.cat([x for x, _ in loader]) for _ in range(count)]

    first, second = epochs(0, 2)
    assert len(first) == TRAINING // CONFIG.batch_size * CONFIG.batch_size
    again = epochs(0, 2)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, epochs(1, 1)[0])


def test_test_images_are_all_there_in_order_and_as_they_are(images: Path) -> None:
    expected = data.read(images, "test")
    batches = list(data.load(CONFIG, images).test)
    assert [len(labels) for _, labels in batches] == [32, 32, 1]
    assert torch.equal(torch.cat([x for x, _ in batches]), expected.images)
    assert torch.equal(torch.cat([y for _, y in batches]), expected.labels)


def test_batches_are_normalised_by_the_channels_of_cifar10() -> None:
    x, y = data.prepare_batch((NOISE, LABELS))
    mean, std = list(data.MEAN), list(data.STD)
    expected = v2.Normalize(mean, std)(v2.ToDtype(torch.float32, scale=True)(NOISE))
    torch.testing.assert_close(x, expected)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, LABELS)


# Files


class Hostile:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def replaced(path: Path, **changes: object) -> None:
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({**content, **changes}))


def as_cifar100(path: Path) -> None:
    content = pickle.loads(path.read_bytes())
    content["fine_labels"] = content.pop("labels")
    path.write_bytes(pickle.dumps(content))


DAMAGED = "damaged or cut short, or no batch of CIFAR-10; fetch it again"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "no such file; --data takes a folder with cifar-10-batches-py/ in it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-500]), DAMAGED),
        (lambda path: path.write_bytes(b""), DAMAGED),
        (lambda path: path.write_bytes(b"<html>503 Service Unavailable</html>"), DAMAGED),
        (lambda path: path.write_bytes(pickle.dumps([1, 2])), DAMAGED),
        (lambda path: path.write_bytes(pickle.dumps(Hostile(path.parent / "touched"))), DAMAGED),
        (lambda path: replaced(path, labels=Hostile(path.parent / "touched")), DAMAGED),
        (as_cifar100, DAMAGED),
        (lambda path: replaced(path, data=np.zeros((64, 3 * 30 * 30), np.uint8)), DAMAGED),
        (lambda path: replaced(path, data=np.zeros((64, 3 * 64 * 64), np.uint8)),
         "256 images of torch.uint8 with 64 labels"),
        (lambda path: replaced(path, labels=[0] * 63),
         "64 images of torch.uint8 with 63 labels, expected as many of each, in bytes"),
        (lambda path: replaced(path, data=np.zeros((64, 3072), np.float32)),
         "64 images of torch.float32 with 64 labels"),
        (lambda path: replaced(path, data=np.zeros((0, 3072), np.uint8), labels=[]), "0 images"),
        (lambda path: replaced(path, labels=[99] * 64),
         "labels from 99 to 99, expected 0 to 9: not CIFAR-10"),
        (lambda path: replaced(path, labels=[-1] * 64), "labels from -1 to -1, expected 0 to 9"),
    ],
)  # fmt: skip
def test_a_file_that_is_missing_or_damaged_is_one_clear_line_and_runs_no_code(
    tmp_path: Path, images: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / data.FOLDER
    folder.mkdir()
    for path in (images / data.FOLDER).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    spoil(folder / "data_batch_3")
    with pytest.raises(recipe.RecipeError, match=f"data_batch_3: {message}") as caught:
        data.load(CONFIG, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (folder / "touched").exists()


def test_a_batch_larger_than_the_data_set_is_one_clear_line(images: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"320 training images, fewer than a batch of 321"):
        data.load(replace(CONFIG, batch_size=TRAINING + 1), images)


def test_images_that_fill_no_batch_wait_for_another_epoch(images: Path) -> None:
    config = replace(CONFIG, batch_size=128)
    loader = data.load(config, images).training
    shown = [torch.cat([y for _, y in loader]) for _ in range(3)]
    assert [len(labels) for labels in shown] == [256] * 3
    assert not torch.equal(shown[0].sort().values, shown[1].sort().values)


def test_files_are_read_as_python_2_wrote_them(tmp_path: Path) -> None:
    # The published files' keys and arrays are byte strings, which Python 3 writes no longer.
    pixels = bytes(range(256)) * 12
    text = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(pixels).to_bytes(4, "little") + pixels + b"tbU\x06labels](K\x07eu."
    )
    path = tmp_path / data.FOLDER / "test_batch"
    path.parent.mkdir()
    path.write_bytes(text)
    images = data.read(tmp_path, "test")
    assert images.labels.tolist() == [7]
    assert images.images.flatten().tolist() == list(pixels)


# Parameters


@pytest.mark.parametrize("profile", recipe.profiles(Path(__file__).with_name("params.yaml")))
def test_every_profile_is_valid(profile: str) -> None:
    recipe.load(Path(__file__).with_name("params.yaml"), profile, Config)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", 0.0, "lr: expected more than 0, got 0.0"),
        ("epochs", 0.0, "epochs: expected more than 0, got 0.0"),
        ("batch_size", 0, "batch_size: expected at least 1, got 0"),
        ("validate_every", 0, "validate_every: expected at least 1, got 0"),
        ("momentum", 1.0, "momentum: expected from 0 to below 1, got 1.0"),
        ("label_smoothing", -0.1, "label_smoothing: expected from 0 to below 1, got -0.1"),
        ("lr_peak", 1.0, "lr_peak: expected from 0 to below 1, got 1.0"),
        ("translate", 16, "translate: expected from 0 to below 16, got 16"),
        ("weight_decay", -1.0, "weight_decay: expected at least 0, got -1.0"),
        ("lookahead", -1, "lookahead: expected at least 0, got -1"),
        ("shift_lr", 0.0, "shift_lr: expected more than 0, got 0.0"),
        ("widths", (8, 0, 8), r"widths: expected three of at least 1, got \[8, 0, 8\]"),
        ("augmentation", "albumentations",
         "alternate_flips: expected false with augmentation: albumentations"),
    ],
)  # fmt: skip
def test_a_parameter_that_can_not_be_names_its_key(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **{name: value})


def test_a_wrong_key_or_choice_is_one_line_that_names_it(tmp_path: Path) -> None:
    text = Path(__file__).with_name("params.yaml").read_text()
    for old, new, message in (
        ("  lr: 0.2\n", "  lrr: 0.2\n", "tiny.lrr: unknown key; did you mean 'lr'"),
        ("  net: fast\n", "  net: slow\n", "tiny.net: expected .*fast.*resnet18.*, got 'slow'"),
    ):
        (tmp_path / "params.yaml").write_text(text.replace(old, new))
        with pytest.raises(recipe.RecipeError, match=message):
            recipe.load(tmp_path / "params.yaml", "tiny", Config)
