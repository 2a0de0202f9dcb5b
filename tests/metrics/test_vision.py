"""Detection metrics against pycocotools, which is COCO's own evaluation."""

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import (
    CommonObjectDetectionMetrics,
    ObjectDetectionAvgPrecisionRecall,
    coco_tensor_list_to_dict_list,
)

NAMES = ["AP@50..95", "AP@50", "AP@75", "AP-S", "AP-M", "AP-L"]
NAMES += ["AR-1", "AR-10", "AR-100", "AR-S", "AR-M", "AR-L"]
few = settings(max_examples=30)


def evaluate(y_pred, y, classes, **parameters):
    """pycocotools' evaluation."""
    images = [{"id": number} for number in range(len(y))]
    annotations, detections = [], []
    for number, (found, target) in enumerate(zip(y_pred, y, strict=True)):
        boxes = target["bbox"].double()
        sizes = boxes[:, 2:] - boxes[:, :2]
        crowd = target.get("iscrowd", torch.zeros(len(boxes)))
        for index, label in enumerate(target["labels"].tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label,
                    "bbox": [*boxes[index, :2].tolist(), *sizes[index].tolist()],
                    "area": target.get("area", sizes.prod(1))[index].item(),
                    "iscrowd": int(crowd[index]),
                }
            )
        boxes = found["bbox"].double()
        sizes = boxes[:, 2:] - boxes[:, :2]
        for index, label in enumerate(found["labels"].tolist()):
            detections.append(
                {
                    "image_id": number,
                    "category_id": label,
                    "bbox": [*boxes[index, :2].tolist(), *sizes[index].tolist()],
                    "score": found["scores"][index].item(),
                }
            )
    categories = [{"id": label} for label in range(classes)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = {"images": images, "annotations": annotations, "categories": categories}
        truth.createIndex()
        found.dataset = {"images": images, "annotations": [], "categories": categories}
        found.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections) if detections else found, "bbox")
        for name, value in parameters.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
        if not parameters:
            evaluation.summarize()
    return evaluation


def draw_boxes(rng, number):
    corner = rng.integers(0, 60, (number, 2))
    is_small = rng.random((number, 1)) < 0.5
    size = np.where(is_small, rng.integers(1, 40, (number, 2)), rng.integers(20, 150, (number, 2)))
    return torch.from_numpy(np.concatenate([corner, corner + size], 1)).float().reshape(-1, 4)


def draw(seed, images, classes, most, *, dtype=torch.float32):
    """Detections and targets: some near each other, crowds, equal scores, images without any."""
    rng = np.random.default_rng(seed)
    y_pred, y = [], []
    for _ in range(images):
        number, targets = rng.integers(0, most + 1), rng.integers(0, 7)
        boxes, found = draw_boxes(rng, targets), draw_boxes(rng, number)
        for index in range(number):
            if targets and rng.random() < 0.7:
                found[index] = boxes[rng.integers(targets)]
                found[index, 2:] += torch.from_numpy(rng.integers(0, 5, 2))
        if seed % 2:
            found += torch.from_numpy(rng.random((number, 4))).float()
        target = {
            "bbox": boxes.to(dtype),
            "labels": torch.from_numpy(rng.integers(0, classes, targets)),
        }
        if rng.random() < 0.7:
            target["iscrowd"] = torch.from_numpy(rng.random(targets) < 0.25)
        if rng.random() < 0.3:
            target["area"] = torch.from_numpy(rng.random(targets) * 12000)
        scores = torch.from_numpy(rng.random(number))
        y.append(target)
        y_pred.append(
            {
                "bbox": found.to(dtype),
                "scores": (scores.mul(4).round() / 4 if seed % 3 == 0 else scores).to(dtype),
                "labels": torch.from_numpy(rng.integers(0, classes, number)),
            }
        )
    return y_pred, y


def feed(metric, y_pred, y, size=3):
    for start in range(0, len(y), size):
        metric.update((y_pred[start : start + size], y[start : start + size]))
    return metric.compute()


@given(st.integers(0, 9999), st.integers(1, 7), st.integers(1, 4), st.sampled_from([0, 5, 12, 40]))
@few
def test_the_twelve_numbers_are_cocos(seed, images, classes, most):
    y_pred, y = draw(seed, images, classes, most)
    value = feed(CommonObjectDetectionMetrics(classes), y_pred, y)
    assert {type(number) for number in value.values()} == {float}
    expected = evaluate(y_pred, y, classes).stats
    assert [value[name] for name in NAMES] == pytest.approx(list(expected), abs=1e-12)


@given(st.integers(0, 9999), st.integers(1, 5), st.integers(1, 3), st.data())
@few
def test_precision_and_recall_at_other_thresholds_are_cocos(seed, images, classes, data):
    y_pred, y = draw(seed, images, classes, 15)
    thresholds = data.draw(st.sampled_from([[0.5], [0.75, 0.3], [1.0, 0.05], None]))
    levels = data.draw(st.sampled_from([[0.0, 0.5, 1.0], [0.31], None]))
    most = data.draw(st.sampled_from([1, 3, 100]))
    name = data.draw(st.sampled_from(["all", "small", "medium", "large"]))
    metric = ObjectDetectionAvgPrecisionRecall(thresholds, levels, classes, most, name)
    parameters = {"iouThrs": thresholds, "recThrs": levels}
    evaluation = evaluate(
        y_pred,
        y,
        classes,
        maxDets=[most],
        **{key: np.array(value) for key, value in parameters.items() if value},
    )
    area = evaluation.params.areaRngLbl.index(name)
    for value, key in zip(feed(metric, y_pred, y, 2), ("precision", "recall"), strict=True):
        values = evaluation.eval[key][..., area, 0]
        known = values[values > -1]
        assert value == pytest.approx(known.mean() if known.size else -1.0, abs=1e-12)


def test_more_than_a_hundred_detections_of_a_class():
    y_pred, y = draw(1, 3, 1, 250)
    assert max(len(found["labels"]) for found in y_pred) > 200
    value = feed(CommonObjectDetectionMetrics(1), y_pred, y)
    expected = evaluate(y_pred, y, 1).stats
    assert [value[name] for name in NAMES] == pytest.approx(list(expected), abs=1e-12)


def test_half_precision_and_boxes_that_are_not_contiguous():
    for dtype in (torch.float16, torch.bfloat16):
        y_pred, y = draw(2, 5, 2, 9, dtype=dtype)
        exact = [{k: v.double() if k != "labels" else v for k, v in f.items()} for f in y_pred]
        value = feed(CommonObjectDetectionMetrics(2), y_pred, y)
        expected = evaluate(exact, y, 2).stats
        assert [value[name] for name in NAMES] == pytest.approx(list(expected), abs=1e-12)
        strided = [f | {"bbox": f["bbox"].t().contiguous().t()} for f in y_pred]
        assert feed(CommonObjectDetectionMetrics(2), strided, y) == value


def test_no_detections_no_objects_and_no_images():
    nothing = {"bbox": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}
    one = {"bbox": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([1])}
    found = one | {"scores": torch.tensor([0.5])}
    metric = ObjectDetectionAvgPrecisionRecall(num_classes=2)
    metric.update(([], []))
    with pytest.raises(NotComputableError):
        metric.compute()
    metric.update(([nothing], [nothing]))
    assert metric.compute() == (-1.0, -1.0)
    metric.update(([found], [nothing]))
    assert metric.compute() == (-1.0, -1.0)
    metric.update(([nothing], [one]))
    assert metric.compute() == (0.0, 0.0)
    metric.reset()
    metric.update(([nothing], [one]))
    assert metric.compute() == (0.0, 0.0)
    metric.update(([found], [one]))
    precision, recall = metric.compute()
    assert (round(precision, 3), recall) == (0.505, 0.5)
    broken = one | {"scores": torch.tensor([torch.nan])}
    metric.update(([broken], [nothing]))
    assert metric.compute() == (precision, recall)  # it comes last


def test_tensors_become_mappings():
    y_pred = [torch.tensor([[0, 0, 9, 9, 0.5, 1], [1, 1, 5, 5, 0.25, 0]]), torch.zeros(0, 6)]
    y = [torch.tensor([[0, 0, 9, 9, 1.0, 0]]), torch.tensor([[0.0, 0, 9, 9, 1]])]
    found, targets = coco_tensor_list_to_dict_list((y_pred, y))
    assert found[0]["labels"].tolist() == [1, 0]
    assert found[0]["scores"].tolist() == [0.5, 0.25]
    assert targets[0]["iscrowd"].dtype == torch.bool
    assert set(targets[1]) == {"bbox", "labels"}
    assert coco_tensor_list_to_dict_list((found, targets)) == (found, targets)
    metric = ObjectDetectionAvgPrecisionRecall(
        num_classes=2, output_transform=coco_tensor_list_to_dict_list
    )
    metric._take((y_pred, y))
    assert metric.compute()[1] == 0.5
    for wrong in ((y_pred, [torch.zeros(2, 7)]), ([torch.zeros(2, 5)], y)):
        with pytest.raises(ValueError, match=r"expected (targets|predictions) \(boxes, "):
            coco_tensor_list_to_dict_list(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": None}, r"y_pred\[0\] lacks 'scores'; it has 'bbox', 'labels': rename"),
        (
            {"scores": torch.zeros(3)},
            r"y_pred\[0\]\['scores'\] has the shape \(3,\), expected \(2,\)",
        ),
        ({"bbox": torch.zeros(2, 5)}, r"\['bbox'\] has the shape \(2, 5\), expected \(2, 4\)"),
    ],
)
def test_an_image_that_is_not_as_expected_is_refused(change, message):
    image = {"bbox": torch.zeros(2, 4), "scores": torch.rand(2), "labels": torch.zeros(2).long()}
    changed = {key: value for key, value in (image | change).items() if value is not None}
    for metric in (CommonObjectDetectionMetrics(), ObjectDetectionAvgPrecisionRecall()):
        with pytest.raises(ValueError, match=message):
            metric.update(([changed], [image]))
        with pytest.raises(ValueError, match="got 1 images in y_pred and 2 in y"):
            metric.update(([image], [image] * 2))
        with pytest.raises(TypeError, match="y_pred must be a list with a mapping for each image"):
            metric.update((image, image))
        with pytest.raises(TypeError, match=r"y_pred\[0\] must be a mapping .* got Tensor"):
            metric.update(([torch.zeros(1, 6)], [image]))


def test_labels_that_are_no_class_are_reported_at_the_end():
    image = {"bbox": torch.rand(2, 4), "scores": torch.rand(2), "labels": torch.tensor([0, 5])}
    metric = CommonObjectDetectionMetrics(num_classes=5)
    metric.update(([image], [image | {"labels": torch.tensor([-1, 4])}]))
    with pytest.raises(ValueError, match="2 boxes had labels that are none of the classes 0 to 4"):
        metric.compute()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iou_thresholds": []}, "iou_thresholds must be numbers from 0 to 1, at least one"),
        ({"iou_thresholds": [1.5]}, "iou_thresholds must be numbers from 0 to 1"),
        ({"rec_thresholds": torch.tensor([-0.5])}, "rec_thresholds must be numbers from 0 to 1"),
        ({"area_range": "huge"}, "area_range must be one of small, medium, large, all, got 'huge'"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"max_detections_per_image_per_class": 0}, "must be at least 1, got 0"),
    ],
)
def test_what_no_detector_can_be_measured_by_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ObjectDetectionAvgPrecisionRecall(**arguments)


def test_what_is_kept_are_the_bytes_that_the_docstrings_name():
    y_pred, y = draw(4, 6, 3, 30)
    number = sum(len(found["labels"]) for found in y_pred)
    for metric, expected in (
        (ObjectDetectionAvgPrecisionRecall(num_classes=3), 20),
        (CommonObjectDetectionMetrics(num_classes=3), 50),
    ):
        feed(metric, y_pred, y)
        histories = [rows for rows in metric._store.local.values.values() if isinstance(rows, list)]
        assert sum(row.nbytes for rows in histories for row in rows) == expected * number
