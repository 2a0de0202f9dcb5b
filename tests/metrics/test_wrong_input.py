"""Input that fits no contract is told of in one line, and never counted as something else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cookfire.metrics as ours
from cookfire.engine import Engine
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import clustering, fairness, gan, nlp, rec_sys, regression
from cookfire.metrics._classification import predict_classes
from tests.metrics.classification import value_of

SCORES = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])

OF_CLASSES = {
    "accuracy": ours.Accuracy,
    "precision": lambda: ours.Precision(average=True),
    "matrix of agreement": lambda: ours.CohenKappa(num_classes=3),
    "top": lambda: ours.TopKCategoricalAccuracy(2),
    "roc": ours.ROC_AUC,
    "perplexity": nlp.Perplexity,
    "calibration": ours.CalibrationError,
}


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_targets_may_be_whole_floats_but_no_others(name, dtype):
    whole = torch.tensor([1.0, 2.0, 0.0, 1.0], dtype=dtype)
    expected = value_of(OF_CLASSES[name](), [(SCORES, whole.long())])
    assert value_of(OF_CLASSES[name](), [(SCORES, whole)]) == expected
    for wrong in (0.5, torch.nan):
        broken = torch.tensor([1.0, wrong, 0.0, wrong], dtype=dtype)
        with pytest.raises(ValueError, match="2 (elements|examples|targets)"):
            value_of(OF_CLASSES[name](), [(SCORES, broken)])


@pytest.mark.parametrize("classes", [3, 50])
def test_a_target_between_two_classes_is_neither_of_them(classes):
    scores = torch.rand(4, classes)
    broken = torch.tensor([0.0, 1.5, 2.0, 1.0])
    for metric in (ours.Precision(), ours.Recall(ignore_index=-1), ours.CohenKappa()):
        with pytest.raises(ValueError, match="1 elements of y are not whole: expected"):
            value_of(metric, [(scores, broken)])
    with pytest.raises(ValueError, match="1 elements of y are not whole numbers from 0 to"):
        ours.Accuracy(check=True).update((scores, broken))
    with pytest.raises(ValueError, match="1 elements of y are not whole: expected class indices"):
        value_of(ours.Accuracy(ignore_index=0), [(scores, broken)])
    assert value_of(ours.Accuracy(ignore_index=0), [(scores, broken.trunc())]) >= 0


def test_probabilities_are_no_labels():
    pair = torch.tensor([0.2, 0.7, 0.9]), torch.tensor([0, 1, 1])
    for metric in (ours.CohenKappa(num_classes=2), ours.MatthewsCorrCoef(num_classes=2)):
        with pytest.raises(ValueError, match=r"3 examples had other .* \(output\[0\] > 0.5, "):
            value_of(metric, [pair])


def test_labels_of_agreement_are_not_asked_to_be_zeros_and_ones_for_others():
    engine, kappa = Engine(lambda engine, batch: batch), ours.CohenKappa()
    kappa.attach(engine, "kappa")
    ours.Accuracy().attach(engine, "accuracy")
    with pytest.raises(ValueError, match="Accuracy: 2 predictions or labels were neither 0 nor 1"):
        engine.run([(torch.tensor([0, 2, 2, 1]), torch.tensor([0, 1, 2, 1]))])
    assert kappa.compute() == pytest.approx(0.636364, abs=1e-6)


@pytest.mark.parametrize("wrong", [3, -1, 2**40, -(2**63)])
@pytest.mark.parametrize("name", ["top", "perplexity"])
@pytest.mark.parametrize("ignored", [None, 0])
def test_targets_beyond_the_scores_are_reported(name, wrong, ignored):
    make = {"top": ours.TopKCategoricalAccuracy, "perplexity": nlp.Perplexity}[name]
    settings = {} if ignored is None else {"ignore_index": ignored}
    metric = make(**settings)
    metric.update((SCORES, torch.tensor([0, wrong, 1, wrong])))
    metric.update((SCORES, torch.tensor([0, 1, 1, 2])))
    with pytest.raises(ValueError, match="2 targets were no classes that there are scores for"):
        metric.compute()
    metric.reset()
    metric.update((SCORES, torch.tensor([0, 1, 1, 2])))
    metric.compute()


def test_a_score_that_is_nan_is_the_highest_whatever_the_size():
    torch.manual_seed(0)
    for side in (2, 64, 300):
        scores = torch.randn(2, 5, side, side)
        scores[torch.rand(scores.shape) < 0.1] = torch.nan
        scores[0, 1, 0, 0], scores[0, 2, 0, 0] = torch.inf, -torch.inf
        expected = scores.argmax(1)
        assert torch.equal(predict_classes(scores).long(), expected)
    row = torch.tensor([[0.1, torch.nan, 0.9], [torch.nan, 0.3, 0.2]])
    assert value_of(ours.Accuracy(), [(row, torch.tensor([1, 0]))]) == 1.0
    # It stands before the target, but is never itself among the best.
    for k, expected in ((1, 0.0), (2, 0.5)):
        metric = ours.TopKCategoricalAccuracy(k)
        assert value_of(metric, [(row, torch.tensor([2, 0]))]) == expected
    with pytest.raises(ValueError, match="2 scores are nan"):
        ours.Accuracy(check=True).update((row, torch.tensor([1, 0])))


def test_one_hot_targets_are_told_what_to_do():
    pair = SCORES, torch.eye(3)[[1, 0, 2, 0]]
    hint = r"one-hot targets.*output\[1\].argmax\(1\)"
    for metric in (ours.Accuracy(), ours.Precision()):
        with pytest.raises(ValueError, match=hint):
            value_of(metric, [pair])
    with pytest.raises(ValueError, match=hint):
        ours.Accuracy(check=True).update(pair)
    with pytest.raises(ValueError, match=hint):
        ours.TopKCategoricalAccuracy(2).update(pair)


def test_logits_are_no_probabilities_for_the_inception_score():
    for scores in (torch.randn(4, 3) * 3, torch.rand(4, 3) + 1):
        with pytest.raises(ValueError, match="expected probabilities.*make them by softmax"):
            value_of(gan.InceptionScore(3), [scores])
    for dtype in (torch.float16, torch.bfloat16):
        probabilities = (torch.randn(50, 3) * 3).softmax(1)
        value = value_of(gan.InceptionScore(3), [probabilities.to(dtype)])
        assert value == pytest.approx(value_of(gan.InceptionScore(3), [probabilities]), rel=0.02)


def test_features_that_are_nan_have_no_distance():
    broken = torch.randn(4, 3)
    broken[2, 1] = torch.nan
    with pytest.raises(ValueError, match="features of the second images are nan or infinite"):
        value_of(gan.FID(3), [(torch.randn(4, 3), broken)])


def test_a_median_of_errors_that_are_nan_is_nan():
    pair = torch.tensor([1.0, 2.0, 3.0, torch.nan]), torch.ones(4)
    for make in (
        regression.MedianAbsoluteError,
        regression.MedianAbsolutePercentageError,
        regression.MedianRelativeAbsoluteError,
    ):
        assert np.isnan(value_of(make(), [pair]))


NO_TENSORS = [
    ours.Accuracy,
    ours.Precision,
    ours.ROC_AUC,
    ours.CohenKappa,
    ours.CalibrationError,
    ours.TopKCategoricalAccuracy,
    ours.MeanSquaredError,
    ours.MeanAbsoluteError,
    ours.MeanPairwiseDistance,
    ours.Entropy,
    ours.MaximumMeanDiscrepancy,
    ours.HSIC,
    lambda: ours.PSNR(1.0),
    lambda: ours.SSIM(1.0),
    nlp.Perplexity,
    regression.R2Score,
    regression.MeanError,
    regression.MedianAbsoluteError,
    rec_sys.HitRate,
    clustering.SilhouetteScore,
    lambda: ours.EpochMetric(lambda y_pred, y: 0),
    lambda: gan.FID(2),
]


@pytest.mark.parametrize("make", NO_TENSORS)
def test_what_is_no_tensor_is_named(make):
    for given, named in (([0.0, 1.0], r"list \[0.0, 1.0\]"), (np.zeros(2), "ndarray array")):
        with pytest.raises(TypeError, match=f"expected tensors, got {named}.*: make one of it by"):
            make().update((given, given))


@pytest.mark.parametrize("make", [ours.Accuracy, ours.MeanSquaredError, regression.MeanError])
def test_what_is_no_tensor_is_named_after_tensors_too(make):
    metric = make()
    metric.update((torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])))
    with pytest.raises(TypeError, match="expected tensors, got list"):
        metric.update(([0.0, 1.0], [0.0, 1.0]))


def test_dtypes_that_torch_can_not_calculate_with_are_refused():
    y = torch.tensor([0, 1, 2, 0])
    for metric in (ours.Accuracy(), ours.ROC_AUC(), ours.TopKCategoricalAccuracy(2)):
        for pair in ((SCORES, y.to(torch.uint64)), (SCORES, y + 0j), (SCORES + 0j, y)):
            with pytest.raises(TypeError, match="expected booleans, integers up to int64, or fl"):
                metric.update(pair)
        with pytest.raises(TypeError, match="got scores of torch.bool"):
            metric.update((SCORES > 0.5, y))


@pytest.mark.parametrize("wrong", [2**40, 2**63 - 1, -(2**63)])
def test_huge_targets_of_rankings_are_reported(wrong):
    for scores in (torch.rand(4), torch.rand(4, 3)):
        with pytest.raises(ValueError, match="1 targets are not"):
            value_of(ours.ROC_AUC(), [(scores, torch.tensor([0, 1, 1, wrong]))])


@pytest.mark.parametrize("make", [ours.ROC_AUC, ours.RocCurve, ours.AveragePrecision])
def test_rankings_of_empty_batches_have_seen_nothing(make):
    with pytest.raises(NotComputableError, match="can't be computed before it saw at least one"):
        value_of(make(), [(torch.empty(0), torch.empty(0))])


def test_recommendations_say_what_they_miss():
    scores = torch.rand(2, 4)
    for make in (rec_sys.HitRate, rec_sys.NDCG):
        with pytest.raises(NotComputableError, match="before it saw a user with a relevant item"):
            value_of(make(2), [(scores, torch.zeros(2, 4))])
        with pytest.raises(NotComputableError, match="before it saw a user$"):
            value_of(make(2, ignore_zero_hits=False), [(scores[:0], torch.zeros(0, 4))])


def test_tokens_of_another_order_are_told_to_be_transposed():
    with pytest.raises(ValueError, match=r"transpose them, as in .*output\[0\].transpose\(1, 2\)"):
        nlp.Perplexity().update((torch.rand(2, 5, 10), torch.zeros(2, 5).long()))
    with pytest.raises(ValueError, match="tokens .3,.: .* reshape them"):
        nlp.Perplexity().update((torch.rand(2, 10), torch.zeros(3).long()))


def test_two_metrics_can_not_have_one_name():
    engine = Engine(lambda engine, batch: batch)
    accuracy = ours.Accuracy()
    accuracy.attach(engine, "value")
    accuracy.attach(engine, "value")
    with pytest.raises(ValueError, match="a metric is attached as 'value' already: detach that"):
        ours.Precision(average=True).attach(engine, "value")
    accuracy.detach(engine)
    ours.Precision(average=True).attach(engine, "value")
    assert engine.run([(SCORES, torch.tensor([1, 0, 2, 0]))]).metrics["value"] == 1.0


def test_parts_keep_their_transforms_outside_of_engines():
    def swap(output):
        return output["scores"], output["y"]

    y = torch.tensor([1, 0, 2, 1])
    part = ours.Accuracy(swap)
    composed = 1 - part
    composed.update({"scores": SCORES, "y": y})
    assert composed.compute() == 0.25
    assert 1 - value_of(ours.Accuracy(), [(SCORES, y)]) == 0.25

    def negated(output):
        return -output[0], output[1]

    groups = torch.tensor([0, 0, 1, 1])
    for base in (ours.Accuracy(negated), ours.Loss(torch.nn.functional.cross_entropy, negated)):
        value = value_of(fairness.SubgroupMetric(base, [0, 1]), [(SCORES, y, groups)])
        plain = type(base)(*[torch.nn.functional.cross_entropy] * isinstance(base, ours.Loss))
        expected = value_of(fairness.SubgroupMetric(plain, [0, 1]), [(-SCORES, y, groups)])
        assert value == expected
