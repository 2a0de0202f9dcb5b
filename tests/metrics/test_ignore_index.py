"""Targets of ``ignore_index`` are as if they were not there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cookfire.metrics as ours
from tests.metrics.classification import families, few, multiclass, same, value_of, zeros_and_ones

fewer = settings(few, max_examples=12)


@given(multiclass(tail=False, max_classes=4), st.sampled_from([255, -1, -100, 0]), st.booleans())
@fewer
def test_ignored_targets_are_as_if_they_were_not_there(data, ignored, many):
    classes, batches = data
    if many:  # other ways of counting
        batches = [(torch.cat([scores, scores - 9], 1), y) for scores, y in batches]
        batches = [(torch.cat([scores] + [scores - 99] * 9, 1), y) for scores, y in batches]
        classes = batches[0][0].shape[1]
    hidden = [(s, torch.where(torch.arange(len(y)) % 3 == 1, ignored, y)) for s, y in batches]
    kept = [(s[y != ignored], y[y != ignored]) for s, y in hidden]
    if not any(len(y) for _, y in kept):
        return
    for name, make in families(classes).items():
        same(value_of(make(ignore_index=ignored), hidden), value_of(make(), kept), name)


@given(zeros_and_ones(multilabel=False))
@fewer
def test_ignored_binary_targets_are_left_out(batches):
    batches = [(y_pred.flatten(), y.flatten()) for y_pred, y in batches]
    hidden = [(p, torch.where(torch.arange(len(y)) % 3 == 1, 7, y)) for p, y in batches]
    kept = [(p[y != 7], y[y != 7]) for p, y in hidden]
    for name in ("accuracy", "precision", "recall", "f1", "report", "kappa", "selection"):
        make = families(2)[name]
        same(value_of(make(ignore_index=7), hidden), value_of(make(), kept), name)


@given(zeros_and_ones(multilabel=True))
@fewer
def test_ignored_labels_are_left_out_one_by_one(batches):
    batches = [
        (p.flatten(2).movedim(1, -1).flatten(0, -2) if p.ndim > 2 else p, y) for p, y in batches
    ]
    batches = [
        (p, y.flatten(2).movedim(1, -1).flatten(0, -2) if y.ndim > 2 else y) for p, y in batches
    ]
    hidden = [
        (p, torch.where(torch.arange(y.numel()).reshape(y.shape) % 3 == 1, -1, y.long()))
        for p, y in batches
    ]
    p, y = (torch.cat(parts) for parts in zip(*hidden, strict=True))
    settings = {"is_multilabel": True, "ignore_index": -1}
    matrix = value_of(ours.MultiLabelConfusionMatrix(y.shape[1], ignore_index=-1), hidden)
    precision = value_of(ours.Precision(average=None, **settings), hidden)
    for label in range(y.shape[1]):
        kept = y[:, label] != -1
        pairs = 2 * y[kept, label] + p[kept, label].long()
        of_label = torch.bincount(pairs, minlength=4).reshape(2, 2)
        assert matrix[label].tolist() == of_label.tolist()
        expected = of_label[1, 1] / of_label[:, 1].sum().clamp(min=1)
        assert precision[label].item() == pytest.approx(expected.item())
    right = ((p == y) | (y == -1)).all(1)[(y != -1).any(1)]
    assert value_of(ours.Accuracy(**settings), hidden) == pytest.approx(right.double().mean())
