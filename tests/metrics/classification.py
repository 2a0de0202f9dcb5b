"""Input of classification tasks, as hypothesis makes it, and what it is given to."""

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

import cookfire.metrics as ours
from cookfire.engine import Engine
from cookfire.metrics import fairness

few = settings(max_examples=25, deadline=None)


@st.composite
def multiclass(draw, max_classes=40, tail=True):
    """Batches of scores and class indices; classes may be absent, shapes may have more dims."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    classes = draw(st.integers(2, max_classes))
    rest = draw(st.sampled_from([(), (3,), (2, 3)])) if tail else ()
    present = draw(st.integers(1, classes))
    levels = draw(st.sampled_from([2, 1000]))  # few levels make equal scores
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    batches = []
    for size in draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)):
        scores = torch.randint(0, levels, (size, classes, *rest), generator=generator).to(dtype)
        y = torch.randint(0, present, (size, *rest), generator=generator)
        if draw(st.booleans()):
            scores = scores.transpose(0, 1).contiguous().transpose(0, 1)  # not contiguous
        batches.append((scores, y))
    return classes, batches


@st.composite
def zeros_and_ones(draw, multilabel):
    """Batches of predictions and targets."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = draw(st.integers(2, 5))
    rest = draw(st.sampled_from([(), (3,), (2, 3)]))
    shape = (labels, *rest) if multilabel else rest
    high = draw(st.sampled_from([1, 2]))  # all zeros, or both
    dtype = draw(st.sampled_from([torch.int64, torch.int64, torch.float32]))
    return [
        tuple(
            torch.randint(0, limit, (size, *shape), generator=generator).to(dtype)
            for limit in (2, high)
        )
        for size in draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    ]


def value_of(metric, batches):
    """Return a metric's value for batches."""
    metric.reset()
    for batch in batches:
        metric.update(batch)
    return metric.compute()


def attached(metrics, data):
    """Return an engine's values for batches, in its second epoch."""
    engine = Engine(lambda _, batch: batch)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    engine.run(data, max_epochs=2)
    return engine.state.metrics


def families(classes):
    """Metrics by name, each made with or without ``ignore_index``."""
    return {
        "accuracy": ours.Accuracy,
        "precision": lambda **kw: ours.Precision(average=None, **kw),
        "recall": lambda **kw: ours.Recall(average="weighted", **kw),
        "f1": lambda **kw: ours.Fbeta(1.0, **kw),
        "report": lambda **kw: ours.ClassificationReport(**kw),
        "matrix": lambda **kw: ours.ConfusionMatrix(classes, **kw),
        "normalised": lambda **kw: ours.ConfusionMatrix(classes, average="samples", **kw),
        "miou": lambda **kw: ours.mIoU(ours.ConfusionMatrix(classes, **kw)),
        "kappa": lambda **kw: ours.CohenKappa(weights="linear", **kw),
        "top": lambda **kw: ours.TopKCategoricalAccuracy(2, **kw),
        "selection": lambda **kw: fairness.SelectionRate(**kw),
    }


def same(value, expected, name):
    """Assert that a metric's value is as expected."""
    if isinstance(value, str):
        assert value == expected, name
    else:
        np.testing.assert_allclose(value, expected, err_msg=name)
