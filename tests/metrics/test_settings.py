"""Settings: of the right kind, and the same where a saved state goes."""

import pytest
import torch
from torch.nn import Identity
from torchmetrics.classification import MulticlassAccuracy

import cookfire.metrics as m
from tests.metrics.test_all import CASES

PAIRS = {
    "TopKCategoricalAccuracy": (m.TopKCategoricalAccuracy(2), m.TopKCategoricalAccuracy(3), "k 2"),
    "PSNR": (m.PSNR(1.0), m.PSNR(255.0), "data_range 1.0"),
    "SSIM": (m.SSIM(1.0), m.SSIM(1.0, sigma=2.0), r"sigma \[1.5, 1.5\]"),
    "ConfusionMatrix": (m.ConfusionMatrix(3), m.ConfusionMatrix(5), "num_classes 3"),
    "Accuracy": (m.Accuracy(), m.Accuracy(ignore_index=1), "ignore_index None"),
    "CalibrationError": (m.CalibrationError(), m.CalibrationError(4), "num_bins 15"),
    "NDCG": (m.NDCG([1, 2]), m.NDCG([1, 3]), r"top_k \[1, 2\]"),
    "HitRate": (m.HitRate([1, 2]), m.HitRate([1, 3]), r"top_k \[1, 2\]"),
    "FID": (m.FID(3, Identity()), m.FID(4, Identity()), "num_features 3"),
    "Bleu": (m.Bleu(2), m.Bleu(3), "ngram 2"),
    "RougeN": (m.RougeN(2), m.RougeN(1), "ngram 2"),
    "fairness.SubgroupMetric": (
        m.fairness.SubgroupMetric(m.Accuracy(), [0, 1]),
        m.fairness.SubgroupMetric(m.Accuracy(), [0, 2]),
        r"groups \[0, 1\]",
    ),
    "ObjectDetectionAvgPrecisionRecall": (
        m.ObjectDetectionAvgPrecisionRecall(num_classes=2),
        m.ObjectDetectionAvgPrecisionRecall(iou_thresholds=[0.5], num_classes=2),
        r"iou_thresholds \[0.5, 0.55",
    ),
}


@pytest.mark.parametrize("path", PAIRS)
def test_a_state_of_other_settings_is_refused(path):
    metric, other, words = PAIRS[path]
    torch.manual_seed(0)
    metric.update(CASES[path].batch())
    state = metric.state_dict()
    with pytest.raises(ValueError, match=rf"by a \w+ with {words}.* be loaded into one with "):
        other.load_state_dict(state)
    metric.load_state_dict(state)


def test_the_average_of_classes_may_be_another():
    metric, other = m.Precision(average=False), m.Precision(average=True)
    torch.manual_seed(0)
    metric.update(CASES["Precision"].batch())
    other.load_state_dict(metric.state_dict())
    assert other.compute() == pytest.approx(metric.compute().mean().item())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: m.PSNR("1"), "data_range must be a number, got str '1'"),
        (lambda: m.SSIM(1.0, k1="a"), "k1 must be a number, got str 'a'"),
        (lambda: m.MaximumMeanDiscrepancy("a"), "var must be a number"),
        (lambda: m.HSIC(sigma_x="a"), "sigma_x must be a number"),
        (lambda: m.CosineSimilarity("a"), "eps must be a number"),
        (lambda: m.MeanPairwiseDistance("a"), "p must be a number"),
        (lambda: m.NDCG(1, relevance_threshold="a"), "relevance_threshold must be a number"),
        (lambda: m.Fbeta("a"), "beta must be a number"),
        (lambda: m.RunningAverage(m.Accuracy(), alpha="a"), "alpha must be a number"),
        (lambda: m.FID("a", Identity()), "FID: num_features must be a whole number"),
        (lambda: m.CommonObjectDetectionMetrics(2.5), "num_classes must be a whole number"),
        (
            lambda: m.ObjectDetectionAvgPrecisionRecall(max_detections_per_image_per_class=2.5),
            "max_detections_per_image_per_class must be a whole number",
        ),
        (lambda: m.fairness.SubgroupMetric(3, [0]), "base_metric must be a metric, got 3"),
        (lambda: m.ExternalMetric(MulticlassAccuracy), "got the class MulticlassAccuracy: call it"),
    ],
)
def test_a_setting_of_another_kind_is_refused(make, words):
    with pytest.raises(TypeError, match=words):
        make()


def test_gains_of_another_function_are_refused():
    metric, other = m.NDCG(2), m.NDCG(2, gain_function="linear_rank")
    with pytest.raises(ValueError, match="NDCG with gain_function exp_rank"):
        other.load_state_dict(metric.state_dict())
