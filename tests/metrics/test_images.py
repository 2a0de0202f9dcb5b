"""PSNR and SSIM, against pytorch-ignite and the definition by SciPy's filters."""

from __future__ import annotations

import ignite.metrics as oracle
import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import PSNR, SSIM

few = settings(max_examples=12, deadline=None)
generator = torch.Generator().manual_seed(0)


def images(*shape, dtype=torch.float32):
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    y = (x + 0.2 * torch.rand(shape, generator=generator)).clamp(0, 1)
    if dtype == torch.uint8:
        x, y = x * 255, y * 255
    return x.to(dtype), y.to(dtype)


def value_of(metric, batches):
    metric.reset()
    for batch in batches:
        metric.update(batch)
    return metric.compute()


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([torch.float32, torch.float64]))
@few
def test_psnr_agrees_with_ignite(size, channels, dtype):
    batches = [images(size, channels, 5, 7, dtype=dtype), images(2, channels, 4, 4, dtype=dtype)]
    expected = value_of(oracle.PSNR(data_range=1.0), batches)
    assert value_of(PSNR(data_range=1.0), batches) == pytest.approx(expected, rel=1e-6)


def test_psnr_of_bytes_and_of_equal_images():
    batch = images(2, 3, 8, 8, dtype=torch.uint8)
    expected = value_of(oracle.PSNR(data_range=255), [batch])
    assert value_of(PSNR(data_range=255), [batch]) == pytest.approx(expected, rel=1e-6)
    assert value_of(PSNR(data_range=1.0), [(batch[0] / 255,) * 2]) == pytest.approx(100.0)


def similarity(x, y, data_range, filters, k1=0.01, k2=0.03):
    """The definition; ``filters`` gives local means of an array."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    mean_x, mean_y = filters(x), filters(y)
    variance_x, variance_y = filters(x * x) - mean_x**2, filters(y * y) - mean_y**2
    covariance = filters(x * y) - mean_x * mean_y
    upper = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (upper / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean()


def by_scipy(batch, data_range, sizes, sigmas=None):
    def filters(image):
        for axis, size in enumerate(sizes):
            weights = np.ones(size)
            if sigmas:
                weights = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigmas[axis]) ** 2)
            image = scipy.ndimage.correlate1d(
                image, weights / weights.sum(), axis=axis, mode="mirror"
            )
        return image

    values = [
        similarity(x, y, data_range, filters)
        for image_x, image_y in zip(*(tensor.numpy() for tensor in batch), strict=True)
        for x, y in zip(image_x, image_y, strict=True)
    ]
    return np.mean(values)


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([torch.float32, torch.float64]))
@few
def test_ssim_agrees_with_ignite_and_its_definition(size, channels, dtype):
    batches = [images(size, channels, 12, 17, dtype=dtype), images(1, channels, 9, 8, dtype=dtype)]
    value = value_of(SSIM(data_range=1.0), batches)
    assert value == pytest.approx(value_of(oracle.SSIM(data_range=1.0), batches), abs=1e-5)
    parts = [by_scipy(batch, 1.0, (11, 11), (1.5, 1.5)) for batch in batches]
    assert value == pytest.approx((parts[0] * size + parts[1]) / (size + 1), abs=1e-5)


@pytest.mark.parametrize(
    ("sizes", "sigmas"), [((3, 7), (0.8, 2.0)), ((5, 5), None), ((9, 3), None), ((1, 1), (1.0, 1))]
)
def test_ssim_with_other_windows(sizes, sigmas):
    batch = images(2, 2, 10, 12, dtype=torch.float64)
    settings = {"sigma": sigmas} if sigmas else {"gaussian": False}
    value = value_of(SSIM(1.0, kernel_size=sizes, **settings), [batch])
    assert value == pytest.approx(by_scipy(batch, 1.0, sizes, sigmas), abs=1e-12)


def test_ssim_of_volumes():
    batch = images(2, 2, 6, 7, 8, dtype=torch.float64)
    value = value_of(SSIM(1.0, kernel_size=5, ndims=3), [batch])
    expected = value_of(oracle.SSIM(1.0, kernel_size=5, ndims=3), [batch])
    assert value == pytest.approx(expected, abs=1e-7)
    value = value_of(SSIM(1.0, kernel_size=(3, 5, 7), sigma=(1, 1.5, 2), ndims=3), [batch])
    assert value == pytest.approx(by_scipy(batch, 1.0, (3, 5, 7), (1, 1.5, 2)), abs=1e-12)


def test_ssim_in_blocks_is_that_of_all_at_once(monkeypatch):
    batch = images(5, 2, 12, 12, dtype=torch.float64)
    expected = value_of(SSIM(1.0), [batch])
    monkeypatch.setattr("cookfire.metrics._images._ELEMENTS_IN_CACHE", 3 * 4 * 2 * 12 * 12)
    assert value_of(SSIM(1.0), [batch]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16])
def test_images_of_few_bits_are_calculated_in_float32(dtype):
    data_range = 255 if dtype == torch.uint8 else 1.0
    x, y = images(2, 3, 12, 12, dtype=dtype)
    for make in (PSNR, SSIM):
        value = value_of(make(data_range), [(x, y)])
        assert value == pytest.approx(value_of(make(data_range), [(x.double(), y.double())]), 1e-4)


def test_images_that_are_not_contiguous_and_empty_batches():
    x, y = images(2, 3, 12, 14)
    for make in (PSNR, SSIM):
        expected = value_of(make(1.0), [(x, y)])
        turned = x.transpose(2, 3), y.transpose(2, 3)
        assert value_of(make(1.0), [turned]) == pytest.approx(expected, rel=1e-5)
        metric = make(1.0)
        metric.update((x[:0], y[:0]))
        with pytest.raises(NotComputableError):
            metric.compute()
        metric.update((x, y))
        assert metric.compute() == expected


def test_what_is_wrong_with_images_is_said():
    x = torch.rand(2, 3, 12, 12)
    for make in (PSNR, SSIM):
        with pytest.raises(TypeError, match="must have one dtype, got torch.float32 and torch.fl"):
            make(1.0).update((x, x.double()))
        with pytest.raises(ValueError, match=r"expected y_pred and y of one shape \(batch, .*2, 3"):
            make(1.0).update((x, x[:, :2]))
        with pytest.raises(ValueError, match="data_range must be positive, got 0"):
            make(0)
    with pytest.raises(ValueError, match=r"SSIM\(ndims=3\): expected images \(batch, channels, d"):
        SSIM(1.0, ndims=3).update((x, x))
    with pytest.raises(ValueError, match=r"images of \(12, 5\) are too small for the kernel_size"):
        SSIM(1.0).update((x[..., :5], x[..., :5]))
    for wrong, message in (
        ({"ndims": 4}, "ndims must be 2 or 3, got 4"),
        ({"kernel_size": 4}, "kernel_size must be odd and positive, got 4"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size must be a number, or 2 of them, got \(3, 3, 3"),
        ({"sigma": 0.0}, "sigma must be positive, got 0.0"),
        ({"sigma": "wide"}, "sigma must be a number, or 2 of them, got 'wide'"),
    ):
        with pytest.raises(ValueError, match=message):
            SSIM(1.0, **wrong)
