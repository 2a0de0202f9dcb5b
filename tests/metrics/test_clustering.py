"""Clustering scores, against scikit-learn."""

from __future__ import annotations

import math

import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import clustering

few = settings(max_examples=20, deadline=None)
SCORES = {
    clustering.CalinskiHarabaszScore: sklearn.metrics.calinski_harabasz_score,
    clustering.DaviesBouldinScore: sklearn.metrics.davies_bouldin_score,
    clustering.SilhouetteScore: sklearn.metrics.silhouette_score,
}


@st.composite
def samples(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    number, clusters = draw(st.integers(4, 40)), draw(st.integers(2, 6))
    labels = torch.randint(0, clusters, (number,), generator=generator) * 3 - 4
    width = draw(st.integers(1, 4))
    if draw(st.booleans()):  # coarse ones make equal samples
        features = torch.randint(0, 3, (number, width), generator=generator).float()
    else:
        features = torch.randn(number, width, generator=generator) + labels.unsqueeze(1)
    return features.to(draw(st.sampled_from([torch.float32, torch.float64]))), labels


def value_of(metric, features, labels, size=7):
    metric.reset()
    for batch in zip(features.split(size), labels.split(size), strict=True):
        metric.update(batch)
    return metric.compute()


@pytest.mark.parametrize("make", SCORES)
@given(data=samples())
@few
def test_scores_agree_with_scikit_learn(make, data):
    features, labels = data
    value = value_of(make(), features, labels)
    if not 2 <= len(labels.unique()) < len(labels):
        assert math.isnan(value)
        return
    expected = SCORES[make](features.double().numpy(), labels.numpy())
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("metric", ["sqeuclidean", "manhattan", "chebyshev", "cosine"])
@given(data=samples())
@few
def test_silhouettes_by_other_distances_agree_with_scikit_learn(metric, data):
    features, labels = data
    features = features + 0.5 * (metric == "cosine")  # no vector of zeros
    if 2 <= len(labels.unique()) < len(labels):
        value = value_of(
            clustering.SilhouetteScore(silhouette_kwargs={"metric": metric}), features, labels
        )
        expected = sklearn.metrics.silhouette_score(
            features.double().numpy(), labels.numpy(), metric=metric
        )
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("make", SCORES)
def test_scores_in_blocks_are_those_of_all_at_once(make, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(50, 3, generator=generator), torch.arange(50) % 4
    expected = value_of(make(), features, labels)
    monkeypatch.setattr("cookfire.metrics.clustering._clusters.ELEMENTS_AT_ONCE", 100)
    assert value_of(make(), features, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("make", SCORES)
def test_clusters_of_one_point(make):
    features, labels = (
        torch.tensor([[1.0], [1.0], [2.0], [2.0], [9.0]]),
        torch.tensor([0, 0, 1, 1, 2]),
    )
    expected = SCORES[make](features.double().numpy(), labels.numpy())
    assert value_of(make(), features, labels) == pytest.approx(expected)


@pytest.mark.parametrize("make", SCORES)
def test_half_precision_empty_batches_and_wrong_shapes(make):
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(12, 2, generator=generator).half(), torch.arange(12) % 3
    expected = SCORES[make](features.double().numpy(), labels.numpy())
    assert value_of(make(), features, labels) == pytest.approx(expected)
    metric = make()
    metric.update((features[:0], labels[:0]))
    with pytest.raises(NotComputableError):
        metric.compute()
    for wrong in ((features[:, 0], labels), (features, features), (features[:3], labels)):
        with pytest.raises(ValueError, match=rf"{make.__name__}: expected features \(batch, fe"):
            make().update(wrong)


def test_a_mapping_has_features_and_labels():
    metric = clustering.DaviesBouldinScore()
    features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    metric.update(metric._transform({"features": features, "labels": torch.tensor([0, 0, 1, 1])}))
    assert metric.compute() == pytest.approx(0.2)


def test_a_silhouette_of_some_samples_is_the_same_each_time():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 2, generator=generator), torch.arange(40) % 2
    values = [
        value_of(clustering.SilhouetteScore(silhouette_kwargs=settings), features, labels)
        for settings in (
            {"sample_size": 20},
            {"sample_size": 20, "random_state": 0},
            {"sample_size": 20, "random_state": 1},
            {"sample_size": 400},
            {},
        )
    ]
    assert values[0] == values[1] != values[2]
    assert values[3] == pytest.approx(values[4])


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="silhouette_kwargs may have metric, sample_size, random"):
        clustering.SilhouetteScore(silhouette_kwargs={"n_jobs": 2})
    with pytest.raises(ValueError, match="metric must be one of euclidean, .*, got 'precomputed'"):
        clustering.SilhouetteScore(silhouette_kwargs={"metric": "precomputed"})
