"""Boxes of a batch of images: checked, and brought into tensors of one shape for all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from cookfire.metrics._state import WITHOUT_FLOAT64
from cookfire.metrics._values import need_pair

Image = Mapping[str, Tensor]


class Boxes(NamedTuple):
    """The boxes of several images, padded to as many for each, at least one."""

    corners: Tensor
    """``(images, boxes, 4)``: x1, y1, x2, y2."""
    labels: Tensor
    """``(images, boxes)``, int64: the class; -1 where there is no box, or none of a class."""

    @property
    def areas(self) -> Tensor:
        """``(images, boxes)``."""
        return (self.corners[..., 2:] - self.corners[..., :2]).prod(-1)

    def reorder(self, order: Tensor) -> Boxes:
        """Return each image's boxes in another order."""
        corners = self.corners.gather(1, order[..., None].expand_as(self.corners))
        return Boxes(corners, self.labels.gather(1, order))


def pad_boxes(images: Sequence[Image], num_classes: int) -> Boxes:
    """Return the boxes of at least one image."""
    corners = pad_rows([image["bbox"] for image in images], 0)
    precise = torch.float32 if corners.device.type in WITHOUT_FLOAT64 else torch.float64
    labels = pad_rows([image["labels"].long() for image in images], -1)
    return Boxes(corners.to(precise), labels.masked_fill(labels >= num_classes, -1).clamp(min=-1))


def pad_rows(values: Sequence[Tensor], filler: float) -> Tensor:
    """Return what each image has a row of for each box as ``(images, boxes, ...)``."""
    padded = pad_sequence(list(values), batch_first=True, padding_value=filler)
    missing = int(padded.shape[1] == 0)
    return pad(padded, [0] * (2 * (padded.ndim - 2)) + [0, missing], value=filler)


def compare(detected: Boxes, actual: Boxes, crowd: Tensor) -> Tensor:
    """Return the intersection over union of each pair: ``(images, detected, actual)``.

    A detection may be but a part of a crowd: its own area takes the place of the union.
    """
    left, right = detected.corners[:, :, None], actual.corners[:, None]
    low = torch.maximum(left[..., :2], right[..., :2])
    high = torch.minimum(left[..., 2:], right[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    own = detected.areas[:, :, None]
    union = torch.where(crowd[:, None], own, own + actual.areas[:, None] - common)
    return torch.where(common > 0, common / union, 0.0)


def check_images(owner: str, output: Sequence[Any]) -> tuple[Sequence[Image], Sequence[Image]]:
    """Return predictions and targets.

    Raises:
        TypeError: not two lists of mappings.
        ValueError: lists of different lengths, missing keys, shapes that don't fit.
    """
    y_pred, y = need_pair(owner, output)
    keys = {"y_pred": ("bbox", "scores", "labels"), "y": ("bbox", "labels")}
    for name, images in (("y_pred", y_pred), ("y", y)):
        if not isinstance(images, tuple | list):
            raise TypeError(
                f"{owner}: {name} must be a list with a mapping for each image, got "
                f"{type(images).__name__}"
            )
        for number, image in enumerate(images):
            _check_image(f"{owner}: {name}[{number}]", image, keys[name])
    if len(y_pred) != len(y):
        raise ValueError(f"{owner}: got {len(y_pred)} images in y_pred and {len(y)} in y")
    return y_pred, y


def _check_image(where: str, image: Any, keys: Sequence[str]) -> None:
    if not isinstance(image, Mapping):
        raise TypeError(
            f"{where} must be a mapping with {', '.join(map(repr, keys))}, got "
            f"{type(image).__name__}: coco_tensor_list_to_dict_list makes one of a tensor"
        )
    missing = [key for key in keys if key not in image]
    if missing:
        raise ValueError(
            f"{where} lacks {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, image))}: rename them by output_transform"
        )
    number = len(image["labels"])
    for key in (*keys, "iscrowd", "area"):
        expected = (number, 4) if key == "bbox" else (number,)
        if key in image and image[key].shape != expected:
            raise ValueError(
                f"{where}[{key!r}] has the shape {tuple(image[key].shape)}, expected {expected}, "
                f"as there are {number} labels"
            )
