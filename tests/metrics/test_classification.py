import warnings

import ignite.metrics as oracle
import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.metrics.confusion_matrix import cmAccuracy as oracle_accuracy
from ignite.metrics.confusion_matrix import cmPrecision as oracle_precision
from ignite.metrics.confusion_matrix import cmRecall as oracle_recall

import cookfire.metrics as ours
from tests.metrics.classification import few, multiclass, value_of, zeros_and_ones

AVERAGES = [False, None, True, "macro", "micro", "weighted"]


def agree(mine, theirs, batches):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ignite asks for the dtype long
        expected = value_of(theirs, batches)
    value = value_of(mine, batches)
    torch.testing.assert_close(
        torch.as_tensor(value, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=1e-6,
        atol=1e-9,
    )


@given(multiclass())
@few
def test_multiclass_metrics_agree_with_ignite(data):
    classes, batches = data
    agree(ours.Accuracy(), oracle.Accuracy(), batches)
    for average in AVERAGES:
        agree(ours.Precision(average=average), oracle.Precision(average=average), batches)
        agree(ours.Recall(average=average), oracle.Recall(average=average), batches)
    agree(ours.Fbeta(2.0), oracle.Fbeta(2.0), batches)
    agree(ours.Fbeta(0.5, average=False), oracle.Fbeta(0.5, average=False), batches)
    for average in (None, "samples", "recall", "precision"):
        agree(
            ours.ConfusionMatrix(classes, average=average),
            oracle.ConfusionMatrix(classes, average=average),
            batches,
        )


@given(zeros_and_ones(multilabel=False))
@few
def test_binary_metrics_agree_with_ignite(batches):
    agree(ours.Accuracy(), oracle.Accuracy(), batches)
    for average in AVERAGES:
        agree(ours.Precision(average=average), oracle.Precision(average=average), batches)
        agree(ours.Recall(average=average), oracle.Recall(average=average), batches)
    agree(ours.Fbeta(1.0), oracle.Fbeta(1.0), batches)


@given(zeros_and_ones(multilabel=True))
@few
def test_multilabel_metrics_agree_with_ignite(batches):
    agree(ours.Accuracy(is_multilabel=True), oracle.Accuracy(is_multilabel=True), batches)
    for average in [*AVERAGES, "samples"]:
        for name in ("Precision", "Recall"):
            mine, theirs = getattr(ours, name), getattr(oracle, name)
            kwargs = {"average": average, "is_multilabel": True}
            agree(mine(**kwargs), theirs(**kwargs), batches)


@given(multiclass(tail=False))
@few
def test_multiclass_metrics_agree_with_scikit_learn(data):
    classes, batches = data
    y = torch.cat([y for _, y in batches]).numpy()
    y_pred = torch.cat([scores.argmax(1) for scores, _ in batches]).numpy()
    labels = np.arange(classes)
    kwargs = {"labels": labels, "zero_division": 0}
    assert value_of(ours.Accuracy(), batches) == sklearn.metrics.accuracy_score(y, y_pred)
    for average in (None, "macro", "weighted", "micro"):
        p, r, f, _ = sklearn.metrics.precision_recall_fscore_support(
            y, y_pred, average=average, **kwargs
        )
        np.testing.assert_allclose(value_of(ours.Precision(average=average), batches), p)
        np.testing.assert_allclose(value_of(ours.Recall(average=average), batches), r)
        if average in (None, "macro"):
            f1 = ours.Fbeta(1.0, average=average == "macro")
            np.testing.assert_allclose(value_of(f1, batches), f)
    matrix = sklearn.metrics.confusion_matrix(y, y_pred, labels=labels)
    np.testing.assert_array_equal(value_of(ours.ConfusionMatrix(classes), batches), matrix)


@given(multiclass(max_classes=6))
@few
def test_segmentation_metrics_agree_with_ignite(data):
    classes, batches = data
    batches = [(scores, y.masked_fill(y == 0, 255)) for scores, y in batches] + batches
    pairs = [
        (ours.IoU, oracle.IoU),
        (ours.mIoU, oracle.mIoU),
        (ours.JaccardIndex, oracle.JaccardIndex),
        (ours.DiceCoefficient, oracle.DiceCoefficient),
    ]
    for mine, theirs in pairs:
        for ignored in (None, 0, classes - 1):
            agree(
                mine(ours.ConfusionMatrix(classes), ignore_index=ignored),
                theirs(oracle.ConfusionMatrix(classes), ignore_index=ignored),
                batches,
            )
    agree(
        ours.cmAccuracy(ours.ConfusionMatrix(classes)),
        oracle_accuracy(oracle.ConfusionMatrix(classes)),
        batches,
    )
    for mine, theirs in [(ours.cmPrecision, oracle_precision), (ours.cmRecall, oracle_recall)]:
        for average in (True, False):
            agree(
                mine(ours.ConfusionMatrix(classes), average),
                theirs(oracle.ConfusionMatrix(classes), average),
                batches,
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 21, 255, 256])
def test_the_classes_of_images_are_those_of_argmax(dtype, classes):
    torch.manual_seed(classes)
    scores = torch.randint(0, 50, (2, classes, 70, 70)).to(dtype)  # with equal scores
    y = torch.randint(0, classes, (2, 70, 70))
    for view in (scores, scores.to(memory_format=torch.channels_last), scores[:, :, ::2, 1:]):
        shape = view.shape[2:]
        target = y[:, : shape[0], : shape[1]]
        matrix = ours.ConfusionMatrix(classes)
        matrix.update((view, target))
        pairs = target * classes + view.argmax(1)
        expected = torch.bincount(pairs.flatten(), minlength=classes**2)
        assert torch.equal(matrix.compute(), expected.reshape(classes, classes))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.float32])
def test_targets_may_have_any_dtype(dtype):
    scores = torch.rand(6, 40, 70, 70)
    y = torch.randint(0, 40, (6, 70, 70))
    for make in (
        ours.Accuracy,
        lambda: ours.Precision(average=None),
        lambda: ours.ConfusionMatrix(40),
    ):
        expected = value_of(make(), [(scores, y)])
        value = value_of(make(), [(scores, y.to(dtype))])
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(expected))


def test_a_confusion_matrix_leaves_out_what_is_no_class():
    scores = torch.eye(3).repeat(2, 1)
    for ignored in (255, -100, -1, 3, 2**40):
        y = torch.tensor([0, 1, 2, ignored, ignored, 0])
        matrix = value_of(ours.ConfusionMatrix(3), [(scores, y)])
        assert matrix.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("classes", [3, 100])
@pytest.mark.parametrize("wrong", [-1, -100, 100, 2**40])
def test_precision_reports_targets_out_of_range(classes, wrong):
    y = torch.tensor([0, wrong, 2, wrong])
    for metric in (ours.Precision(), ours.Recall(average=True)):
        metric.update((torch.rand(4, classes), y))
        with pytest.raises(
            ValueError, match=f"2 examples had other classes than .* 0 to {classes - 1}"
        ):
            metric.compute()
    with pytest.raises(ValueError, match="2 elements of y are not whole numbers from 0 to"):
        ours.Precision(check=True).update((torch.rand(4, classes), y))


def test_scores_in_place_of_zeros_and_ones_are_reported():
    scores, y = torch.tensor([0.2, 0.9, 1.0]), torch.tensor([0, 1, 1])
    for metric in (ours.Accuracy(), ours.Precision(), ours.Recall(average=True)):
        metric.update((scores, y))
        with pytest.raises(ValueError, match="2 predictions or labels were neither 0 nor 1"):
            metric.compute()
        metric.reset()
        metric.update((scores.round(), y))
        assert metric.compute() == 1.0
    many = torch.rand(4, 3), torch.ones(4, 3)
    for metric in (ours.Accuracy(is_multilabel=True), ours.Precision(is_multilabel=True)):
        metric.update(many)
        with pytest.raises(ValueError, match="12 predictions or labels were neither 0 nor 1"):
            metric.compute()
    for name in ("Accuracy", "Precision"):
        metric = getattr(ours, name)(check=True)
        with pytest.raises(ValueError, match="2 elements of y_pred are neither 0 nor 1"):
            metric.update((scores, y))
    with pytest.raises(ValueError, match="1 examples had other classes than 0 and 1"):
        value_of(ours.Precision(), [(torch.tensor([1, 0]), torch.tensor([2, 0]))])


def test_binary_predictions_may_be_bools_or_have_a_class_dimension():
    y_pred, y = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 1, 1, 0])
    for predictions in (y_pred.bool(), y_pred.float(), y_pred.unsqueeze(1), y_pred.to(torch.uint8)):
        for target in (y, y.bool(), y.float(), y.to(torch.uint8)):
            assert value_of(ours.Accuracy(), [(predictions, target)]) == 0.5
            assert value_of(ours.Precision(), [(predictions, target)]) == 2 / 3
    images = torch.randint(0, 2, (2, 1, 4, 4)), torch.randint(0, 2, (2, 4, 4))
    expected = (images[0].squeeze(1) == images[1]).float().mean()
    assert value_of(ours.Accuracy(), [images]) == expected


@pytest.mark.parametrize(
    ("y_pred", "y", "message"),
    [
        ((4, 3), (5,), r"got y_pred \(4, 3\) and y \(5,\): expected scores"),
        ((4, 3, 2), (4, 3), r"expected scores \(batch, classes, \.\.\.\)"),
        ((4,), (4, 3), "reshape them by output_transform"),
        ((), (), "both need a batch dimension"),
    ],
)
def test_shapes_that_fit_no_task_are_refused(y_pred, y, message):
    for metric in (ours.Accuracy(), ours.Recall()):
        with pytest.raises(ValueError, match=message):
            metric.update((torch.zeros(y_pred), torch.zeros(y)))


def test_a_task_must_fit_its_settings_and_stay_the_same():
    multilabel = ours.Accuracy(is_multilabel=True)
    for shape in ((4,), (4, 1)):
        with pytest.raises(ValueError, match="with more than one label"):
            multilabel.update((torch.zeros(shape), torch.zeros(shape)))
    with pytest.raises(ValueError, match="average='samples'.* is for multilabel input"):
        ours.Precision(average="samples").update((torch.zeros(4), torch.zeros(4)))
    metric = ours.Accuracy()
    metric.update((torch.zeros(4, 3), torch.zeros(4)))
    with pytest.raises(ValueError, match="had multiclass of 3 input, now it has multiclass of 5"):
        metric.update((torch.zeros(4, 5), torch.zeros(4)))
    with pytest.raises(ValueError, match="had multiclass of 3 input, now it has binary"):
        metric.update((torch.zeros(4), torch.zeros(4)))
    metric.reset()
    metric.update((torch.zeros(4), torch.zeros(4)))


def test_arguments_are_checked():
    for wrong in ("mean", 1, 0, "False"):
        with pytest.raises(ValueError, match=f"average must be one of .* got {wrong!r}"):
            ours.Precision(average=wrong)
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        ours.Fbeta(0)
    with pytest.raises(TypeError, match="beta must be a number, got str 'a'"):
        ours.Fbeta("a")
    with pytest.raises(ValueError, match="precision must have average=False, has 'macro'"):
        ours.Fbeta(1.0, precision=ours.Precision(average=True))
    with pytest.raises(ValueError, match="have no effect beside recall"):
        ours.Fbeta(1.0, recall=ours.Recall(), device="cpu")
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        ours.ConfusionMatrix(1)
    with pytest.raises(ValueError, match="average must be one of"):
        ours.ConfusionMatrix(2, average="macro")
    with pytest.raises(TypeError, match="cm must be a ConfusionMatrix"):
        ours.IoU(ours.Accuracy())
    with pytest.raises(ValueError, match="has 'recall'"):
        ours.mIoU(ours.ConfusionMatrix(2, average="recall"))
    with pytest.raises(ValueError, match="must be a class from 0 to 1, got 2"):
        ours.DiceCoefficient(ours.ConfusionMatrix(2), ignore_index=2)
    with pytest.raises(ValueError, match=r"expected scores \(batch, 2, \.\.\.\) .* got \(4, 3\)"):
        ours.ConfusionMatrix(2).update((torch.zeros(4, 3), torch.zeros(4)))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        ours.TopKCategoricalAccuracy(0)
    with pytest.raises(ValueError, match="average must be 'recall' or 'precision'"):
        ours.ConfusionMatrix.normalize(torch.eye(2), "samples")


def test_fbeta_takes_the_settings_of_the_half_that_is_given():
    data = torch.randint(0, 2, (6, 4)), torch.randint(0, 2, (6, 4))
    precision = ours.Precision(is_multilabel=True)
    metric = ours.Fbeta(1.0, average=False, precision=precision)
    expected = sklearn.metrics.f1_score(data[1], data[0], average=None, zero_division=0)
    np.testing.assert_allclose(value_of(metric, [data]), expected)


@given(st.integers(1, 6), st.integers(0, 2**31))
@few
def test_top_k_accuracy_agrees_with_ignite_where_scores_differ(k, seed):
    torch.manual_seed(seed)
    batches = [(torch.rand(n, 6), torch.randint(0, 6, (n,))) for n in (1, 5)]
    agree(ours.TopKCategoricalAccuracy(k), oracle.TopKCategoricalAccuracy(k), batches)


def test_equal_or_missing_scores_are_no_success_among_the_best():
    y = torch.tensor([0, 1])
    assert value_of(ours.TopKCategoricalAccuracy(2), [(torch.zeros(2, 3), y)]) == 0.0
    nan = torch.full((2, 3), torch.nan)
    assert value_of(ours.TopKCategoricalAccuracy(2), [(nan, y)]) == 0.0
    with pytest.raises(ValueError, match="of several classes"):
        ours.TopKCategoricalAccuracy(2).update((torch.zeros(2, 1), y))


def test_sequences_are_examples_of_their_positions():
    scores, y = torch.rand(3, 5, 7), torch.randint(0, 7, (3, 5))
    for ignored in (None, 0, [0, 3]):
        mine = ours.Accuracy.get_sequence_transform(ignore_index=ignored)((scores, y))
        theirs = oracle.Accuracy.get_sequence_transform(ignore_index=ignored)((scores, y))
        for value, expected in zip(mine, theirs, strict=True):
            assert torch.equal(value, expected)
    with pytest.raises(ValueError, match="expected y_pred of shape"):
        ours.Accuracy.get_sequence_transform()((scores, y[:, 1:]))


@given(multiclass(tail=False))
@few
def test_counts_of_other_devices_are_those_of_the_cpu(data):
    classes, batches = data
    batches = [(scores, y.where(y != 1, -100)) for scores, y in batches]
    batches = [(scores, y.where(y != 0, 2**40)) for scores, y in batches]
    expected = value_of(ours.ConfusionMatrix(classes), batches)
    counts = [ours.Precision(), ours.Precision()]
    with pytest.MonkeyPatch.context() as patch:
        for metric in counts:
            for batch in batches:
                metric.update(batch)
            # Elsewhere bincount would wait for the device: another way is taken there.
            patch.setattr("cookfire.metrics._counting.counts_at_once", lambda tensor: False)
        assert torch.equal(value_of(ours.ConfusionMatrix(classes), batches), expected)
    assert torch.equal(counts[0].matrix, counts[1].matrix)
