"""Ranks that were fed with something that can't be combined with the others' data."""

from __future__ import annotations

import pytest
import torch

import cookfire.distributed as idist
import cookfire.metrics as ours
from cookfire.engine import Engine
from cookfire.metrics import Metric, MetricState


class Agreed(Metric):
    """A state that must be the same everywhere."""

    width = MetricState(torch.int64, reduction="same", shape=(2,))

    def update(self, output):
        self.accumulate(width=output)

    def compute(self):
        return self.width


def scores(classes):
    return torch.rand(6, classes), torch.zeros(6, dtype=torch.int64)


ZEROS_AND_ONES = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])

FED = {
    "accuracy of 3 and 4": (ours.Accuracy, scores(3), scores(4)),
    "precision of 3 and 53": (ours.Precision, scores(3), scores(53)),
    "binary and multiclass": (ours.Accuracy, ZEROS_AND_ONES, scores(3)),
    "precision of both": (ours.Precision, ZEROS_AND_ONES, scores(3)),
    "kappa of both": (ours.CohenKappa, ZEROS_AND_ONES, scores(3)),
    "calibration": (ours.CalibrationError, scores(2), scores(3)),
    "ranking": (ours.ROC_AUC, scores(2), scores(3)),
    "agreed": (Agreed, torch.tensor([1, 2]), torch.tensor([1, 3])),
}


class Rows(Metric):
    """All rows that it has seen."""

    rows = MetricState(reduction="cat")

    def update(self, output):
        self.accumulate(rows=output)

    def compute(self):
        return self.rows


def kept_rows(rows):
    """What a metric says when only one rank has rows."""
    metric = Rows()
    if idist.get_rank() == 1:
        metric.update(rows)
    try:
        return metric.compute().tolist()
    except ValueError as error:
        return str(error)


def kept():
    return [
        kept_rows(torch.tensor([1, 65535], dtype=torch.uint16)),
        kept_rows(torch.ones(1, *[1] * 9)),
        kept_rows(torch.ones(1).to(torch.float8_e5m2)),
    ]


def test_what_can_not_be_combined_is_told_on_all_ranks(processes):
    for rows, many, strange in processes(2, kept):
        assert rows == [1, 65535]
        assert "has 9 dimensions on rank 1, more than the 8 that can be combined" in many
        assert "has a dtype on rank 1 that can't be combined over ranks: convert it" in strange


def unlike():
    errors = {}
    for name, (make, *fed) in FED.items():
        metric = make()
        if idist.get_rank() < 2:
            metric.update(fed[idist.get_rank()])
        for _ in range(2):
            try:
                errors[name] = str(metric.compute())
            except ValueError as error:
                errors[name] = f"ValueError: {error}"
    # All of an engine's.
    engine = Engine(lambda engine, batch: batch)
    ours.Accuracy().attach(engine, "accuracy")
    ours.Recall().attach(engine, "recall")
    try:
        engine.run([scores(3 + idist.get_rank())])
    except ValueError as error:
        errors["engine"] = f"ValueError: {error}"
    like = Agreed()
    if idist.get_rank():
        like.update(torch.tensor([5, 7]))
    return errors, like.compute().tolist()


def test_ranks_of_other_classes_are_refused_on_all_of_them(processes):
    results = processes(3, unlike)
    assert results[0] == results[1] == results[2]
    errors, agreed = results[0]
    assert agreed == [5, 7]
    assert errors.keys() == {*FED, "engine"}
    for name, told in {
        "accuracy of 3 and 4": "Accuracy has multiclass of 3 input on rank 0, but multiclass of 4 ",
        "precision of 3 and 53": "multiclass of 3 input on rank 0, but multiclass of 53 input on r",
        "binary and multiclass": "has binary input on rank 0, but multiclass of 3 input on rank 1:",
        "agreed": "Agreed has the state 'width' of [1, 2] on rank 0, but the state 'width' of [1",
        "engine": "Accuracy has multiclass of 3 input on rank 0, but multiclass of 4 input on ",
    }.items():
        assert told in errors[name], name
    for error in errors.values():
        assert error.startswith("ValueError: ")
        assert error.endswith("feed the metric alike on all ranks")
        assert "\n" not in error


def test_what_must_be_the_same_must_be_so_in_all_updates_and_after_loading():
    metric = Agreed()
    metric.update(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"Agreed had the state 'width' of \[1, 2\], now it has"):
        metric.update(torch.tensor([1, 3]))
    accuracy = ours.Accuracy()
    accuracy.update(scores(3))
    other = ours.Accuracy()
    other.load_state_dict(accuracy.state_dict())
    with pytest.raises(ValueError, match="had multiclass of 3 input, now it has multiclass of 4"):
        other.update(scores(4))
