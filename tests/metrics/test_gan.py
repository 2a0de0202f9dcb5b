"""Frechet distance and Inception score, against pytorch-ignite and SciPy."""

from __future__ import annotations

import ignite.metrics as oracle
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import inception_v3

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import FID, InceptionScore
from cookfire.metrics.gan.utils import InceptionModel

few = settings(max_examples=15, deadline=None)


@st.composite
def feature_batches(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    width = draw(st.integers(1, 6))
    mix = torch.randn(width, width, generator=generator)
    batches = []
    for size in [9, *draw(st.lists(st.integers(1, 9), max_size=3))]:
        first = torch.randn(size, width, generator=generator)
        second = torch.randn(size, width, generator=generator) @ mix + 1
        batches.append((first, second))
    return batches


def value_of(metric, batches):
    metric.reset()
    for batch in batches:
        metric.update(batch)
    return metric.compute()


@given(feature_batches())
@few
def test_the_frechet_distance_agrees_with_scipy_and_ignite(batches):
    width = batches[0][0].shape[1]
    value = value_of(FID(num_features=width), batches)
    assert type(value) is float
    first, second = (torch.cat([batch[i] for batch in batches]).double().numpy() for i in (0, 1))
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    difference = first.mean(0) - second.mean(0)
    expected = difference @ difference + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert value == pytest.approx(expected, rel=1e-7, abs=1e-7)
    if width > 1:  # SciPy has no root of ignite's for one feature
        assert value == pytest.approx(
            value_of(oracle.FID(num_features=width), batches), rel=1e-5, abs=1e-5
        )


def test_the_distance_is_defined_for_singular_covariances_and_other_numbers_of_images():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(30, 4, generator=generator)
    first[:, 3] = first[:, 0]
    second = first[torch.arange(30).repeat(2)][:45]
    assert value_of(FID(num_features=4), [(first, first)]) == pytest.approx(0.0, abs=1e-9)
    metric = FID(num_features=4)
    metric.update((first[:10], second[:40]))
    metric.update((first[10:], second[40:]))
    assert metric.compute() == pytest.approx(value_of(FID(num_features=4), [(first, second)]))


def test_a_covariance_needs_two_images():
    metric = FID(num_features=2)
    metric.update((torch.zeros(0, 2), torch.zeros(3, 2)))
    metric.update((torch.zeros(1, 2), torch.zeros(3, 2)))
    with pytest.raises(NotComputableError, match="FID needs two images .* there were 1 and 6"):
        metric.compute()


@given(
    st.integers(0, 2**31), st.integers(2, 8), st.lists(st.integers(1, 9), min_size=1, max_size=3)
)
@few
def test_the_inception_score_agrees_with_ignite(seed, classes, sizes):
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(size, classes, generator=generator).softmax(1) for size in sizes]
    expected = value_of(oracle.InceptionScore(num_features=classes), batches)
    assert value_of(InceptionScore(num_features=classes), batches) == pytest.approx(expected, 1e-6)


def test_the_inception_score_of_nothing_and_of_sure_images():
    metric = InceptionScore(num_features=3)
    metric.update(torch.zeros(0, 3))
    with pytest.raises(NotComputableError):
        metric.compute()
    assert value_of(metric, [torch.eye(3), torch.eye(3).half()]) == pytest.approx(3.0)
    assert value_of(metric, [torch.tensor([[1.0, 0, 0]])]) == pytest.approx(1.0)


def test_any_network_extracts_features_in_evaluation_mode():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, images):
            assert not torch.is_grad_enabled()
            return self.norm(images).flatten(1)

    network = Network()
    images = torch.rand(5, 3, 2, 2, requires_grad=True)
    metric = FID(num_features=12, feature_extractor=network)
    metric.update((images, images.flip(0) + 1))
    assert not network.training
    assert network.norm.num_batches_tracked == 0
    assert metric.compute() == pytest.approx(12.0, rel=1e-3)
    assert metric.first_products.dtype == torch.float64
    with pytest.raises(
        ValueError, match=r"expected features \(batch, 7\), as num_features says, g"
    ):
        FID(num_features=7, feature_extractor=network).update((images, images))


def test_settings_that_do_not_fit_are_refused():
    for make in (FID, InceptionScore):
        with pytest.raises(TypeError, match="feature_extractor must be a torch.nn.Module, got <fu"):
            make(num_features=3, feature_extractor=lambda images: images)
        with pytest.raises(ValueError, match="a feature_extractor needs num_features"):
            make(feature_extractor=nn.Identity())
        with pytest.raises(ValueError, match="num_features must be positive, got 0"):
            make(num_features=0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A torch home whose cache has (random) weights of Inception."""
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("torch")
    file = home / "hub" / "checkpoints" / "inception_v3_google-0cc3c7bd.pth"
    file.parent.mkdir(parents=True)
    model = inception_v3(weights=None, init_weights=False)
    torch.save(model.state_dict(), file)
    return home, file, model.eval()


def test_inception_loads_a_local_file(weights):
    _, file, model = weights
    images = torch.rand(2, 3, 75, 75)
    features = InceptionModel(return_features=True, weights=file)(images)
    probabilities = InceptionModel(return_features=False, weights=str(file))(images)
    assert features.shape == (2, 2048)
    assert probabilities.shape == (2, 1000)
    with torch.no_grad():
        model.transform_input = True
        torch.testing.assert_close(probabilities, model(images).softmax(1))
        torch.testing.assert_close(model.fc(features).softmax(1), probabilities)
    assert not features.requires_grad


def test_the_default_network_is_inception_of_torchs_cache(weights, monkeypatch):
    home, _, model = weights
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(home / "hub"))
    fid, score = FID(), InceptionScore()
    assert (fid._num_features, score._num_features) == (2048, 1000)
    images = torch.rand(2, 3, 75, 75)
    score.update(images)
    model.transform_input = True
    with torch.no_grad():
        probabilities = model(images).softmax(1)
    expected = value_of(InceptionScore(num_features=1000), [probabilities])
    assert score.compute() == pytest.approx(expected, rel=1e-5)
    fid.update((images, images))
    assert fid.first_sum.shape == (2048,)
    network = fid._feature_extractor.train()
    assert not network.model.training


def test_without_weights_it_is_said_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for make in (FID, InceptionScore):
        with pytest.raises(
            FileNotFoundError, match="there are no weights of Inception v3 in .*giv"
        ):
            make()
    with pytest.raises(FileNotFoundError, match="there is no file of weights nowhere.pth"):
        InceptionModel(return_features=True, weights="nowhere.pth")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="InceptionModel needs torchvision: pip install"):
        InceptionModel(return_features=True)


def test_images_that_inception_can_not_take_are_refused(weights):
    model = InceptionModel(return_features=True, weights=weights[1])
    for shape in ((3, 80, 80), (1, 1, 80, 80), (1, 3, 80, 74)):
        with pytest.raises(ValueError, match=r"expected images \(batch, 3, height, width\) with s"):
            model(torch.rand(shape))
