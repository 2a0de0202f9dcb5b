"""Average precision and recall of object detection, by COCO's protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_whole, same
from cookfire.metrics.metric import Metric
from cookfire.metrics.vision._averaging import average_precision, mean_of_classes, recall
from cookfire.metrics.vision._boxes import Image, check_images, pad_boxes, pad_rows
from cookfire.metrics.vision._matching import (
    IGNORED,
    RIGHT,
    find_counting,
    match,
    rank_in_class,
)

__all__ = [
    "CommonObjectDetectionMetrics",
    "ObjectDetectionAvgPrecisionRecall",
    "coco_tensor_list_to_dict_list",
]

AreaRange = Literal["small", "medium", "large", "all"]

_AREAS = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
    "all": (0.0, 1e10),
}
_STEP = (0.95 - 0.5) / 9
_IOU_THRESHOLDS = [0.5 + _STEP * number for number in range(9)] + [0.95]
# Rounded as pycocotools has them: a recall of 7 / 25 is below its threshold 28 * 0.01.
_REC_THRESHOLDS = [number * 0.01 for number in range(101)]


class _Detection(Metric):
    """Matches detections with objects as they come, and keeps the outcomes."""

    _settings = ("num_classes", "_max_detections", "_limits", "_iou_thresholds")

    scores = MetricState(reduction="cat")
    labels = MetricState(torch.int32, reduction="cat")
    ranks = MetricState(torch.int16, reduction="cat")
    """How many detections of the same image and class have higher scores."""
    outcomes = MetricState(torch.uint8, reduction="cat")
    objects = MetricState(torch.int64, shape=("_number", "num_classes"))
    """How many count, for each range of areas and class."""
    unknown = MetricState(torch.int64)
    """Boxes of classes that there are not."""
    count = MetricState(torch.int64)
    """Images."""

    def __init__(
        self,
        areas: Sequence[str],
        iou_thresholds: Tensor,
        max_detections: int,
        num_classes: int,
        output_transform: Callable[[Any], Any],
        device: str | torch.device | None,
        skip_unrolling: bool,
    ) -> None:
        need_whole("num_classes", num_classes)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self._number = len(areas)
        self._max_detections = max_detections
        self._limits = torch.tensor([_AREAS[area] for area in areas], dtype=torch.float64)
        self._iou_thresholds = iou_thresholds
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Any]) -> None:
        """Match a batch's detections."""
        y_pred, y = check_images(type(self).__name__, output)
        if not y:
            self.accumulate(count=0)
            return
        detected, actual = (pad_boxes(images, self.num_classes) for images in (y_pred, y))
        corners = detected.corners
        if self._limits.device != corners.device or self._limits.dtype != corners.dtype:
            self._limits = self._limits.to(corners)
            self._iou_thresholds = self._iou_thresholds.to(corners)
        scores = pad_rows([_as_scores(image["scores"]) for image in y_pred], -torch.inf)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        detected = detected.reorder(order)
        crowd = pad_rows([_crowd(image) for image in y], False)
        areas = [
            image["area"].to(corners) if "area" in image else of_boxes[: len(image["labels"])]
            for image, of_boxes in zip(y, actual.areas, strict=True)
        ]
        counts = find_counting(actual, crowd, pad_rows(areas, 0), self._limits)
        ranks = rank_in_class(detected.labels)
        outcomes = match(detected, actual, crowd, counts, self._limits, self._iou_thresholds)
        left_out = (ranks >= self._max_detections) | (detected.labels < 0)
        outcomes = outcomes.masked_fill(left_out[..., None, None], IGNORED)

        def rows(padded: Tensor) -> Tensor:
            lengths = (len(image["labels"]) for image in y_pred)  # what is there comes first
            return torch.cat([image[:n] for image, n in zip(padded, lengths, strict=True)])

        self.accumulate(
            scores=rows(scores),
            labels=rows(detected.labels).int(),
            ranks=rows(ranks.clamp(max=torch.iinfo(torch.int16).max)).short(),
            outcomes=rows(outcomes),
            objects=self._count_objects(actual.labels, counts),
            unknown=sum(map(self._count_unknown, [*y_pred, *y])),
            count=len(y),
        )

    def _count_objects(self, labels: Tensor, counts: Tensor) -> Tensor:
        ranges = counts.transpose(0, 1).flatten(1).long()
        index = labels.clamp(min=0).flatten().expand_as(ranges)
        return ranges.new_zeros(self._number, self.num_classes).scatter_add_(1, index, ranges)

    def _count_unknown(self, image: Image) -> Tensor:
        labels = image["labels"]
        return torch.count_nonzero((labels < 0) | (labels >= self.num_classes))

    def _check_input(self) -> None:
        if self.unknown:
            raise ValueError(
                f"{type(self).__name__}: {int(self.unknown)} boxes had labels that are none of the "
                f"classes 0 to {self.num_classes - 1}: set num_classes, or map them by "
                "output_transform"
            )

    def _average_precision(self, levels: Tensor) -> Tensor:
        """Return it for each class, range and threshold."""
        self._require("count")
        if not len(self.labels):
            return self._nothing()
        return average_precision(
            self.scores, self.labels.long(), self.outcomes, self.objects, levels
        )

    def _recall(self, max_detections: int | None = None) -> Tensor:
        """Return it for each class, range and threshold."""
        if not len(self.labels):
            return self._nothing()
        right = self.outcomes == RIGHT
        if max_detections is not None:
            right &= (self.ranks < max_detections)[:, None, None]
        return recall(self.labels.long(), right, self.objects)

    def _nothing(self) -> Tensor:
        """Return what no detection gives: 0 where there are objects."""
        none = self.objects.double().t()[..., None]
        return torch.where(none > 0, 0.0, torch.nan).expand(-1, -1, len(self._iou_thresholds))


class ObjectDetectionAvgPrecisionRecall(_Detection):
    """The average precision and recall of an object detector, by COCO's protocol.

    Detections are matched with objects by the intersection over union of their boxes
    (https://cocodataset.org/#detection-eval). At each threshold of it, the precision of a class is
    averaged over levels of recall, and its recall is that of all its detections; both are then
    averaged over thresholds and over the classes that have objects. Where no class has any, both
    are -1.

    Matching is done as batches come, without waiting for the device. What is kept is, for each
    detection, its score, class and rank, and a byte for each threshold: with COCO's thresholds and
    scores of float32, 20 bytes. Of detections with equal scores the one that came first is first,
    the one of a lower rank of the process group before that of a higher one. A score that is not a
    number is lower than all numbers.

    Args:
        iou_thresholds: of the intersection over union, from 0 to 1; None: 0.5, 0.55, ..., 0.95.
        rec_thresholds: levels of recall, from 0 to 1; None: 0, 0.01, ..., 1.
        num_classes: how many classes there are; 80 is COCO's number.
        max_detections_per_image_per_class: of more, those with the highest scores.
        area_range: the objects that count, by area in square pixels: ``"small"`` (up to 32 x 32),
            ``"medium"``, ``"large"`` (from 96 x 96 on) or ``"all"``.
        output_transform: turns the engine's output into ``(y_pred, y)``, two lists with a mapping
            for each image:

            - of ``y_pred``: ``"bbox"`` ``(boxes, 4)``, x1, y1, x2, y2 in pixels; ``"scores"``
              ``(boxes,)``; ``"labels"`` ``(boxes,)``, class indices;
            - of ``y``: ``"bbox"``, ``"labels"``, and if there are, ``"iscrowd"`` ``(boxes,)``, and
              ``"area"`` ``(boxes,)`` in square pixels, where not that of the box (COCO gives that
              of the segment).

            Of lists of tensors :func:`coco_tensor_list_to_dict_list` makes these.
        device: where outcomes are kept; None: where the data are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: thresholds that are none or out of range, an unknown ``area_range``, a number
            below 1; by ``update``, lists of different lengths, missing keys, shapes that don't
            fit; by ``compute``, labels that are no class.
        TypeError: by ``update``, something else than lists of mappings.

    Example:
        >>> metric = ObjectDetectionAvgPrecisionRecall(iou_thresholds=[0.5], num_classes=2)
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
        >>> labels = torch.tensor([0, 0])
        >>> found = {"bbox": boxes[:1], "scores": torch.tensor([0.9]), "labels": labels[:1]}
        >>> metric.update(([found], [{"bbox": boxes, "labels": labels}]))
        >>> precision, recall = metric.compute()
        >>> round(precision, 4), recall
        (0.505, 0.5)
    """

    def __init__(
        self,
        iou_thresholds: Sequence[float] | Tensor | None = None,
        rec_thresholds: Sequence[float] | Tensor | None = None,
        num_classes: int = 80,
        max_detections_per_image_per_class: int = 100,
        area_range: AreaRange = "all",
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        if area_range not in _AREAS:
            raise ValueError(f"area_range must be one of {', '.join(_AREAS)}, got {area_range!r}")
        need_whole("max_detections_per_image_per_class", max_detections_per_image_per_class)
        if max_detections_per_image_per_class < 1:
            raise ValueError(
                "max_detections_per_image_per_class must be at least 1, got "
                f"{max_detections_per_image_per_class}"
            )
        self._levels = _thresholds("rec_thresholds", rec_thresholds, _REC_THRESHOLDS)
        super().__init__(
            [area_range],
            _thresholds("iou_thresholds", iou_thresholds, _IOU_THRESHOLDS),
            max_detections_per_image_per_class,
            num_classes,
            output_transform,
            device,
            skip_unrolling,
        )

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return average precision and average recall, as floats.

        Raises:
            NotComputableError: there was no image.
        """
        precision = self._average_precision(self._levels)
        return mean_of_classes(precision), mean_of_classes(self._recall())


class CommonObjectDetectionMetrics(_Detection):
    """The twelve numbers by which COCO judges an object detector.

    They are, by name: ``AP@50..95``, the average precision over the thresholds 0.5, 0.55, ..., 0.95
    of the intersection over union; ``AP@50`` and ``AP@75``, at one threshold; ``AP-S``, ``AP-M``
    and ``AP-L``, for small, medium and large objects; and the average recalls ``AR-1``, ``AR-10``
    and ``AR-100`` with so many detections for an image and class, and ``AR-S``, ``AR-M``, ``AR-L``.
    A number is -1 where there is no such object.

    How they are defined and what is kept is told by
    :class:`~cookfire.metrics.vision.ObjectDetectionAvgPrecisionRecall`. Detections are matched once
    for all twelve, and 50 bytes are kept for each.

    Args:
        num_classes: how many classes there are; 80 is COCO's number.
        output_transform: as for ObjectDetectionAvgPrecisionRecall.
        device: likewise.
        skip_unrolling: likewise.

    Raises:
        ValueError: ``num_classes`` is below 1; by ``update`` and ``compute`` as for
            ObjectDetectionAvgPrecisionRecall.
        TypeError: likewise.

    Example:
        >>> metric = CommonObjectDetectionMetrics(num_classes=2)
        >>> target = {"bbox": torch.tensor([[0.0, 0.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
        >>> metric.update(([target | {"scores": torch.tensor([0.5])}], [target]))
        >>> values = metric.compute()
        >>> values["AP@50..95"], values["AP-M"], values["AP-S"]
        (1.0, 1.0, -1.0)
    """

    def __init__(
        self,
        num_classes: int = 80,
        output_transform: Callable[[Any], Any] = same,
        device: str | torch.device | None = None,
        skip_unrolling: bool = True,
    ) -> None:
        super().__init__(
            ["all", "small", "medium", "large"],
            torch.tensor(_IOU_THRESHOLDS, dtype=torch.float64),
            100,
            num_classes,
            output_transform,
            device,
            skip_unrolling,
        )

    def compute(self) -> dict[str, Tensor]:
        """Return floats by name.

        Raises:
            NotComputableError: there was no image.
        """
        precision = self._average_precision(torch.tensor(_REC_THRESHOLDS, dtype=torch.float64))
        recall = self._recall()
        values = {
            "AP@50..95": precision[:, 0],
            "AR-100": recall[:, 0],
            "AP@50": precision[:, 0, 0],
            "AP@75": precision[:, 0, 5],
        }
        for number, name in enumerate("SML", 1):
            values[f"AP-{name}"] = precision[:, number]
            values[f"AR-{name}"] = recall[:, number]
        for number in (1, 10):
            values[f"AR-{number}"] = self._recall(number)[:, 0]
        return {name: mean_of_classes(value) for name, value in values.items()}


def coco_tensor_list_to_dict_list(
    output: tuple[Sequence[Tensor | Image], Sequence[Tensor | Image]],
) -> tuple[list[Image], list[Image]]:
    """Turn lists of tensors into lists of mappings, as detection metrics take them.

    An ``output_transform``; what is a mapping already stays as it is.

    Args:
        output: ``(y_pred, y)``, a tensor for each image: of ``y_pred``
            ``(boxes, [x1, y1, x2, y2, score, class])``, of ``y``
            ``(boxes, [x1, y1, x2, y2, class])`` or ``(boxes, [x1, y1, x2, y2, class, iscrowd])``.

    Raises:
        ValueError: a tensor of another shape.

    Example:
        >>> y_pred = [torch.tensor([[0.0, 0.0, 9.0, 9.0, 0.5, 1.0]])]
        >>> y = [torch.tensor([[0.0, 0.0, 9.0, 9.0, 1.0]])]
        >>> (found,), (target,) = coco_tensor_list_to_dict_list((y_pred, y))
        >>> found["scores"], target["labels"]
        (tensor([0.5000]), tensor([1]))
    """
    y_pred, y = output
    return [_prediction(image) for image in y_pred], [_target(image) for image in y]


def _prediction(image: Tensor | Image) -> Image:
    if not isinstance(image, Tensor):
        return image
    if image.ndim != 2 or image.shape[1] != 6:
        raise ValueError(
            "expected predictions (boxes, [x1, y1, x2, y2, score, class]), got the shape "
            f"{tuple(image.shape)}"
        )
    return {"bbox": image[:, :4], "scores": image[:, 4], "labels": image[:, 5].long()}


def _target(image: Tensor | Image) -> Image:
    if not isinstance(image, Tensor):
        return image
    if image.ndim != 2 or image.shape[1] not in (5, 6):
        raise ValueError(
            "expected targets (boxes, [x1, y1, x2, y2, class]), or iscrowd beside it, got the "
            f"shape {tuple(image.shape)}"
        )
    crowd = {"iscrowd": image[:, 5].bool()} if image.shape[1] == 6 else {}
    return {"bbox": image[:, :4], "labels": image[:, 4].long(), **crowd}


def _thresholds(
    name: str, given: Sequence[float] | Tensor | None, default: Sequence[float]
) -> Tensor:
    values = torch.as_tensor(default if given is None else given, dtype=torch.float64).cpu()
    if values.ndim != 1 or not len(values) or not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"{name} must be numbers from 0 to 1, at least one, got {given!r}")
    return values


def _as_scores(scores: Tensor) -> Tensor:
    """Return scores that can be sorted, what is not a number at the end."""
    scores = scores if scores.is_floating_point() else scores.float()
    return scores.masked_fill(scores.isnan(), -torch.inf)


def _crowd(image: Image) -> Tensor:
    if "iscrowd" in image:
        return image["iscrowd"].bool()
    return torch.zeros_like(image["labels"], dtype=torch.bool)
