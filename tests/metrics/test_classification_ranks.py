"""Classification metrics over several processes: exact for any split, and in few collectives."""

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.metrics import (
    ROC_AUC,
    Accuracy,
    AveragePrecision,
    CalibrationError,
    ClassificationReport,
    CohenKappa,
    ConfusionMatrix,
    Fbeta,
    Loss,
    MatthewsCorrCoef,
    MeanAveragePrecision,
    MultiLabelConfusionMatrix,
    Precision,
    PrecisionRecallCurve,
    Recall,
    RocCurve,
    TopKCategoricalAccuracy,
    fairness,
    mIoU,
)
from tests.metrics.test_ranks import close, collectives

CLASSES = 40
SPLITS = {
    2: [(0, 1, 0, 1, 0), (0, 1, 1, 1, 1), (1,) * 5],
    3: [(0, 1, 2, 0, 1), (2, 2, 0, 0, 0), (1,) * 5],
}


def first_class(output):
    return output[0][:, 0], (output[1] == 0).long()


def guesses(output):
    return output[0].argmax(1), output[1]


def labels(output):
    above = (output[0] > output[0].mean(1, keepdim=True)).long()
    return above[:, :4], above[:, 4:8]


def make_metrics():
    return {
        "accuracy": Accuracy(ignore_index=0),
        "precision": Precision(average=None, ignore_index=0),
        "precision of few": Precision(output_transform=few_classes, average=True),
        "report": ClassificationReport(output_dict=True, metrics_result_mode="named"),
        "matrix": ConfusionMatrix(CLASSES, average="samples"),
        "labels": MultiLabelConfusionMatrix(4, output_transform=labels),
        "labels left out": MultiLabelConfusionMatrix(4, output_transform=labels, ignore_index=0),
        "exact match": Accuracy(is_multilabel=True, output_transform=labels),
        "samples": Recall(average="samples", is_multilabel=True, output_transform=labels),
        "kappa": CohenKappa(weights="quadratic"),
        "kappa of labels": CohenKappa(output_transform=guesses),
        "kappa of so many": CohenKappa(output_transform=guesses, num_classes=CLASSES),
        "matthews": MatthewsCorrCoef(),
        "matthews of labels": MatthewsCorrCoef(output_transform=guesses, ignore_index=3),
        "calibration": CalibrationError(),
        "top": TopKCategoricalAccuracy(3, ignore_index=1),
        "auc": ROC_AUC(output_transform=first_class),
        "average precision": AveragePrecision(output_transform=first_class),
        "ap of classes": AveragePrecision(average=None),
        "map": MeanAveragePrecision(rec_thresholds=[0.5, 1.0], class_mean="micro"),
        "roc": RocCurve(output_transform=first_class),
        "curve": PrecisionRecallCurve(output_transform=first_class),
        "selection": fairness.SelectionRate(),
        "groups": fairness.SubgroupDifference(Accuracy(), [0, 1], output_transform=grouped),
        "kappa of groups": fairness.SubgroupMetric(
            CohenKappa(output_transform=guesses), [0, 1], output_transform=grouped
        ),
    }


def few_classes(output):
    return output[0][:, :3], output[1] % 3


def grouped(output):
    return *output, torch.arange(len(output[1])) % 2


def data():
    generator = torch.Generator().manual_seed(0)
    batches = []
    for size in (7, 4, 1, 12, 5):
        scores = torch.rand(size, CLASSES, generator=generator)
        y = torch.randint(0, CLASSES, (size,), generator=generator)
        y[0] = 0
        batches.append((scores / scores.sum(1, keepdim=True) * (1 + 9 * (size > 4)) / 10, y))
    return batches


def run(metrics, batches, called=None):
    """Return an engine's values; one without data takes part at the end."""
    engine = Engine(lambda engine, batch: batch)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    with collectives() as counted:
        if batches:
            engine.run(batches)
        else:
            engine.fire_event(Events.EPOCH_STARTED)
            engine.fire_event(Events.EPOCH_COMPLETED)
    if called is not None:
        called.update(counted)
    return {name: engine.state.metrics[name] for name in metrics}


def the_usual():
    """One evaluation as people have it."""
    return {
        "accuracy": Accuracy(),
        "precision": Precision(average=True),
        "recall": Recall(average=True),
        "f1": Fbeta(1.0),
        "miou": mIoU(ConfusionMatrix(CLASSES)),
        "loss": Loss(cross_entropy),
        "top": TopKCategoricalAccuracy(5),
        "auc": ROC_AUC(output_transform=first_class),
    }


def shard(split):
    return [b for b, owner in zip(data(), split, strict=True) if owner == idist.get_rank()]


def on_a_rank(splits):
    values = [run(make_metrics(), shard(split)) for split in splits]
    called = {}
    usual = run(the_usual(), shard(splits[0]), called)
    states = {}
    for name, metric in make_metrics().items():
        for batch in shard(splits[0]):
            metric.update(metric._transform(batch))
        states[name] = metric.state_dict()
    return values, usual, called, states


def load_on_a_rank(states):
    values = {}
    for name, metric in make_metrics().items():
        metric.load_state_dict(states[name])
        values[name] = metric.compute()
    return values


def agree(value, expected, name):
    if isinstance(expected, dict | tuple):
        keys = expected if isinstance(expected, dict) else range(len(expected))
        for key in keys:
            agree(value[key], expected[key], f"{name}/{key}")
    else:
        close(value, expected, name)


@pytest.mark.parametrize("world_size", [2, 3])
def test_values_over_ranks_are_those_of_one_process(processes, world_size):
    splits = SPLITS[world_size]
    results = processes(world_size, on_a_rank, splits)
    expected, usual = run(make_metrics(), data()), run(the_usual(), data())
    for rank, (values, of_usual, called, _) in enumerate(results):
        for (name, value), split in itertools.product(expected.items(), range(len(splits))):
            agree(values[split][name], value, f"{name}, {splits[split]}, rank {rank}")
        for name, value in usual.items():
            agree(of_usual[name], value, f"{name} as usual, rank {rank}")
        # The message with sizes and all that is small, sums of int64 (the matrix), histories.
        assert called == {"all_gather_into_tensor": 2, "all_reduce": 1}
    # What three or two saved, another number loads.
    for loaded in (processes(5 - world_size, load_on_a_rank, results[0][3]), None):
        for values in loaded or [load_on_a_rank(results[0][3])]:
            for name, value in expected.items():
                agree(values[name], value, f"{name}, saved and loaded")
